"""Steps: what a job's finished steps have made, kept in its scratch folder, so that the next run can go on from there.

A job has one folder, whose name follows from its output.  A step writes its data first, and then its note, <step>.json,
which is renamed into place.  A step without a note has not finished, and its data is never read.
"""

import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import sleep
from typing import Any
from urllib.parse import unquote

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from annspark.errors import AnnsparkError
from annspark.filesystem import open_place
from annspark.spark import files
from annspark.spark.leftovers import OWNER, clean, is_dead, this_owner
from annspark.spark.staging import Store, read_staged, stage_table

logger = logging.getLogger("annspark")
_KEPT = "resume-"
_ALIVE = "_alive"  # a file that a living run writes anew every _BEAT seconds
_BEAT, _SILENT = 10.0, 60.0  # a run elsewhere that has not done so for _SILENT seconds is taken to be dead
_OPEN: set[str] = set()  # folders of this process's runs


@dataclass(frozen=True)
class Made:
    """What a finished step has made.

    table  : None for a step that makes none
    facts  : as they were given to save
    arrays : as they were given to save
    """

    table: DataFrame | None
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Steps:
    """The finished steps of a job.

    spark   : the session
    folder  : holds them; "" keeps nothing
    made_of : digest of all that their results depend on
    stored  : folders of the tables that this run has stored, the last one last
    """

    spark: SparkSession
    folder: str = ""
    made_of: str = ""
    stored: list[str] = field(default_factory=list)

    def store(self, table: DataFrame) -> DataFrame:
        """Write a table to the folder, and return a DataFrame that reads it."""
        self.stored.append(f"{self.folder}/table-{files.new_mark()}")
        return stage_table(table, self.stored[-1])

    def save(
        self,
        step: str,
        *,
        has_table: bool = False,
        facts: dict[str, Any] | None = None,
        arrays: dict[str, Any] | None = None,
    ) -> None:
        """Note that a step has finished; nothing happens where nothing is kept.

        has_table : the step has made the table that was stored last
        facts     : what else it has made, as JSON takes it
        arrays    : and as NumPy takes it, by name
        """
        if not self.folder:
            return
        table = self.stored[-1] if has_table else ""
        data = io.BytesIO()
        np.savez(data, **(arrays or {}))
        files.write_bytes(f"{self.folder}/{step}.npz", data.getvalue())
        note = {
            "made_of": self.made_of,
            "table": table.rpartition("/")[2],
            "files": files.fingerprint(table) if table else "",
            "facts": facts or {},
        }
        with files.text_once_done(f"{self.folder}/{step}.json", json.dumps(note)):
            pass

    def load(self, step: str) -> Made | None:
        """Return what a step of an earlier run has made; None where it has not finished, or its data is not whole."""
        note = self.note_of(step) if self.folder else None
        if note is None:
            return None
        with np.load(io.BytesIO(files.read_bytes(f"{self.folder}/{step}.npz")), allow_pickle=False) as saved:
            arrays = dict(saved)
        table = read_staged(self.spark.read, f"{self.folder}/{note['table']}") if note["table"] else None
        return Made(table, note["facts"], arrays)

    def note_of(self, step: str) -> dict[str, Any] | None:
        """Return the note of a finished step; None where it was made of something else, or its data is not whole."""
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(files.read_text(f"{self.folder}/{step}.json"))
            is_whole = not note["table"] or files.fingerprint(f"{self.folder}/{note['table']}") == note["files"]
            if note["made_of"] == self.made_of and is_whole and files.exists(f"{self.folder}/{step}.npz"):
                return dict(note)
        return None


def store_once(steps: Steps, step: str, store: Store, table: DataFrame) -> DataFrame:
    """Return the table of a step as an earlier run has kept it, or store it, where steps are kept for the next run.

    store : stores it where nothing is kept
    """
    if not steps.folder:
        return store(table)
    kept = steps.load(step)
    if kept and kept.table is not None:
        return kept.table
    stored = steps.store(table)
    steps.save(step, has_table=True)
    return stored


@contextmanager
def steps_kept(spark: SparkSession, scratch: str, output: str, made_of: str) -> Iterator[Steps]:
    """Yield the steps that a dead run of the same job has finished, and delete them when the block ends.

    They stay when Spark fails, a signal comes or the process is killed: then the next run goes on from them.

    output  : place of the job's output, which names the job
    made_of : digest of all that the steps depend on; "" where it is not known, then nothing is kept
    """
    folder = _folder_of(scratch, output)
    if not made_of:
        logger.info("resume: the files of the input cannot be listed, so nothing is kept for a run that goes on.")
        yield Steps(spark)
        return
    if files.exists(folder) and not _is_left(folder):
        logger.info("resume: %s belongs to a running job, so this run starts clean and keeps nothing.", folder)
        yield Steps(spark)
        return
    steps = Steps(spark, folder, made_of)
    files.make_folder(folder)
    files.write_text(f"{folder}/{OWNER}", json.dumps(this_owner()))
    _drop_unfinished(steps)
    try:
        with _alive(folder):
            yield steps
    except AnnsparkError:  # the next run would come to the same end
        clean(folder)
        raise
    except BaseException:
        logger.info("resume: what finished steps have made is kept in %s. Run again with --resume to go on.", folder)
        raise
    clean(folder)


def forget_steps(scratch: str, output: str) -> None:
    """Delete what a dead run of a job has kept; log it where the run may be alive."""
    folder = _folder_of(scratch, output)
    if not files.exists(folder):
        return
    if _owner_is_dead(folder):
        clean(folder)
        logger.info("left over: %s, of a run that ended before its time, is deleted", folder)
    else:
        logger.info("left over: %s; delete it by hand if it belongs to no running job", folder)


def digest_of(facts: dict[str, Any], tables: Sequence[DataFrame]) -> str:
    """Return a digest of facts, and of the columns and files of tables; "" where files cannot be listed."""
    told = [json.dumps(facts, sort_keys=True, default=str)]
    for table in tables:
        listed = _files_of(table)
        if not listed:
            return ""
        told += [table.schema.json(), *listed]
    return hashlib.sha256("\n".join(told).encode(errors="surrogatepass")).hexdigest()


def _files_of(table: DataFrame) -> list[str]:
    """Return path, size and time of every file that a table is read from, sorted; [] where they cannot be listed."""
    with suppress(Exception):  # a table without files, or on a file system that only Spark reaches
        places = [open_place(unquote(path)) for path in table.inputFiles()]
        infos = [info for system, inside in places for info in system.get_file_info([inside])]
        if all(info.is_file for info in infos):
            return sorted(f"{info.path}|{info.size}|{info.mtime_ns}" for info in infos)
    return []


def _folder_of(scratch: str, output: str) -> str:
    return f"{scratch.rstrip('/')}/{_KEPT}{hashlib.sha256(output.encode(errors='surrogatepass')).hexdigest()[:12]}"


@contextmanager
def _alive(folder: str) -> Iterator[None]:
    """Show other runs that the run of this block is alive: those of this process, and those on other machines."""
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(_BEAT):
            with suppress(OSError):  # the next time may do better
                files.write_text(f"{folder}/{_ALIVE}", files.new_mark())

    thread = threading.Thread(target=show, daemon=True)
    _OPEN.add(folder)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _OPEN.discard(folder)


def _is_left(folder: str) -> bool:
    """Say whether the run that owns a folder is dead, which takes a minute if it was on another machine.

    If it is alive all the same, because it only stood still, both runs make the same tables under names of their own.
    The first that is done deletes the folder; the other may then fail, and publishes nothing.
    """
    dead = _owner_is_dead(folder)
    if dead is not None:
        return dead
    before = _text_of(folder, _ALIVE)
    sleep(_SILENT)
    return _text_of(folder, _ALIVE) == before


def _owner_is_dead(folder: str) -> bool | None:
    """Say whether the run that owns a folder has ended or failed; None when this process cannot tell."""
    owner: Any = None
    with suppress(ValueError):
        owner = json.loads(_text_of(folder, OWNER))
    return folder not in _OPEN if owner == this_owner() else is_dead(owner)


def _text_of(folder: str, name: str) -> str:
    with suppress(OSError):
        return files.read_text(f"{folder}/{name}")
    return ""


def _drop_unfinished(steps: Steps) -> None:
    """Delete from the folder what belongs to no finished step of these inputs and settings."""
    names, wanted = files.names_in(steps.folder), {OWNER}
    for step in (name.removesuffix(".json") for name in names if name.endswith(".json") and name != OWNER):
        if note := steps.note_of(step):
            wanted |= {f"{step}.json", f"{step}.npz", note["table"]}
            logger.info("resume: %s has finished in an earlier run, and is not done again", step)
    for name in names:
        if name not in wanted:
            clean(f"{steps.folder}/{name}")
