"""Folders on the file system Spark wrote to, reached without the JVM."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame

from annspark.errors import SettingsError, first_line

# Renaming a folder is one operation here; on object stores it is a copy, which a reader could see half done.
_RENAMES = ("", "file", "hdfs", "viewfs", "abfs", "abfss")


def require_rename(path: str) -> None:
    """Raise SettingsError when a folder at this path could not appear in one piece."""
    if scheme_of(path) not in _RENAMES:
        raise SettingsError(
            f"output {path!r}: {scheme_of(path)!r} cannot rename a folder, so readers could see half a table. "
            f"Write to a catalog table, or to a path on {', '.join(_RENAMES[1:])}."
        )


def require_reach(name: str, path: str) -> None:
    """Raise SettingsError when the driver cannot reach the file system of the setting's path."""
    if not isinstance(path, str) or not path.strip():
        raise SettingsError(f"{name!r} is {path!r}; it must be the path of a folder, or left out.")
    try:
        _open(path)
    except (OSError, pa.ArrowException) as error:
        raise SettingsError(
            f"{name!r} is {path!r}, which PyArrow on the driver cannot reach ({first_line(error)}). "
            "Give a folder on a mounted file system, or one PyArrow knows: file, hdfs, s3, gs or abfss."
        ) from error


def scheme_of(path: str) -> str:
    """Return the scheme of a path, without the colon; "" for a plain path."""
    found = re.match("([A-Za-z][A-Za-z0-9+.-]*):", path)
    return found[1].lower() if found else ""


def write_table(table: DataFrame, path: str, file_format: str, *, made: str) -> None:
    """Write a table; a write that fails leaves nothing behind.

    made : the folder that comes into being with it, the path itself or its parent
    """
    # Ids and distances hardly repeat: to try a dictionary first costs a million users 2 s, and Parquet gives it up.
    options = {"parquet.enable.dictionary": "false"} if file_format == "parquet" else {}
    try:
        table.write.format(file_format).options(**options).save(path)
    except BaseException:
        # Without a scheme the path may be on a file system only Spark knows; then a hidden empty folder may stay.
        if exists(made):
            remove(made)
        raise


def folder_of(table: DataFrame) -> str:
    """Return the folder a table was just written to, with the scheme Spark resolved."""
    return posixpath.dirname(unquote(table.inputFiles()[0]))


def move(source: str, destination: str) -> None:
    """Rename a folder or file; the destination must not exist unless it is a file."""
    system, path = _open(source)
    system.move(path, _open(destination)[1])


def exists(path: str) -> bool:
    """Say whether there is anything at the path."""
    system, path = _open(path)
    return system.get_file_info(path).type != fs.FileType.NotFound


def list_folder(path: str) -> list[str]:
    """Return the JSON files in a folder in the order of their names; none when there is no such folder."""
    system, inside = _open(path)
    found = system.get_file_info(fs.FileSelector(inside, allow_not_found=True))
    return sorted(f"{path}/{one.base_name}" for one in found if one.is_file and one.extension == "json")


def read_text(path: str) -> str:
    """Return a file's text."""
    system, inside = _open(path)
    with system.open_input_stream(inside) as stream:
        return stream.read().decode()


def remove(path: str) -> None:
    """Delete a file, or a folder with all it holds."""
    system, path = _open(path)
    if system.get_file_info(path).type == fs.FileType.Directory:
        system.delete_dir(path)
    else:
        system.delete_file(path)


@contextmanager
def text_once_done(path: str, text: str) -> Iterator[None]:
    """Write a file aside; it takes its place when the block ends well, and leaves nothing behind when it fails."""
    folder = posixpath.dirname(path)
    found = exists(folder)
    system, aside = _open(f"{path}.pending")
    try:
        system.create_dir(posixpath.dirname(aside), recursive=True)
        with system.open_output_stream(aside) as stream:
            stream.write(text.encode())
        yield
    except BaseException:
        if exists(aside if found else folder):
            remove(aside if found else folder)
        raise
    system.move(aside, _open(path)[1])


def _open(path: str) -> tuple[fs.FileSystem, str]:
    scheme = scheme_of(path)
    if scheme in ("", "file"):
        return fs.LocalFileSystem(), posixpath.abspath(re.sub("^file:(//)?", "", path))
    return fs.FileSystem.from_uri(path)
