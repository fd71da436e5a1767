"""Outputs: where a table or an index is to be published, and what was written aside for it."""

from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError
from annspark.filesystem import is_on_store
from annspark.job import is_catalog_table
from annspark.listed import RUN
from annspark.spark.places import is_published, shown

REPLACED = "replaced"  # the end of the name of a table that is moved aside while another takes its place


@dataclass(frozen=True)
class Output:
    """Where a table is to be published.

    name      : as the user gave it
    place     : the folder with its scheme, or the catalog table
    mark      : the end of this run's names
    overwrite : whether a table there may be replaced
    found     : identity_of the table that was there when the run began; "" when there was none
    role      : the setting that names it: "output", or "index" for the folder of an index
    link      : the path that was given, when it is a link to place; else ""
    written   : names of the tables written aside so far
    """

    name: str
    place: str
    mark: str
    overwrite: bool
    found: str
    role: str = "output"
    link: str = ""
    written: list[str] = field(default_factory=list)

    @property
    def is_table(self) -> bool:
        """Whether the output is a catalog table."""
        return self.role == "output" and is_catalog_table(self.name)

    @property
    def is_listed(self) -> bool:
        """Whether readers follow a list of its files, as on object stores."""
        return not self.is_table and is_on_store(self.place)

    @property
    def aside(self) -> str:
        """The folder for tables written aside; for catalog tables the beginning of their names."""
        if self.is_table:
            return f"{self.place}__pending_{self.mark}"
        return f"{self.parent}/{hidden(self.place)}{self.mark}"

    @property
    def kept(self) -> str:
        """Where the finished table is kept when it cannot be published."""
        return f"{self.place}__kept_{self.mark}" if self.is_table else f"{self.place}.kept-{self.mark}"

    @property
    def report(self) -> str:
        """The folder of the report, when none is given."""
        return f"{self.link or self.place}.report"

    @property
    def parent(self) -> str:
        """The folder or database that runs to it write aside in."""
        return self.place.rpartition(".")[0] if self.is_table else parent_of(self.place)


@dataclass(frozen=True)
class Pending:
    """A table or an index written aside.

    spark  : the session
    name   : where it is now: a folder with its scheme, or a catalog table
    output : where it is to be published
    table  : reads the written table; None for an index
    """

    spark: SparkSession
    name: str
    output: Output
    table: DataFrame | None = None

    def read(self) -> DataFrame:
        """Return the table; an index has none."""
        assert self.table is not None
        return self.table


def parent_of(place: str) -> str:
    """Return the folder that runs write aside in: the one that contains the output; on an object store the output."""
    return place if is_on_store(place) else place.rpartition("/")[0]


def hidden(place: str) -> str:
    """Return the beginning of the names of folders written aside.

    The leading dot, or _, hides them from jobs that read the folder they are in, as readers of partitioned tables do.
    """
    return RUN if is_on_store(place) else f".{place.rpartition('/')[2]}.pending-"


def is_taken(spark: SparkSession, output: Output, now: str) -> bool:
    """Say whether something is at an output that may not be replaced.

    now : identity_of what is there
    """
    return bool(now) and not (output.overwrite and (now == output.found or is_published(spark, output.place)))


def taken(output: Output, kept: str, next_step: str) -> SettingsError:
    """Return the error for an output that is taken.

    kept      : where the finished table is kept
    next_step : what to do to publish it
    """
    why = (
        "what was there when the job began was changed or replaced meanwhile, and not by annspark"
        if output.found
        else "something appeared there while the job ran"
    )
    return SettingsError(
        f"{output.role} {output.name!r}: {why}; it was left as it is. What was made is kept at {shown(kept)!r}. "
        f"{next_step}"
    )
