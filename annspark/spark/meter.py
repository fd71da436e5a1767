"""Meter: count the work of a join while it is done, by observations, which classic sessions and Connect have."""

from dataclasses import dataclass, field, replace
from functools import reduce
from importlib.util import find_spec
from operator import add

import pyspark
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from annspark.errors import SettingsError
from annspark.spark.cluster import is_connect
from annspark.spark.wire import Wire
from annspark.tables import IDS, MAX_ROWS, NEIGHBOR_IDS, NEIGHBORS, PAIRS, VISITS


@dataclass(frozen=True)
class Counts:
    """The work of finding neighbors, and its results.

    pairs             : distances computed
    copies            : copies of vectors shipped
    shuffle_bytes     : payload of all shuffles, before compression
    max_rows          : users at home in the largest leaf
    written           : users in the table
    short             : users with fewer neighbors than they can have
    without_neighbors : users with none
    completed         : users whose lists were completed after the join
    """

    pairs: int
    copies: int
    shuffle_bytes: int
    max_rows: int
    written: int
    short: int
    without_neighbors: int
    completed: int = 0

    def after(self, earlier: "Counts") -> "Counts":
        """Return the counts of a table merged with an earlier one: the work of both, the results of this one."""
        return replace(
            self,
            pairs=self.pairs + earlier.pairs,
            copies=self.copies + earlier.copies,
            shuffle_bytes=self.shuffle_bytes + earlier.shuffle_bytes,
            max_rows=max(self.max_rows, earlier.max_rows),
            completed=self.completed + earlier.completed,
        )

    def with_first_rows(self, n_first_rows: int, users: int, list_bytes: float) -> "Counts":
        """Return the counts plus those of comparing every user with the first rows, which ships a list per user.

        list_bytes : mean size of such a list
        """
        more = round(users * list_bytes)
        return replace(self, pairs=self.pairs + users * n_first_rows, shuffle_bytes=self.shuffle_bytes + more)


@dataclass(frozen=True)
class Meter:
    """The observations of one join; they can be read once the watched tables have been computed."""

    shipped: Observation = field(default_factory=Observation)
    joined: Observation = field(default_factory=Observation)
    merged: Observation = field(default_factory=Observation)


def require_observations(spark: SparkSession) -> None:
    """Raise SettingsError for a Connect session whose client cannot read observations, as that of Spark 3.5."""
    if is_connect(spark) and find_spec("pyspark.sql.connect.observation") is None:
        raise SettingsError(
            f"the client of this Spark Connect session, PySpark {pyspark.__version__}, cannot read what Spark "
            "counts during a join. Install PySpark 4.0 or newer where this runs, or take a classic session."
        )


def watch_shipped(shipped: DataFrame, meter: Meter, wire: Wire) -> DataFrame:
    """Count the copies shipped and their bytes."""
    carried = reduce(add, (F.octet_length(name) for name in (*wire.names, VISITS)))
    return shipped.observe(meter.shipped, _total(F.size(IDS)).alias("copies"), _total(carried).alias("bytes"))


def watch_joined(candidates: DataFrame, meter: Meter) -> DataFrame:
    """Count the distances computed, the users of the largest leaf, and the lists and neighbors sent to the merge."""
    return candidates.observe(
        meter.joined,
        _total(F.col(PAIRS)).alias("pairs"),
        F.coalesce(F.max(MAX_ROWS), F.lit(0)).alias("max_rows"),
        _total(F.size(IDS)).alias("lists"),
        _total(F.size(NEIGHBOR_IDS)).alias("neighbors"),
    )


def watch_merged(neighbors: DataFrame, most: int, meter: Meter) -> DataFrame:
    """Count the users with fewer than `most` neighbors, and those with none."""
    short = _total(F.size(NEIGHBORS) < most)
    without_neighbors = _total(F.size(NEIGHBORS) == 0)
    return neighbors.observe(meter.merged, short.alias("short"), without_neighbors.alias("without_neighbors"))


def _total(counted: Column) -> Column:
    """Return the sum of a column; 0 for no rows, as when no sparse row is at home in a tree that was added."""
    return F.coalesce(F.sum(counted.cast("long")), F.lit(0))


def read_meter(meter: Meter, id_bytes: float, most: int, users: int, written: int) -> Counts:
    """Return what was observed.

    id_bytes : mean size of an id
    most     : the most neighbors a user can have
    users    : number of users joined
    written  : number of users with rows in the table; 0 for a long table where no user has a neighbor
    """
    if most == 0 or written == 0:  # Spark drops the plan of an empty table, with its observations
        return Counts(
            pairs=0,
            copies=0,
            shuffle_bytes=0,
            max_rows=0,
            written=written,
            short=users if most else 0,
            without_neighbors=users,
        )
    shipped, joined, merged = meter.shipped.get, meter.joined.get, meter.merged.get
    carried = shipped["bytes"] + shipped["copies"] * (16 + id_bytes)  # hash, home, number of visits, id
    listed = joined["lists"] * (4 + id_bytes) + joined["neighbors"] * (4 + id_bytes)
    return Counts(
        pairs=joined["pairs"],
        copies=shipped["copies"],
        shuffle_bytes=int(carried + listed),
        max_rows=joined["max_rows"],
        written=written,
        short=merged["short"],
        without_neighbors=merged["without_neighbors"],
    )
