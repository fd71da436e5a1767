"""Outputs: where a table or an index is to be published, and what was written aside for it."""

from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.filesystem import is_on_store
from annspark.job import is_catalog_table
from annspark.listed import RUN
from annspark.spark.places import is_published, shown
from annspark.spark.versions import WITH_VERSIONS, versions_of

KNOWN = (*WITH_VERSIONS, "parquet", "orc", "json")  # formats that are known to hold neighbors
REPLACED = "replaced"  # the end of the name of a table that is moved aside while another takes its place


@dataclass(frozen=True)
class Output:
    """Where a table is to be published.

    name      : as the user gave it
    place     : the folder with its scheme, or the catalog table
    mark      : the end of this run's names
    overwrite : whether a table there may be replaced
    found     : which table was there when the run began: its version, or identity_of it; "" when there was none
    role      : the setting that names it: "output", or "index" for the folder of an index
    link      : the path that was given, when it is a link to place; else ""
    format    : to write; None for Parquet in a folder, and for the catalog's own format
    written   : names of the tables written aside so far
    """

    name: str
    place: str
    mark: str
    overwrite: bool
    found: str
    role: str = "output"
    link: str = ""
    format: str | None = None
    written: list[str] = field(default_factory=list)

    @property
    def is_table(self) -> bool:
        """Whether the output is a catalog table."""
        return self.role == "output" and is_catalog_table(self.name)

    @property
    def is_listed(self) -> bool:
        """Whether readers follow a list of its files, as on object stores."""
        return not self.is_table and self.format not in WITH_VERSIONS and is_on_store(self.place)

    @property
    def aside(self) -> str:
        """The folder for tables written aside; for catalog tables the beginning of their names."""
        if self.is_table:
            return f"{self.place}__pending_{self.mark}"
        return f"{'/'.join(where_aside(self.place, listed=self.is_listed))}{self.mark}"

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
        return self.place.rpartition(".")[0] if self.is_table else where_aside(self.place, listed=self.is_listed)[0]


@dataclass(frozen=True)
class Pending:
    """A table or an index written aside.

    spark      : the session
    name       : where it is now: a folder with its scheme, or a catalog table
    output     : where it is to be published
    table      : reads the written table; None for an index
    format     : of the table, in small letters; "" for an index
    properties : what the published table is to say of itself, by names that begin with annspark.
    """

    spark: SparkSession
    name: str
    output: Output
    table: DataFrame | None = None
    format: str = ""
    properties: dict[str, str] = field(default_factory=dict)

    def read(self) -> DataFrame:
        """Return the table; an index has none."""
        assert self.table is not None
        return self.table


def where_aside(place: str, *, listed: bool) -> tuple[str, str]:
    """Return the folder that runs to an output write aside in, and how the names of their folders there begin.

    The leading dot, or _, hides them from jobs that read the folder they are in, as readers of partitioned tables do.

    listed : whether readers follow a list; then the folder is the output, else the one that contains it
    """
    parent, _, name = place.rpartition("/")
    return (place, RUN) if listed else (parent, f".{name}.pending-")


def is_taken(spark: SparkSession, output: Output, now: str) -> bool:
    """Say whether something is at an output that may not be replaced.

    now : identity_of what is there
    """
    return bool(now) and not (output.overwrite and (now == output.found or is_published(spark, output.place)))


def kept_error(output: Output, kept: str, publish: str, why: str = "") -> SettingsError:
    """Return the error for a table that was kept, because something at its output may not be replaced.

    kept    : where it is
    publish : the end of the sentence on how to publish what was kept
    why     : it may not be replaced; "" where somebody has changed it since the run began
    """
    why = why or (
        "what was there when the job began was changed or replaced meanwhile, and not by annspark"
        if output.found
        else "something appeared there while the job ran"
    )
    return SettingsError(
        f"{output.role} {output.name!r}: {why}; it was left as it is. What was made is kept at {shown(kept)!r}. "
        f"To publish it, {publish}"
    )


def format_to_write(named: str, there: str, asked: str | None) -> str | None:
    """Return the format that a run writes in.

    named : role and name of the output, for messages
    there : format of the table that is there; "" for none, or where it is not known
    asked : the setting `format`

    Raises SettingsError where one of two formats has versions: the history of a table is not replaced.
    """
    if there and asked and there != asked.lower() and {there, asked.lower()} & set(WITH_VERSIONS):
        raise SettingsError(
            f"{named} is a table of the format {there}, and 'format' is {asked!r}. A table keeps its format. Leave "
            "format out, or choose another output."
        )
    return asked.lower() if asked else (there if there in KNOWN else None)


def found_at(spark: SparkSession, role: str, name: str, place: str, file_format: str) -> str:
    """Return the version of the table at an output, as Output.found has it; "" where there is none.

    Raises SettingsError where the session cannot read the table's history.
    """
    try:
        return next((str(version.number) for version in versions_of(spark, place, file_format)), "")
    except Exception as error:
        raise SettingsError(
            f"{role} {name!r} is a {file_format} table whose history cannot be read ({reason_of(error)}). Start Spark "
            f"with the jar, extensions and catalog of {file_format}."
        ) from error
