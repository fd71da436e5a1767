"""Job: where one run of the command line reads and writes, and its reading from flags and TOML."""

import os
import re
import tomllib
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from annspark.allowed import (
    Flag,
    Folder,
    PathOrTable,
    Setting,
    Text,
    Whole,
    check_each,
    require_no_credentials,
    setting,
    settings_in,
)
from annspark.errors import SettingsError
from annspark.settings import Settings, require_given, require_known


def setting_like(record: type, name: str, help: str = "") -> Any:
    """Return the entry of another record, with another help where one is given."""
    entry: Setting = settings_in(record)[name]
    return field(default=entry.default, metadata={"setting": replace(entry, help=help or entry.help)})


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
    input_version: int | None = setting(
        None,
        Whole(0, 2**63 - 1),
        "Version of the input, if it is a Delta Lake table, or id of the snapshot, if it is an Iceberg table.",
        unset="the newest",
        example=12,
    )
    output: str = setting(
        MISSING,
        PathOrTable(),
        "Table of neighbors to publish. On s3a:// readers follow a list of its files: see On object stores.",
    )
    format: str | None = setting(
        None,
        Text(),
        "File format to read and to write. With delta, only the output is one: an input is read as what it is.",
        unset="that of the output, if it exists; else parquet for paths, the catalog's own for catalog tables",
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
    candidates: str | None = setting(
        None,
        PathOrTable(optional=True),
        "Table of the rows that may be neighbors, such as items for users.",
        unset="none, the users are each other's neighbors",
        example="items.parquet",
    )
    exclude: str | None = setting(
        None,
        PathOrTable(optional=True),
        "Table of pairs that must not be in the output: the column of ids, and neighbor_id. Users still get k others.",
        unset="none",
        example="bought.parquet",
    )
    index: str | None = setting(
        None,
        Folder(),
        "Folder to keep the index in, for `annspark query` and open_index.",
        unset="none, it is not kept",
        example=".demo/index",
    )
    overwrite: bool = setting(False, Flag(), "Replace an existing output, once the new table is complete.")
    resume: bool = setting(
        False, Flag(), "Keep what steps have made in scratch until the job is done, and go on from what is there."
    )
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        check_each(self)
        if self.resume and self.scratch is None:
            raise SettingsError(
                "'resume' is true and there is no 'scratch', in which a run keeps what its steps have made. Name a "
                "folder that the driver and all executors share, or leave resume out."
            )
        require_apart(self, ("output", "index"), ("input", "candidates", "exclude"), ("report", "scratch"))


@dataclass(frozen=True, kw_only=True)
class PlanFor:
    """What `annspark build --plan` plans for, where that is not the input on the session's cores."""

    rows: int | None = setting(
        None,
        Whole(1, 10**12),
        "With --plan: rows of the table to plan for, of which the input is a random sample.",
        unset="those of the input",
    )
    cores: int | None = setting(
        None, Whole(1, 1_000_000), "With --plan: cores to plan for.", unset="those of the session"
    )

    def __post_init__(self) -> None:
        check_each(self)


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """One run of `annspark fit`: where the rows are, where the index goes, and the settings."""

    input: str = setting_like(Job, "input", "Table of vectors to index.")
    input_version: int | None = setting_like(Job, "input_version")
    index: str = setting(MISSING, Folder(), "Folder to save the index in.")
    format: str | None = setting_like(Job, "format", "File format to read.")
    scratch: str | None = setting_like(Job, "scratch")
    overwrite: bool = setting(False, Flag(), "Replace an existing index, once the new one is complete.")
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        check_each(self)
        require_apart(self, ("index",), ("input",), ("scratch",))


@dataclass(frozen=True, kw_only=True)
class QueryJob:
    """One run of `annspark query`: where index and queries are, where the neighbors go.

    settings : what the queries ask for, by name; the other settings are those of the index
    """

    index: str = setting(MISSING, Folder(), "Folder of the index, as `annspark fit` has saved it.")
    input: str = setting_like(Job, "input", "Table of queries.")
    input_version: int | None = setting_like(Job, "input_version")
    output: str = setting_like(Job, "output")
    format: str | None = setting_like(Job, "format")
    report: str | None = setting_like(Job, "report")
    scratch: str | None = setting_like(Job, "scratch")
    exclude: str | None = setting_like(Job, "exclude")
    overwrite: bool = setting_like(Job, "overwrite")
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_each(self)
        require_apart(self, ("output",), ("input", "index", "exclude"), ("report", "scratch"))


@dataclass(frozen=True, kw_only=True)
class UpdateJob:
    """One run of `annspark update`: the index and the table that go together, and the rows of tonight.

    settings : what may differ from the settings of the index, by name
    """

    index: str = setting(MISSING, Folder(), "Folder of the index, as `annspark build --index` has saved it.")
    input: str = setting_like(Job, "input", "Table of vectors as they are now.")
    input_version: int | None = setting_like(Job, "input_version")
    output: str = setting(MISSING, PathOrTable(), "Table of neighbors that was published with the index.")
    format: str | None = setting_like(Job, "format")
    report: str | None = setting_like(Job, "report")
    scratch: str | None = setting_like(Job, "scratch")
    exclude: str | None = setting_like(Job, "exclude")
    rebuild_if_missed: bool = setting(
        False,
        Flag(),
        "If the recall is missed, or the rows no longer fit the index, build table and index anew.",
    )
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_each(self)
        require_apart(self, ("output", "index"), ("input", "exclude"), ("report", "scratch"))


_OfIndex = TypeVar("_OfIndex", QueryJob, UpdateJob)


def require_apart(job: Any, replaced: tuple[str, ...], read: tuple[str, ...], written: tuple[str, ...]) -> None:
    """Raise SettingsError where a place that is replaced as a whole is or holds another place, or lies in it.

    job                     : the record of a job
    replaced, read, written : names of its places
    """
    for number, name in enumerate(replaced):
        for other in (*replaced[:number], *read, *written):
            here, there = getattr(job, name), getattr(job, other)
            if here is None or there is None:
                continue
            # Reports, indexes and intermediate tables lie in folders, whatever their names.
            if any(role in _TABLES and is_catalog_table(place) for role, place in ((name, here), (other, there))):
                shared = _table_of(there) == _table_of(here)
            else:
                shared = _lies_in(there, here) or _lies_in(here, there)
            if shared:
                raise SettingsError(
                    f"'{other}' is {there!r} and '{name}' {here!r}: one is or holds the other, and the {name}'s folder "
                    f"is replaced as a whole. Give the {name} a folder of its own."
                )
    for name in written:
        value = getattr(job, name)
        for other in read:
            there = getattr(job, other)
            if value and there and not (other in _TABLES and is_catalog_table(there)) and _lies_in(value, there):
                raise SettingsError(
                    f"'{name}' is {value!r} and '{other}' {there!r}: what is written there would be read as a part of "
                    f"the {other}. Give the {name} a folder of its own."
                )


_PLACES_OF_JOBS = "on the command line or in the file"
_TABLES = (
    "input",
    "candidates",
    "exclude",
    "output",
    "neighbors",
    "interactions",
    "labels",
    "priorities",
)  # places that may be catalog tables


def require_folder_name(name: str, value: object, allowed: str = "a folder") -> str:
    """Return the folder that a call names, or raise SettingsError, which says what is allowed."""
    folder = os.fspath(value) if isinstance(value, os.PathLike) else value
    require_no_credentials(name, folder)
    if isinstance(folder, str) and Folder().takes(folder):
        return folder
    raise SettingsError(f"'{name}' is {value!r}; it must be {allowed}.")


def folder_name_if_any(name: str, value: object) -> str | None:
    """Return the folder that a call names, None for none, or raise SettingsError."""
    return None if value is None else require_folder_name(name, value, "a folder, or left out")


def is_catalog_table(name: str) -> bool:
    """Say whether a name means a catalog table: dots between names, and no slash; ".", ".." and ".name" are paths."""
    return "." in name and "/" not in name and all(part.strip() for part in name.split("."))


def _lies_in(inner: str, outer: str) -> bool:
    """Say whether a path is another path or lies in it. Symbolic links are followed."""
    one, other = (_whole_path(place).rstrip("/") for place in (inner, outer))
    return one == other or one.startswith(other + "/")


def _whole_path(place: str) -> str:
    local = re.sub("^s3[an]://", "s3://", re.sub("^file:(//)?", "", place))
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
    require_given(values, places, _PLACES_OF_JOBS)
    found = Settings(**{name: value for name, value in values.items() if name in settings})
    job = Job(settings=found, **{name: value for name, value in values.items() if name in places})
    found.require_pairing(job.candidates is not None, job.exclude is not None)
    return job


def make_fit_job(values: dict[str, Any]) -> FitJob:
    """Build a FitJob from one flat set of named values, as make_job does."""
    places = settings_in(FitJob)
    require_given(values, places, _PLACES_OF_JOBS)
    found = Settings(**{name: value for name, value in values.items() if name not in places})
    found.require_pairing(False)
    return FitJob(settings=found, **{name: value for name, value in values.items() if name in places})


def make_query_job(values: dict[str, Any]) -> QueryJob:
    """Build a QueryJob from one flat set of named values, as make_job does."""
    return _job_of_index(QueryJob, values)


def make_update_job(values: dict[str, Any]) -> UpdateJob:
    """Build an UpdateJob from one flat set of named values, as make_job does."""
    return _job_of_index(UpdateJob, values)


def _job_of_index(record: type[_OfIndex], values: dict[str, Any]) -> _OfIndex:
    places = settings_in(record)
    require_given(values, places, _PLACES_OF_JOBS)
    given = {name: value for name, value in values.items() if name not in places}
    return record(settings=given, **{name: value for name, value in values.items() if name in places})


def read_config(path: str) -> dict[str, Any]:
    """Return the settings of a TOML file: one flat table, named like the long flags, with _ instead of -."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows editors write a byte order mark
    except OSError as error:
        raise SettingsError(f"config file {path!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {path!r} is not TOML: {error}.") from error
