"""Outputs: where a table or an index is to be published, and what was written aside for it."""

from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from annspark.job import is_catalog_table

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
        """The folder or database that contains it."""
        return self.place.rpartition("." if self.is_table else "/")[0]


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


def hidden(place: str) -> str:
    """Return the beginning of the names of folders written aside.

    The leading dot hides them from jobs that read the parent folder, as readers of partitioned tables do.
    """
    return f".{place.rpartition('/')[2]}.pending-"
