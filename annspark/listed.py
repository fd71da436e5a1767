"""Listed: what is published on an object store, where a folder cannot be renamed.  Spark is not needed.

Each run writes into a folder of its own below the output, PLACE/_run-MARK.  A small file, PLACE/_spark_metadata/0,
lists the files that are published, and a single put of it leads readers from one run's files to another's.  Spark's own
file sink writes such lists, so Spark's readers follow it, if they are told to look into folders (LOOK_INSIDE).
"""

import json
import re
from typing import Any
from urllib.parse import quote

from pyarrow import fs

from annspark.filesystem import open_place

RUN = "_run-"  # begins the names of runs' folders, which readers skip
CLAIM = "_claim-"  # begins the names of files with which a run keeps others out while it publishes
LIST = "_spark_metadata"
LOOK_INSIDE = ("recursiveFileLookup", "true")  # without it Spark takes only the listed files that lie in PLACE itself
_OURS = re.compile(f".*/({RUN}[0-9a-f]{{12}}/.+)")


def files_of(path: str) -> list[str]:
    """Return the files of a table that annspark published at a path, for readers that know nothing of its lists.

    For example pandas.concat(map(pandas.read_parquet, annspark.files_of("s3://bucket/neighbors"))).

    path : of the table; its files are named with its scheme.  For s3 the AWS_* variables of the environment say how to
           reach the store, unless annspark has done so before in this process with Spark's confs

    Raises FileNotFoundError where there is no table.
    """
    place = path.rstrip("/")
    if text := read_list(place):
        return [f"{place}/{name}" for name in _names_in(text)]
    system, inside = open_place(place)
    found = system.get_file_info(fs.FileSelector(inside, recursive=True))
    names = sorted(info.path[len(inside) + 1 :] for info in found if info.is_file)
    return [f"{place}/{name}" for name in names if not any(part.startswith(("_", ".")) for part in name.split("/"))]


def current(place: str) -> str:
    """Return the folder whose files are published at a place: on an object store that of a run, else the place."""
    names = _names_in(read_list(place))
    return f"{place}/{names[0].rpartition('/')[0]}" if names else place


def is_in_run(path: str) -> bool:
    """Say whether a file is in the folder of a run."""
    return _OURS.fullmatch(path) is not None


def run_in(text: str) -> str:
    """Return the name of the run's folder that a list leads to; "" where it is none of annspark's."""
    return next(iter(_names_in(text)), "").partition("/")[0]


def read_list(place: str) -> str:
    """Return the list of the files that are published at a place; "" where there is none."""
    system, inside = open_place(f"{place}/{LIST}/0")
    if not system.get_file_info(inside).is_file:
        return ""
    with system.open_input_stream(inside) as stream:
        return bytes(stream.read()).decode()


def list_of(folder: str) -> str:
    """Return the list that leads readers to the files in a folder, in the form of Spark's file sink."""
    system, inside = open_place(folder)
    found = sorted(system.get_file_info(fs.FileSelector(inside)), key=lambda info: info.base_name)
    return "\n".join(["v1", *(_line(folder, info) for info in found if not info.base_name.startswith(("_", ".")))])


def _line(folder: str, info: Any) -> str:
    return json.dumps(
        {
            "path": quote(f"{folder}/{info.base_name}", safe="/:"),
            "size": info.size,
            "isDir": False,
            "modificationTime": info.mtime_ns // 1_000_000,
            "blockReplication": 1,
            "blockSize": 32 << 20,  # what S3A says of every file
            "action": "add",
        }
    )


def _names_in(text: str) -> list[str]:
    """Return the listed files as seen from the place, so that they are found after the whole place was copied."""
    found = (_OURS.fullmatch(json.loads(line)["path"]) for line in text.splitlines()[1:])
    return [one[1] for one in found if one]
