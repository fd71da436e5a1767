"""Job: where one run of the command line reads and writes, and its reading from flags and TOML."""

import os
import re
import tomllib
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from annspark.allowed import Flag, Folder, PathOrTable, Text, check_each, setting, settings_in
from annspark.errors import SettingsError
from annspark.settings import Settings, require_known


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the command line: where to read and write, and the settings.

    Each entry of this class is a setting that says where or how to read and write. The other settings are the entries
    of Settings.
    """

    input: str = setting(
        MISSING,
        PathOrTable(),
        "Table of user vectors. Only if a path does not exist is it tried as a pattern, such as day=*.",
    )
    output: str = setting(
        MISSING,
        PathOrTable(),
        "Table of neighbors to publish. On an object store, which cannot rename a folder, use a catalog table.",
    )
    format: str | None = setting(
        None,
        Text(),
        "File format to read and to write.",
        unset="parquet for paths, the catalog's own for catalog tables",
        example="parquet",
    )
    report: str | None = setting(
        None,
        Folder(),
        "Folder for report.json and report.html. For a catalog table, the default is in the driver's working folder.",
        unset="the output's name with .report after it",
        example=".demo/report",
    )
    scratch: str | None = setting(
        None,
        Folder(),
        "Folder for intermediate tables, on a file system that all executors share.",
        unset="none, they are cached in the session",
        example="/tmp/annspark",
    )
    overwrite: bool = setting(False, Flag(), "Replace an existing output, once the new table is complete.")
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        check_each(self)
        for name in ("input", "report", "scratch"):
            value = getattr(self, name)
            if value is None:
                continue
            if is_catalog_table(self.output) or (name == "input" and is_catalog_table(value)):
                shared = _table_of(value) == _table_of(self.output)
            else:  # reports and intermediate tables lie in folders, whatever their names
                shared = _lies_in(value, self.output) or _lies_in(self.output, value)
            if shared:
                raise SettingsError(
                    f"'{name}' is {value!r} and 'output' {self.output!r}: one is or holds the other, and the output's "
                    "folder is replaced as a whole. Give the output a folder of its own."
                )
        for name in ("report", "scratch"):
            value = getattr(self, name)
            if value is not None and not is_catalog_table(self.input) and _lies_in(value, self.input):
                raise SettingsError(
                    f"'{name}' is {value!r} and 'input' {self.input!r}: what is written there would be read as a part "
                    f"of the input. Give the {name} a folder of its own."
                )


def require_folder_name(name: str, value: object) -> str | None:
    """Return the folder that a call names, None for none, or raise SettingsError."""
    folder = os.fspath(value) if isinstance(value, os.PathLike) else value
    if folder is None or (isinstance(folder, str) and Folder().takes(folder)):
        return folder
    raise SettingsError(f"'{name}' is {value!r}; it must be a folder, or left out.")


def is_catalog_table(name: str) -> bool:
    """Say whether a name means a catalog table: dots between names, and no slash; ".", ".." and ".name" are paths."""
    return "." in name and "/" not in name and all(part.strip() for part in name.split("."))


def _lies_in(inner: str, outer: str) -> bool:
    """Say whether a path is another path or lies in it. Symbolic links are followed."""
    one, other = (_whole_path(place).rstrip("/") for place in (inner, outer))
    return one == other or one.startswith(other + "/")


def _whole_path(place: str) -> str:
    local = re.sub("^file:(//)?", "", place)
    return local if "://" in local else os.path.realpath(local)


def _table_of(name: str) -> str:
    """Return a catalog table's name in one spelling: lower case, without backticks and without spark_catalog."""
    return name.lower().replace("`", "").removeprefix("spark_catalog.")


def make_job(values: dict[str, Any]) -> Job:
    """Build a Job from one flat set of named values, such as the command line's.

    Raises SettingsError for unknown names, missing names and values that are not allowed.
    """
    places, settings = settings_in(Job), settings_in(Settings)
    require_known(values, places | settings)
    missing = [name for name, one in places.items() if one.default is MISSING and name not in values]
    if missing:
        raise SettingsError(f"{' and '.join(map(repr, missing))} not given, on the command line or in the file.")
    found = Settings(**{name: value for name, value in values.items() if name in settings})
    return Job(settings=found, **{name: value for name, value in values.items() if name in places})


def read_config(path: str) -> dict[str, Any]:
    """Return the settings of a TOML file: one flat table, named like the long flags, with _ instead of -."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows editors write a byte order mark
    except OSError as error:
        raise SettingsError(f"config file {path!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {path!r} is not TOML: {error}.") from error
