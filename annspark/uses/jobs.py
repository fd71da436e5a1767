"""Jobs of the uses: where one run of the command line reads and writes, beside the settings of the use."""

from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar

from annspark.allowed import Flag, PathOrTable, check_each, setting, settings_in
from annspark.job import Job, require_apart, setting_like
from annspark.settings import make_record, require_given, require_known
from annspark.uses.settings import DuplicateSettings, OutlierSettings, RecommendSettings, VoteSettings

_Job = TypeVar("_Job", bound="UseJob")


@dataclass(frozen=True, kw_only=True)
class UseJob:
    """One run of a use: the places that all uses have.

    settings : what the use takes
    """

    neighbors: str = setting(MISSING, PathOrTable(), "Table of neighbors, ours or another system's.")
    output: str = setting_like(Job, "output", "Table to publish.")
    format: str | None = setting_like(Job, "format")
    report: str | None = setting_like(Job, "report", "Folder for report.json.")
    scratch: str | None = setting_like(Job, "scratch")
    overwrite: bool = setting(False, Flag(), "Replace an existing output, once the new table is complete.")
    settings: Any = None

    def __post_init__(self) -> None:
        check_each(self)
        require_apart(self, ("output",), ("neighbors", *self.beside), ("report", "scratch"))

    @property
    def beside(self) -> tuple[str, ...]:
        """The name of the table that is read beside the neighbors, if there is one."""
        return tuple(name for name in settings_in(self) if name not in settings_in(UseJob))


@dataclass(frozen=True, kw_only=True)
class RecommendJob(UseJob):
    """One run of `annspark recommend`."""

    interactions: str = setting(MISSING, PathOrTable(), "Table of the items that users took.")
    settings: RecommendSettings = field(default_factory=RecommendSettings)


@dataclass(frozen=True, kw_only=True)
class DuplicatesJob(UseJob):
    """One run of `annspark duplicates`."""

    priorities: str | None = setting(
        None, PathOrTable(optional=True), "Table of the rows' priorities.", unset="none, as keep needs none"
    )
    settings: DuplicateSettings


@dataclass(frozen=True, kw_only=True)
class OutliersJob(UseJob):
    """One run of `annspark outliers`."""

    settings: OutlierSettings = field(default_factory=OutlierSettings)


@dataclass(frozen=True, kw_only=True)
class VoteJob(UseJob):
    """One run of `annspark vote`."""

    labels: str = setting(MISSING, PathOrTable(), "Table of the labels.")
    settings: VoteSettings = field(default_factory=VoteSettings)


# The record of a job and that of its settings, by the command's name.
JOBS: dict[str, tuple[type[UseJob], type]] = {
    "recommend": (RecommendJob, RecommendSettings),
    "duplicates": (DuplicatesJob, DuplicateSettings),
    "outliers": (OutliersJob, OutlierSettings),
    "vote": (VoteJob, VoteSettings),
}


def make_use_job(use: str, values: dict[str, Any]) -> UseJob:
    """Build the job of a use from one flat set of named values, such as the command line's.

    Raises SettingsError for unknown names, missing names and values that are not allowed.
    """
    job, record = JOBS[use]
    places = settings_in(job)
    require_known(values, places | settings_in(record))
    require_given(values, places, "on the command line")
    settings: Any = make_record(record, {name: value for name, value in values.items() if name not in places})
    return job(settings=settings, **{name: value for name, value in values.items() if name in places})
