"""Settings: frozen records, checked once, and their reading from TOML."""

import os
import re
import sys
import tomllib
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from annspark.core.calibrate import MOST_PROBES
from annspark.core.centre_forest import SPLITS
from annspark.core.metric import METRICS
from annspark.errors import SettingsError

MOST_LEAF_ROWS = 1_000_000
RECALL = 0.95  # to reach when nothing else is asked for
CHOICES = {
    "metric": tuple(METRICS),
    "split": SPLITS,
    "shape": ("nested", "long"),
    "on_bad_row": ("fail", "drop"),
    "links": ("all", "mutual", "either"),
}


def _make_plain(record: Any) -> None:
    """Turn NumPy's scalars into Python's, which reports can hold: a notebook computes its settings with NumPy."""
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            # NumPy's long double has no item of Python's.
            plain = float(value) if isinstance(value, np.longdouble) else value.item()
            object.__setattr__(record, field.name, plain)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What neighbors to find and how; the same whether it comes from Python, the command line or a file."""

    k: int = 10
    id_col: str = "user_id"
    vector_col: str = "vector"
    values_col: str | None = None
    metric: str = "cosine"
    recall: float | None = None
    probes: float | None = None
    trees: int | None = None
    leaf_rows: int = 512
    split: str = "two_means"
    seed: int = 0
    shape: str = "nested"
    on_bad_row: str = "fail"
    audit_users: int = 1000
    top_up: bool = False
    max_distance: float | None = None
    links: str = "all"

    def __post_init__(self) -> None:
        _make_plain(self)
        for name, low, high in (
            ("k", 1, 1_000),
            ("trees", 1, 100),
            ("leaf_rows", 1, MOST_LEAF_ROWS),
            ("seed", 0, 2**63 - 1),
            ("audit_users", 1, 100_000),
        ):
            value = getattr(self, name)
            if name == "trees" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"'{name}' is {value!r}; it must be a whole number from {low:,} to {high:,}.")
        if self.probes is not None and not (_is_number(self.probes) and 1 <= self.probes <= MOST_PROBES):
            raise SettingsError(f"'probes' is {self.probes!r}; it must be a number from 1 to {MOST_PROBES:,}.")
        if self.recall is not None and not (_is_number(self.recall) and 0 < self.recall < 1):
            raise SettingsError(
                f"'recall' is {self.recall!r}; it must be a number between 0 and 1, both excluded, such as 0.95. "
                "For exact neighbors set leaf_rows to the number of users."
            )
        if self.recall is not None and self.probes is not None:
            raise SettingsError(
                f"'recall' is {self.recall!r} and 'probes' {self.probes!r}: probes follow from the recall. Give one."
            )
        if not isinstance(self.top_up, bool):
            raise SettingsError(f"'top_up' is {self.top_up!r}; it must be true or false.")
        if self.top_up and self.probes is not None:
            raise SettingsError("'top_up' is True and 'probes' given: only a recall can be missed. Give 'recall'.")
        for name, allowed in CHOICES.items():
            # An array of one text would be "in" the texts allowed.
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in allowed:
                raise SettingsError(f"'{name}' is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}.")
        for name in ("id_col", "vector_col"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise SettingsError(f"'{name}' is {getattr(self, name)!r}; it must be the name of a column.")
        if self.values_col is not None and (not isinstance(self.values_col, str) or not self.values_col):
            raise SettingsError(f"'values_col' is {self.values_col!r}; it must be the name of a column, or left out.")
        if self.max_distance is not None:
            if not (_is_number(self.max_distance) and 0 <= self.max_distance <= sys.float_info.max):
                raise SettingsError(f"'max_distance' is {self.max_distance!r}; it must be a number from 0 on.")
            if METRICS[self.metric].largest:
                raise SettingsError(
                    f"'max_distance' is {self.max_distance!r} and 'metric' {self.metric!r}, which has no distance. "
                    "Leave it out, and filter the published table."
                )
        for one, other in combinations(("id_col", "vector_col", "values_col"), 2):
            if getattr(self, one) == getattr(self, other):
                raise SettingsError(f"'{one}' and '{other}' are both {getattr(self, one)!r}; they must be two columns.")
        made = ("neighbors",) if self.shape == "nested" else ("rank", "neighbor_id", "distance", "inner_product")
        if self.id_col.lower() in made:
            raise SettingsError(
                f"'id_col' is {self.id_col!r}, which is also a column of the {self.shape} output. "
                "Rename the id column before the call."
            )

    @property
    def restricted(self) -> bool:
        """Whether other neighbors are published than were found."""
        return self.max_distance is not None or self.links != "all"

    @property
    def found(self) -> "Settings":
        """The settings of the table of all neighbors, before any is left out."""
        return replace(self, shape="nested", links="all", max_distance=None) if self.restricted else self

    @property
    def target(self) -> float | None:
        """The recall to reach; None when the probes are given instead."""
        return None if self.probes is not None else RECALL if self.recall is None else self.recall


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the command line: where to read and write, and the settings."""

    input: str
    output: str
    format: str | None = None
    report: str | None = None
    scratch: str | None = None
    overwrite: bool = False
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        _make_plain(self)
        for name in ("input", "output"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip("/ ") or "\0" in value:
                raise SettingsError(f"'{name}' is {getattr(self, name)!r}; it must be a path or a catalog table.")
        for name in ("format", "report", "scratch"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip() or "\0" in value):
                raise SettingsError(f"'{name}' is {value!r}; it must be a text, or left out.")
        if not isinstance(self.overwrite, bool):
            raise SettingsError(f"'overwrite' is {self.overwrite!r}; it must be true or false.")
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
    if folder is None or (isinstance(folder, str) and folder.strip()):
        return folder
    raise SettingsError(f"'{name}' is {value!r}; it must be a folder, or left out.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_catalog_table(name: str) -> bool:
    """Say whether a name means a catalog table: dots between names, and no slash; ".", ".." and ".name" are paths."""
    return "." in name and "/" not in name and all(part.strip() for part in name.split("."))


def _lies_in(inner: str, outer: str) -> bool:
    """Say whether a path is another or lies in it, wherever links lead."""
    one, other = (_whole_path(place).rstrip("/") for place in (inner, outer))
    return one == other or one.startswith(other + "/")


def _whole_path(place: str) -> str:
    local = re.sub("^file:(//)?", "", place)
    return local if "://" in local else os.path.realpath(local)


def _table_of(name: str) -> str:
    """Return a catalog table's name as all spellings of it that can be told without a catalog are."""
    return name.lower().replace("`", "").removeprefix("spark_catalog.")


def make_job(values: dict[str, Any]) -> Job:
    """Build a Job from one flat set of named values, such as the command line's.

    Raises SettingsError for unknown names, missing names and values that are not allowed.
    """
    job_names = {field.name for field in fields(Job)} - {"settings"}
    settings_names = {field.name for field in fields(Settings)}
    unknown = sorted(set(values) - job_names - settings_names)
    if unknown:
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(sorted(job_names | settings_names))}."
        )
    missing = [name for name in ("input", "output") if name not in values]
    if missing:
        raise SettingsError(f"{' and '.join(map(repr, missing))} not given, on the command line or in the file.")
    settings = Settings(**{name: value for name, value in values.items() if name in settings_names})
    return Job(settings=settings, **{name: value for name, value in values.items() if name in job_names})


def read_config(path: str) -> dict[str, Any]:
    """Return the settings of a TOML file: one flat table, named like the long flags with _ for -."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # Windows editors set a mark
    except OSError as error:
        raise SettingsError(f"config file {path!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"config file {path!r} is not TOML: {error}.") from error
