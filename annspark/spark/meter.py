"""Meter: counts the real work while it is done, through observed columns, which every session kind has."""

from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from annspark.spark.wire import Wire
from annspark.tables import IDS, MAX_ROWS, NEIGHBOR_IDS, NEIGHBORS, PAIRS, VISITS


@dataclass(frozen=True)
class Meter:
    """What is observed of one run; to be read once the tables it watches have been computed."""

    shipped: Observation = field(default_factory=Observation)
    joined: Observation = field(default_factory=Observation)
    merged: Observation = field(default_factory=Observation)


def watch_shipped(shipped: DataFrame, meter: Meter, wire: Wire) -> DataFrame:
    """Count copies and the bytes they carry."""
    carried = reduce(add, (F.octet_length(name) for name in (*wire.names, VISITS)))
    return shipped.observe(meter.shipped, _total(F.size(IDS)).alias("copies"), _total(carried).alias("bytes"))


def watch_joined(candidates: DataFrame, meter: Meter) -> DataFrame:
    """Count distances computed, the largest leaf, and the lists and neighbors sent to the merge."""
    return candidates.observe(
        meter.joined,
        _total(F.col(PAIRS)).alias("pairs"),
        F.coalesce(F.max(MAX_ROWS), F.lit(0)).alias("max_rows"),
        _total(F.size(IDS)).alias("lists"),
        _total(F.size(NEIGHBOR_IDS)).alias("neighbors"),
    )


def watch_merged(neighbors: DataFrame, most: int, meter: Meter) -> DataFrame:
    """Count the users with fewer neighbors than the most they can have, and those with none."""
    short = _total(F.size(NEIGHBORS) < most)
    lonely = _total(F.size(NEIGHBORS) == 0)
    return neighbors.observe(meter.merged, short.alias("short"), lonely.alias("lonely"))


def _total(counted: Column) -> Column:
    """Return the sum of a column, 0 where nothing came by: of sparse rows nobody may live in a tree that was added."""
    return F.coalesce(F.sum(counted.cast("long")), F.lit(0))


def read_meter(meter: Meter, id_bytes: float, most: int, users: int, written: int) -> dict[str, Any]:
    """Return copies, pairs, max_rows, short, lonely and shuffle_bytes (payload of all shuffles, before compression).

    most    : neighbors a user can have
    written : users who have rows in the table; a long one has none where nobody met anybody
    """
    if most == 0 or written == 0:  # Spark drops the plan of an empty table, and what was observed in it
        short = users if most else 0
        return {"copies": 0, "pairs": 0, "max_rows": 0, "short": short, "lonely": users, "shuffle_bytes": 0}
    shipped, joined, merged = meter.shipped.get, meter.joined.get, meter.merged.get
    carried = shipped["bytes"] + shipped["copies"] * (16 + id_bytes)  # hash, home, number of visits, id
    listed = joined["lists"] * (4 + id_bytes) + joined["neighbors"] * (4 + id_bytes)
    return {
        "copies": shipped["copies"],
        "pairs": joined["pairs"],
        "max_rows": joined["max_rows"],
        "short": merged["short"],
        "lonely": merged["lonely"],
        "shuffle_bytes": int(carried + listed),
    }
