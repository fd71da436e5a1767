"""Publish: the table is written aside, and takes its place by a rename once it is complete and audited.

Nothing is replaced but what --overwrite was said of: what was at the output when the run began, or what annspark has
published there since.  What is found at the output instead stays, and the finished table is kept beside it.
"""

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pyspark.errors import ParseException
from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.job import is_catalog_table
from annspark.spark import files
from annspark.spark.leftovers import clear, is_dead, this_owner, working_in
from annspark.spark.places import (
    FILES,
    drop,
    exists,
    identifier,
    identity_of,
    is_published,
    properties_of,
    reader_of,
    rename,
    set_property,
    shown,
    table_files,
)

logger = logging.getLogger("annspark")
_REPLACED = "replaced"
_OWNER = "annspark.owner"  # property of a catalog table: the process that writes it


@dataclass(frozen=True)
class Target:
    """Where a table is to be published.

    name      : as the user gave it
    place     : the folder with its scheme, or the catalog table
    mark      : what this run's names end with
    overwrite : what was there may be replaced
    found     : what was there when the run began; "" when nothing was
    link      : the folder that was named, where it is a link to place; else ""
    written   : names of the tables written aside so far
    """

    name: str
    place: str
    mark: str
    overwrite: bool
    found: str
    link: str = ""
    written: list[str] = field(default_factory=list)

    @property
    def is_table(self) -> bool:
        """Whether it is a catalog table."""
        return is_catalog_table(self.name)

    @property
    def aside(self) -> str:
        """The folder of what is written aside, or what the names of such tables begin with."""
        if self.is_table:
            return f"{self.place}__pending_{self.mark}"
        return f"{self.parent}/{_hidden(self.place)}{self.mark}"

    @property
    def kept(self) -> str:
        """Where the finished table goes when its place is taken."""
        return f"{self.place}__kept_{self.mark}" if self.is_table else f"{self.place}.kept-{self.mark}"

    @property
    def report(self) -> str:
        """The folder of its report, when none is given."""
        return f"{self.link or self.place}.report"

    @property
    def parent(self) -> str:
        """The folder, or the database, it lies in."""
        return self.place.rpartition("." if self.is_table else "/")[0]


@dataclass(frozen=True)
class Pending:
    """A table written aside.

    table  : reads what was written
    name   : where it lies now: a folder with its scheme, or a catalog table
    target : where it belongs
    """

    table: DataFrame
    name: str
    target: Target


def require_apart(spark: SparkSession, target: Target, vectors: DataFrame, given: str) -> None:
    """Raise SettingsError when the input, whatever it is called, is read from what the target would replace."""
    if not target.found:
        return
    read: set[str] = set()
    replaced: set[str] = set()
    with suppress(Exception):  # tables that are not made of files
        read = {files.plain(unquote(one)) for one in vectors.inputFiles()}
        if target.is_table:
            replaced = {files.plain(unquote(one)) for one in spark.read.table(target.place).inputFiles()}
        else:
            replaced = {one for one in read if one.startswith(files.plain(target.place) + "/")}
    if read & replaced:
        raise SettingsError(
            f"output {target.name!r} holds files that the input {given!r} is read from ({min(read & replaced)!r}), and "
            "they would be replaced. Give another output."
        )


def check_target(spark: SparkSession, name: str, overwrite: bool) -> Target:
    """Return the target; SettingsError when it is there and may not be replaced, or could not be published whole."""
    if is_catalog_table(name):
        return _check_table(spark, name, overwrite)
    files.require_rename(name)
    files.require_whole_name(spark, "output", name)
    named = files.resolve(spark, "output", name)
    files.require_rename(named)
    place = files.behind_link(named)  # the link stays, and leads to the new table
    files.require_reach("output", place)
    parent = place.rpartition("/")[0]
    try:
        if files.exists(parent):
            with files.alone(parent):
                clear(parent, _hidden(place), lambda folder: _rescue_folder(folder, place))
        kind = files.kind_of(place)
    except OSError as error:
        raise SettingsError(f"output {name!r} cannot be looked at ({reason_of(error)}). Choose another.") from error
    if kind == "file":
        raise SettingsError(f"output {name!r} is a file, and a table is a folder. Choose another name, or remove it.")
    if kind and not overwrite:
        raise SettingsError(f"output {name!r} exists. Choose another, or replace it with --overwrite.")
    if kind and files.is_mount(place):
        raise SettingsError(
            f"output {name!r} is where a file system is mounted, which cannot be replaced. Choose a folder in it."
        )
    if kind and not files.is_published(place):
        _require_table_like(name, place)
    files.require_writable("output", name, parent)
    link = named if place != named else ""
    target = Target(name, place, files.new_mark(), overwrite, identity_of(spark, place), link)
    try:
        files.kind_of(target.kept + _REPLACED)  # the longest name there may be
    except OSError as error:
        raise SettingsError(f"output {name!r} is too long a name ({reason_of(error)}). Choose another.") from error
    return target


def _require_table_like(name: str, place: str) -> None:
    """Raise SettingsError for a folder that is no table, which would go with all it holds: a mistyped name, mostly."""
    if files.is_around_here(place):
        raise SettingsError(f"output {name!r} is or holds the folder this job runs in. Give a folder of its own.")
    others = [one for one in files.folders_in(place) if "=" not in one and not one.startswith(("_", "."))]
    if others:
        raise SettingsError(
            f"output {name!r} holds folders that no table has ({', '.join(map(repr, others[:3]))}), and they would be "
            "deleted. Give a folder of its own, or empty this one."
        )


def require_format(spark: SparkSession, target: Target, file_format: str | None, shape: str) -> None:
    """Raise SettingsError when what is to be published could not be written, or not be read again, in a format."""
    if file_format is None or file_format.lower() in ("parquet", "orc", "json"):
        return
    neighbor = ["id AS neighbor_id", "0F AS distance"]
    columns = [f"array(struct({', '.join(neighbor)})) AS neighbors"] if shape == "nested" else ["1 AS rank", *neighbor]
    table = spark.range(1).selectExpr("id", *columns)
    try:
        pending = write_pending(table, target, file_format)
        why = "" if pending.table.columns == table.columns else "names of columns are lost"
        discard(pending)
    except Exception as error:
        why = reason_of(error)
    if why:
        raise SettingsError(
            f"'format' is {file_format!r}, which neighbors of the {shape} shape cannot be published in ({why}). Give "
            "parquet, orc or json."
        )


def _check_table(spark: SparkSession, name: str, overwrite: bool) -> Target:
    database = name.rpartition(".")[0]
    try:
        spark.catalog.tableExists(f"{name}__pending_")  # what the table is called until it is done
    except ParseException as error:
        raise SettingsError(
            f"output {name!r} is no name that can be given to a catalog table: between dots letters, digits and _, "
            f"without quotes. Choose such a name; or if a path is meant, write './{name}'."
        ) from error
    if not spark.catalog.databaseExists(database):
        raise SettingsError(
            f"output {name!r}: there is no database {database!r}. Create it; or if a path is meant, write './{name}'."
        )
    _clear_tables(spark, name)
    there = spark.catalog.tableExists(name)
    kind = spark.catalog.getTable(name).tableType if there else ""
    if "VIEW" in kind.upper() or kind.upper() == "TEMPORARY":
        raise SettingsError(f"output {name!r} is a view, which is never replaced. Choose another name, or drop it.")
    if there and not overwrite:
        raise SettingsError(f"output {name!r} exists. Choose another, or replace it with --overwrite.")
    return Target(name, name, files.new_mark(), overwrite, identity_of(spark, name))


@contextmanager
def aside(spark: SparkSession, target: Target) -> Iterator[None]:
    """Make what the run writes aside possible, or raise SettingsError; when the block ends nothing of it is left."""
    if target.is_table:
        try:
            yield
        finally:
            for name in target.written:
                drop(spark, name)
        return
    made = files.missing_folders(target.parent)
    with working_in(target.aside, "output", target.name, spark):
        yield
    files.remove_empty(made)  # when nothing was published


def write_pending(table: DataFrame, target: Target, file_format: str | None) -> Pending:
    """Write the table beside its target, where no reader looks."""
    spark = table.sparkSession
    if target.is_table:
        name = f"{target.aside}_{len(target.written)}" if target.written else target.aside
        target.written.append(name)
        writer = table.write if file_format is None else table.write.format(file_format)
        writer.saveAsTable(name)
        set_property(spark, name, _OWNER, json.dumps(this_owner()))
        return Pending(spark.read.table(name), name, target)
    folder = f"{target.aside}/table{len(target.written) or ''}"
    target.written.append(folder)
    files.write_table(table, folder, file_format or "parquet")
    return Pending(reader_of(spark, file_format).option(*files.LITERAL).load(folder), folder, target)


def discard(pending: Pending) -> None:
    """Delete a table written aside, when another has been written since."""
    drop(pending.table.sparkSession, pending.name)


def commit(pending: Pending) -> None:
    """Let the pending table take its target's place; what stood there goes once the new one is in place.

    Raises SettingsError when what stands there may not be replaced: it stays, and the table is kept beside it.
    """
    spark, target = pending.table.sparkSession, pending.target
    replaced = f"{target.aside}_{_REPLACED}" if target.is_table else f"{target.aside}/{_REPLACED}"
    if target.is_table:
        set_property(spark, pending.name, FILES, table_files(spark, pending.name))
    else:
        files.mark_published(pending.name)
    now = identity_of(spark, target.place)
    if now and not (target.overwrite and (now == target.found or is_published(spark, target.place))):
        raise _keep(spark, pending)
    if now:
        rename(spark, target.place, replaced)
    try:
        rename(spark, pending.name, target.place)
    except BaseException as error:
        taken = isinstance(error, FileExistsError)
        if now and not (taken or (exists(spark, target.place) if target.is_table else files.exists(target.place))):
            rename(spark, replaced, target.place)
        elif now:  # somebody was quicker: of three tables none is lost
            rename(spark, replaced, target.kept + _REPLACED)
            logger.warning("publish: what was at %s is now at %s", target.name, target.kept + _REPLACED)
        if taken:
            raise _keep(spark, pending) from error
        raise
    if now and target.is_table:
        drop(spark, replaced)


@contextmanager
def undisturbed(target: Target) -> Iterator[None]:
    """Let other runs to the same output, and signals to this process, wait until the block is done.

    Between two renames there is no table at the output, and between table and report they are of two nights.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(one) is not None:  # of another language's making
                before[one] = signal.signal(one, lambda got, _: came.append(got))
    try:
        if target.is_table:
            yield
        else:
            with files.alone(target.parent):
                yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _keep(spark: SparkSession, pending: Pending) -> SettingsError:
    """Keep the table beside its place, which is taken, and return the error that says so."""
    target = pending.target
    rename(spark, pending.name, target.kept)
    if target.is_table:
        how = f"ALTER TABLE {identifier(target.kept)} RENAME TO {identifier('.'.join(target.place.split('.')[-2:]))}"
    else:
        how = f"mv '{shown(target.kept)}' '{shown(target.place)}'"
    why = (
        "what was there when the job began was changed or replaced meanwhile, and not by annspark"
        if target.found
        else "something appeared there while the job ran"
    )
    return SettingsError(
        f"output {target.name!r}: {why}; it was left as it is. The finished table is kept at {shown(target.kept)!r}. "
        f"To publish it, move away what is at the output, and run: {how}"
    )


def _hidden(place: str) -> str:
    """Return what the names of folders written aside begin with.

    The leading dot hides them from jobs that read the parent folder, as a partitioned table's readers do.
    """
    return f".{place.rpartition('/')[2]}.pending-"


def _rescue_folder(folder: str, place: str) -> bool:
    """Put back what a dead run had moved aside and not replaced; False when it is to stay where it is."""
    old = f"{folder}/{_REPLACED}"
    if not files.exists(old):
        return True
    if not files.exists(place):
        files.move(old, place)
        logger.info("left over: %s, which a run had moved aside when it ended, is back in its place", shown(place))
        return True
    if files.kind_of(place) == "folder" and files.is_published(place):
        return True
    logger.warning("left over: %s was at %s before what is there now; delete it by hand.", shown(old), shown(place))
    return False


def _clear_tables(spark: SparkSession, name: str) -> None:
    """Drop tables that dead runs to the same output wrote aside, and put back what they had not replaced yet."""
    database, _, last = name.rpartition(".")
    begin = f"{last}__pending_".lower()
    try:
        rows = spark.sql(f"SHOW TABLES IN {identifier(database)} LIKE '{begin}*'").collect()
    except Exception:  # a catalog that lists no tables
        return
    names = [f"{database}.{row['tableName']}" for row in rows if row["tableName"].lower().startswith(begin)]
    unknown = []
    for one in sorted(names, key=lambda one: not one.endswith(f"_{_REPLACED}")):
        told = properties_of(spark, one.removesuffix(f"_{_REPLACED}")) or properties_of(spark, name)
        owner = None
        with suppress(ValueError):
            owner = json.loads(told.get(_OWNER, "null"))
        if not is_dead(owner):
            unknown += [one] if is_dead(owner) is None else []
        elif one.endswith(f"_{_REPLACED}") and not exists(spark, name):
            rename(spark, one, name)
            logger.info("left over: %s, which a run had moved aside when it ended, is back in its place", name)
        elif one.endswith(f"_{_REPLACED}") and not is_published(spark, name):
            unknown.append(one)
        else:
            drop(spark, one)
            logger.info("left over: %s, of a run that ended before its time, is dropped", one)
    if unknown:
        logger.info("left over: %s; drop by hand what belongs to no running job", ", ".join(unknown))
