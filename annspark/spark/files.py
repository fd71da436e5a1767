"""Files and folders on the file systems that Spark writes to, reached through PyArrow and not the JVM."""

import hashlib
import os
import posixpath
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.filesystem import is_on_store, learn_store, open_place, scheme_of
from annspark.listed import CLAIM, LIST, RUN, current
from annspark.spark.cluster import is_connect

# Schemes under which renaming a folder is one operation.  Object stores copy it, and readers could see half of it; for
# s3a there is another way, see listed.
_RENAMES = ("", "file", "hdfs", "viewfs", "abfs", "abfss")
# An internal option of Spark: with it a path with [, {, * or ? is a name and not a pattern.
LITERAL = ("__globPaths__", "false")
_NOWHERE = ".annspark-nowhere"
# annspark marks a folder it published by an empty file, named by this and a digest of the other files.  Readers skip
# names that begin with _, or else empty files, as they must for Spark's _SUCCESS.
PUBLISHED = "_annspark-"
_PATIENCE = 15.0  # seconds to wait for another run that publishes to the same folder


def require_whole(path: str, role: str = "output") -> None:
    """Raise SettingsError when no folder can be published whole at this path, so that readers could see half of it."""
    if scheme_of(path) not in _RENAMES and not is_on_store(path):
        raise SettingsError(
            f"{role} {path!r}: {scheme_of(path)!r} cannot rename a folder, so readers could see half of it. "
            f"Write to {'a catalog table, or to ' if role == 'output' else ''}a path on {', '.join(_RENAMES[1:])}, s3a."
        )


def require_reach(name: str, path: str) -> None:
    """Raise SettingsError when the driver cannot reach the file system of a path.

    name : of the setting that gives the path
    """
    if not isinstance(path, str) or not path.strip():
        raise SettingsError(f"{name!r} is {path!r}; it must be the path of a folder, or left out.")
    try:
        open_place(path)
    except (OSError, pa.ArrowException) as error:
        raise SettingsError(
            f"{name!r} is {path!r}, which PyArrow on the driver cannot reach ({reason_of(error)}). "
            "Give a folder on a mounted file system, or one PyArrow knows: file, hdfs, s3, gs or abfss."
        ) from error


def require_writable(name: str, given: str, folder: str) -> None:
    """Raise SettingsError when no file can be written in a folder; the file and folders made to find out are deleted.

    name, given : name and value of the setting that gives the folder
    """
    require_reach(name, folder)
    made = missing_folders(folder)
    try:
        make_folder(folder)
        probe = f"{folder}/.annspark-{new_mark()}"
        write_text(probe, "")
        remove(probe)
    except OSError as error:
        raise SettingsError(unwritable(name, given, error)) from error
    finally:
        remove_empty(made)


def unwritable(name: str, given: str, error: Exception) -> str:
    """Return the message for a setting's folder in which no file can be written."""
    return f"{name} {given!r}: no file can be written there ({reason_of(error)}). Give a folder this job may write to."


def require_seen(spark: SparkSession, name: str, given: str, path: str) -> None:
    """Raise SettingsError when Spark does not see a file that this process just made.

    name, given : name and value of the setting that gives the file's folder
    """
    if is_seen(spark, path):
        return
    raise SettingsError(
        f"{name} {given!r}: Spark does not see there what this process has made, {why_unseen(spark, given)}"
    )


def why_unseen(spark: SparkSession, name: str) -> str:
    """Return the end of a sentence: why Spark does not see a file that exists, and what to do about it."""
    encoding = java_encoding(spark)
    if not name.isascii() or "UTF" not in encoding:
        return (
            f"because Java cannot name it (its file names are in {encoding or 'an unknown encoding'}). "
            "Set LC_ALL=C.UTF-8 where Spark is started."
        )
    return "so the two are on different file systems. Give a folder that both have."


def require_whole_name(spark: SparkSession, name: str, given: str, error: type[Exception] = SettingsError) -> None:
    """Raise an error when a setting's value is not UTF-8, or may have lost letters before this process received it.

    Under spark-submit Java passes the arguments on, with ? for every byte that it cannot decode.
    """
    broken = False
    with suppress(UnicodeEncodeError):
        broken = not given.encode()
    if broken or "\ufffd" in given or any("\ud800" <= letter <= "\udfff" for letter in given):
        raise error(f"{name} {given!r} is not UTF-8. Set LC_ALL=C.UTF-8 where this is started.")
    if "?" in given and "PYSPARK_GATEWAY_PORT" in os.environ:
        encoding = java_encoding(spark)
        if encoding and "UTF" not in encoding:
            raise error(
                f"{name} {given!r}: Java, which hands the name on, writes ? for letters it does not have (its file "
                f"names are in {encoding}). Set LC_ALL=C.UTF-8 where spark-submit is started."
            )


def java_encoding(spark: SparkSession) -> str:
    """Return the encoding of file names in Spark's Java; "" where it cannot be read."""
    with suppress(Exception):  # not every session may call java_method
        asked = spark.sql("SELECT java_method('java.lang.System', 'getProperty', 'sun.jnu.encoding')")
        return str(asked.collect()[0][0] or "").upper()
    return ""


def is_seen(spark: SparkSession, path: str) -> bool:
    """Say whether Spark sees anything at the path.

    Asking Spark takes half a second, and seconds for a folder of 10,000 files, which it lists twice.  It is not asked
    for a local path in ASCII that this process sees, when its Java runs on this machine.
    """
    is_local = path.isascii() and scheme_of(path) in ("", "file")
    if is_local and not is_connect(spark) and os.path.exists(plain(path)):
        return True
    return look(spark, path)[1]


def look(spark: SparkSession, path: str, pattern: bool = False) -> tuple[str, bool]:
    """Return a path, or that of a file below it, as Spark resolves it, with its scheme; and whether the path exists.

    pattern : whether the path is a pattern, which exists when anything matches it
    """
    # Special characters are escaped: with the option LITERAL Spark would not check that such a path exists.
    asked = path if pattern else re.sub(r"([\[\]{}*?\\])", r"\\\1", path)
    try:
        # The path is given twice, because Spark logs a stack trace for a single path that does not exist.
        found = spark.read.format("binaryFile").load([asked, asked]).inputFiles()
    except AnalysisException as error:
        named = (error.getMessageParameters() or {}).get("path", asked)
        return re.sub(r"\\(.)", r"\1", named), "PATH_NOT_FOUND" not in str(error)
    return (found[0] if found else path), True


def resolve(spark: SparkSession, name: str, given: str) -> str:
    """Return the path of a setting with its scheme, as Spark resolves it.

    Spark is asked for a file below it that does not exist, because its error gives the whole path.
    """
    try:
        found = look(spark, f"{given.rstrip('/')}/{_NOWHERE}")[0]
    except Exception as error:
        reason = f"{reason_of(error)}).{how_to_reach(given)}"
        raise SettingsError(f"{name} {given!r} is no path that Spark can name ({reason}") from error
    place = (found.removesuffix(f"/{_NOWHERE}") if found.endswith(f"/{_NOWHERE}") else given).rstrip("/")
    learn(spark, place)
    return place


def how_to_reach(path: str) -> str:
    """Return a sentence on how Spark reaches an object store, with a blank before it; "" for other paths."""
    if not is_on_store(path):
        return ""
    return (
        " Spark reaches object stores under s3a:// with the package org.apache.hadoop:hadoop-aws of its Hadoop's "
        "version (conf/spark-cluster.conf)."
    )


def learn(spark: SparkSession, path: str) -> None:
    """Let PyArrow reach a path as Spark does; nothing happens for a path that is on no object store."""
    learn_store(path, lambda name: spark.conf.get(name, None))


def new_mark() -> str:
    """Return a random name, which no other run has."""
    return uuid4().hex[:12]


def write_table(table: DataFrame, path: str, file_format: str) -> None:
    """Write a table to a folder that does not exist yet."""
    # Ids and distances hardly repeat.  Parquet would try a dictionary and give it up: 2 s for a million users.
    options = {"parquet.enable.dictionary": "false"} if file_format == "parquet" else {}
    table.write.format(file_format).options(**options).save(path)


def move(source: str, destination: str) -> None:
    """Rename a folder or file; FileExistsError when a folder's destination exists.

    The destination is checked just before.  On local file systems the rename itself fails too, unless the destination
    is an empty folder.
    """
    system, path = open_place(source)
    folder = system.get_file_info(path).type == fs.FileType.Directory
    if folder and kind_of(destination):
        raise FileExistsError(f"{destination} is there")
    if not isinstance(system, fs.LocalFileSystem):
        system.move(path, open_place(destination)[1])
        return
    try:
        os.rename(path, open_place(destination)[1]) if folder else os.replace(path, open_place(destination)[1])
    except OSError as error:
        if folder and kind_of(destination):
            raise FileExistsError(f"{destination} is there") from error
        raise


def exists(path: str) -> bool:
    """Say whether anything exists at the path."""
    return kind_of(path) != ""


def kind_of(path: str) -> str:
    """Return what is at the path: "folder", "file" (also for a broken link), or "" for nothing."""
    system, inside = open_place(path)
    kind = system.get_file_info(inside).type
    if kind == fs.FileType.NotFound:
        return "file" if isinstance(system, fs.LocalFileSystem) and os.path.lexists(inside) else ""
    return "folder" if kind == fs.FileType.Directory else "file"


def size_of(path: str) -> int:
    """Return the size of a file in bytes."""
    system, inside = open_place(path)
    return int(system.get_file_info(inside).size)


def is_mount(path: str) -> bool:
    """Say whether a local folder is a mount point, which cannot be renamed."""
    system, inside = open_place(path)
    return isinstance(system, fs.LocalFileSystem) and os.path.ismount(inside)


def behind_link(path: str) -> str:
    """Return the target of a local link to a folder; any other path unchanged."""
    system, inside = open_place(path)
    if isinstance(system, fs.LocalFileSystem) and os.path.islink(inside) and os.path.isdir(inside):
        return f"file:{os.path.realpath(inside)}"
    return path


def is_around_here(path: str) -> bool:
    """Say whether a local folder is the working directory of this process, or contains it."""
    working = ""
    with suppress(OSError):  # the folder is gone
        working = os.path.realpath(os.getcwd())
    return f"{working}/".startswith(plain(path).rstrip("/") + "/")


def folders_in(path: str) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    system, inside = open_place(path)
    found = system.get_file_info(fs.FileSelector(inside))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def plain(path: str) -> str:
    """Return a path in the form in which paths are compared: a local one without scheme, and with links resolved."""
    if is_on_store(path):
        return re.sub("^[^:]+:", "s3:", path)
    return os.path.realpath(re.sub("^file:(//)?", "", path)) if scheme_of(path) in ("", "file") else path


def fingerprint(path: str) -> str:
    """Return a digest of the names, sizes and times of a folder's files, which changes when the folder changes."""
    return _digest([f"{name}|{info.size}|{info.mtime_ns}" for name, info in _listing(path)])


def mark_published(path: str) -> None:
    """Write into a folder the mark that annspark published its files."""
    write_text(f"{path}/{PUBLISHED}{contents(path)}", "")


def is_published(path: str) -> bool:
    """Say whether annspark published what is at a path, and no file was added, removed or resized since."""
    folder = current(path)
    return exists(f"{folder}/{PUBLISHED}{contents(folder)}") and (folder == path or own_names(path) == [LIST])


def contents(path: str) -> str:
    """Return a digest of the names and sizes of a folder's files."""
    return _digest([f"{name}|{info.size}" for name, info in _listing(path) if not name.startswith(PUBLISHED)])


def _listing(path: str) -> list[tuple[str, fs.FileInfo]]:
    system, inside = open_place(path)
    found = system.get_file_info(fs.FileSelector(inside, recursive=True))
    named = ((posixpath.relpath(info.path, inside), info) for info in found)
    return sorted((pair for pair in named if not pair[0].startswith((RUN, CLAIM))), key=lambda pair: pair[0])


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()[:16]


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Lock a folder, local or on an object store, so that other runs that publish to it wait.

    Elsewhere nothing is locked.  After 15 s the block runs without the lock.
    """
    if is_on_store(folder):
        with _claimed(folder):
            yield
        return
    system, inside = open_place(folder)
    held = -1
    if isinstance(system, fs.LocalFileSystem):
        with suppress(ImportError, OSError):
            import fcntl  # not on Windows

            held = os.open(inside, os.O_RDONLY)
            end = time.monotonic() + _PATIENCE
            while time.monotonic() < end:  # not forever: the other program may hang
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
    try:
        yield
    finally:
        if held >= 0:
            os.close(held)


@contextmanager
def _claimed(folder: str) -> Iterator[None]:
    """Lock a folder on an object store by a file of this run's own.

    A run that sees another's file takes its own away, and tries again.  The file is there before the run looks, and all
    that is written is seen at once, so of two runs one at least sees the other.  PyArrow has no conditional put.
    """
    claim, end = f"{folder}/{CLAIM}{new_mark()}", time.monotonic() + _PATIENCE
    seen: set[str] | None = None  # the claims that were there all the time
    while True:
        write_text(claim, "")
        others = {f"{folder}/{name}" for name in names_in(folder) if name.startswith(CLAIM)} - {claim}
        seen = others if seen is None else seen & others
        if not others or time.monotonic() > end:
            break
        remove(claim)
        time.sleep(random.uniform(0.05, 0.5))
    for dead in seen if others else ():
        with suppress(OSError):
            remove(dead)
    try:
        yield
    finally:
        with suppress(OSError):
            remove(claim)


def own_names(path: str) -> list[str]:
    """Return the names in a folder, sorted, without those that runs to an object store write for a time."""
    return [name for name in names_in(path) if not name.startswith((RUN, CLAIM))]


def names_in(path: str) -> list[str]:
    """Return the names in a folder, sorted; [] when there is no such folder."""
    system, inside = open_place(path)
    return sorted(info.base_name for info in system.get_file_info(fs.FileSelector(inside, allow_not_found=True)))


def missing_folders(path: str) -> list[str]:
    """Return those of the path and the folders above it that do not exist, the innermost first."""
    missing = []
    while path.rpartition("/")[2] and not exists(path):
        missing.append(path)
        path = path.rpartition("/")[0]
        if not path or path.endswith(":"):
            break
    return missing


def make_folder(path: str) -> None:
    """Make a folder, and the folders above it."""
    system, inside = open_place(path)
    system.create_dir(inside, recursive=True)


def remove_empty(paths: list[str]) -> None:
    """Delete the folders that are empty; the paths are given with the innermost first."""
    for path in paths:
        with suppress(OSError):
            system, inside = open_place(path)
            if isinstance(system, fs.LocalFileSystem):
                os.rmdir(inside)
            elif not names_in(path):
                system.delete_dir(inside)


def write_text(path: str, text: str) -> None:
    """Write a text file."""
    write_bytes(path, text.encode())


def write_bytes(path: str, data: bytes) -> None:
    """Write a file."""
    system, inside = open_place(path)
    with system.open_output_stream(inside) as stream:
        stream.write(data)


def list_folder(path: str) -> list[str]:
    """Return the paths of the JSON files in a folder, sorted; [] when there is no such folder."""
    system, inside = open_place(path)
    found = system.get_file_info(fs.FileSelector(inside, allow_not_found=True))
    return sorted(f"{path}/{info.base_name}" for info in found if info.is_file and info.extension == "json")


def read_text(path: str) -> str:
    """Return a file's text."""
    return read_bytes(path).decode()


def read_bytes(path: str) -> bytes:
    """Return what a file holds."""
    system, inside = open_place(path)
    with system.open_input_stream(inside) as stream:
        return bytes(stream.read())


def remove(path: str) -> None:
    """Delete a file, or a folder with everything in it."""
    system, path = open_place(path)
    if system.get_file_info(path).type == fs.FileType.Directory:
        system.delete_dir(path)
    else:
        system.delete_file(path)


@contextmanager
def text_once_done(path: str, text: str) -> Iterator[None]:
    """Write a file under another name; rename it when the block ends, or delete it when the block raises."""
    folder, _, name = path.rpartition("/")
    made = missing_folders(folder)
    aside = f"{folder}/.{name}.pending-{new_mark()}"  # two runs may write to one place
    try:
        make_folder(folder)
        write_text(aside, text)
        yield
        move(aside, path)
    except BaseException:
        if exists(aside):
            remove(aside)
        remove_empty(made)
        raise
