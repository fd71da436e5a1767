"""Folders on the file system Spark wrote to, reached without the JVM."""

import posixpath
from urllib.parse import unquote, urlsplit

from pyarrow import fs
from pyspark.sql import DataFrame

from annspark.errors import SettingsError

# Renaming a folder is one operation here; on object stores it is a copy, which a reader could see half done.
_RENAMES = ("", "file", "hdfs", "viewfs", "abfs", "abfss")


def require_rename(path: str) -> None:
    """Raise SettingsError when a folder at this path could not appear in one piece."""
    scheme = urlsplit(path).scheme
    if scheme not in _RENAMES:
        raise SettingsError(
            f"output {path!r}: {scheme!r} cannot rename a folder, so readers could see half a table. "
            f"Write to a catalog table, or to a path on {', '.join(_RENAMES[1:])}."
        )


def write_table(table: DataFrame, path: str, file_format: str, **options: str) -> None:
    """Write a table; a write that fails leaves nothing behind."""
    try:
        table.write.format(file_format).options(**options).save(path)
    except BaseException:
        # Without a scheme the path may be on a file system only Spark knows; then a hidden empty folder may stay.
        if exists(path):
            remove(path)
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


def remove(path: str) -> None:
    """Delete a folder with all it holds."""
    system, path = _open(path)
    system.delete_dir(path)


def write_text(path: str, text: str) -> None:
    """Write a file that appears whole or not at all, making its folder where there is none."""
    system, path = _open(path)
    folder, name = posixpath.split(path)
    system.create_dir(folder, recursive=True)
    pending = posixpath.join(folder, f".{name}.pending")
    with system.open_output_stream(pending) as stream:
        stream.write(text.encode())
    system.move(pending, path)


def _open(path: str) -> tuple[fs.FileSystem, str]:
    parts = urlsplit(path)
    if parts.scheme in ("", "file"):
        return fs.LocalFileSystem(), posixpath.abspath(parts.path if parts.scheme else path)
    return fs.FileSystem.from_uri(path)
