"""Meter: counts the real work while it is done, through observed columns, which every session kind has."""

from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from annspark.flow.join import DISTANCES, MAX_ROWS, PAIRS
from annspark.flow.route import VISITS
from annspark.tables import NEIGHBORS, VECTOR


@dataclass(frozen=True)
class Meter:
    """What is observed of one run; to be read once the tables it watches have been computed."""

    shipped: Observation = field(default_factory=Observation)
    joined: Observation = field(default_factory=Observation)
    merged: Observation = field(default_factory=Observation)


def watch_shipped(shipped: DataFrame, meter: Meter) -> DataFrame:
    """Count copies and the bytes they carry."""
    carried = F.octet_length(VECTOR) + F.octet_length(VISITS)
    return shipped.observe(meter.shipped, F.count("*").alias("copies"), F.sum(carried).alias("bytes"))


def watch_joined(candidates: DataFrame, meter: Meter) -> DataFrame:
    """Count distances computed, the largest leaf, and the lists and neighbors sent to the merge."""
    return candidates.observe(
        meter.joined,
        F.sum(PAIRS).alias("pairs"),
        F.max(MAX_ROWS).alias("max_rows"),
        F.count("*").alias("lists"),
        F.sum(F.size(DISTANCES)).alias("neighbors"),
    )


def watch_merged(neighbors: DataFrame, full: int, meter: Meter) -> DataFrame:
    """Count the users with fewer than full neighbors."""
    short = (F.size(NEIGHBORS) < full).cast("long")
    return neighbors.observe(meter.merged, F.sum(short).alias("short"))


def read_meter(meter: Meter, id_bytes: float, full: int) -> dict[str, Any]:
    """Return copies, pairs, max_rows, short and shuffle_bytes (payload of both shuffles, before compression).

    full : neighbors a user can have; with 0 there was nothing to do, and everything returned is 0
    """
    if full == 0:  # Spark drops the plan of an empty table, and what was observed in it
        return dict.fromkeys(("copies", "pairs", "max_rows", "short", "shuffle_bytes"), 0)
    shipped, joined = meter.shipped.get, meter.joined.get
    carried = shipped["bytes"] + shipped["copies"] * (8 + id_bytes)
    listed = joined["lists"] * id_bytes + joined["neighbors"] * (4 + id_bytes)
    return {
        "copies": shipped["copies"],
        "pairs": joined["pairs"],
        "max_rows": joined["max_rows"],
        "short": meter.merged.get["short"],
        "shuffle_bytes": int(carried + listed),
    }
