"""The file system of a path, as PyArrow opens it.  Spark is not needed."""

import posixpath
import re
from urllib.parse import quote

from pyarrow import fs


def scheme_of(path: str) -> str:
    """Return the scheme of a path, without the colon; "" for a plain path."""
    found = re.match("([A-Za-z][A-Za-z0-9+.-]*):", path)
    return found[1].lower() if found else ""


def open_place(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path, and the path inside it."""
    path = re.sub("^dbfs:(//)?(?=/Volumes/)", "", path)  # Spark's name on Databricks for what is mounted there
    scheme = scheme_of(path)
    if scheme in ("", "file"):
        return fs.LocalFileSystem(), posixpath.abspath(re.sub("^file:(//)?", "", path))
    head, there, inside = path.partition("://")
    # PyArrow takes a URI, in which blanks and brackets are escaped (%20); Spark takes the plain path.
    return fs.FileSystem.from_uri(head + there + quote(inside, safe="/:@") if there else path)
