"""Meter: counts the real work while it is done, through observed columns, which every session kind has."""

from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from annspark.flow.wire import Wire
from annspark.tables import COUNTS, HASHES, IDS, MAX_ROWS, NEIGHBOR_IDS, NEIGHBORS, PAIRS, VISITS


@dataclass(frozen=True)
class Meter:
    """What is observed of one run; to be read once the tables it watches have been computed."""

    shipped: Observation = field(default_factory=Observation)
    joined: Observation = field(default_factory=Observation)
    asked: Observation = field(default_factory=Observation)
    answered: Observation = field(default_factory=Observation)
    merged: Observation = field(default_factory=Observation)


def watch_shipped(shipped: DataFrame, meter: Meter, wire: Wire) -> DataFrame:
    """Count copies and the bytes they carry."""
    carried = reduce(add, (F.octet_length(name) for name in (*wire.names, VISITS)))
    return shipped.observe(meter.shipped, F.sum(F.size(IDS)).alias("copies"), F.sum(carried).alias("bytes"))


def watch_joined(candidates: DataFrame, meter: Meter) -> DataFrame:
    """Count distances computed, the largest leaf, and the lists and neighbors sent to the merge."""
    return candidates.observe(
        meter.joined,
        F.sum(PAIRS).alias("pairs"),
        F.max(MAX_ROWS).alias("max_rows"),
        F.sum(F.size(IDS)).alias("lists"),
        F.sum(F.size(NEIGHBOR_IDS)).alias("neighbors"),
    )


def watch_asked(requests: DataFrame, wire: Wire, meter: Meter) -> DataFrame:
    """Count what travels to where vectors are asked for their exact distances."""
    return requests.observe(meter.asked, *_carried(IDS, HASHES, *wire.names))


def watch_answered(answers: DataFrame, wire: Wire, meter: Meter) -> DataFrame:
    """Count what travels to where the exact distances are found."""
    return answers.observe(meter.answered, *_carried(IDS, NEIGHBOR_IDS, HASHES, COUNTS, *wire.names))


def _carried(*names: str) -> list[Column]:
    """Return the numbers of ids and of bytes in columns of blocks, of which those of ids are arrays."""
    ids = [name for name in names if name in (IDS, NEIGHBOR_IDS)]
    sums = {"ids": [F.array_size(name) for name in ids], "bytes": [F.octet_length(n) for n in names if n not in ids]}
    return [F.sum(reduce(add, (F.coalesce(one, F.lit(0)) for one in some))).alias(as_) for as_, some in sums.items()]


def watch_merged(neighbors: DataFrame, most: int, meter: Meter) -> DataFrame:
    """Count the users with fewer neighbors than the most they can have, and those with none."""
    short = F.sum((F.size(NEIGHBORS) < most).cast("long"))
    lonely = F.sum((F.size(NEIGHBORS) == 0).cast("long"))
    return neighbors.observe(meter.merged, short.alias("short"), lonely.alias("lonely"))


def read_meter(meter: Meter, id_bytes: float, most: int, users: int, written: int, refined: bool) -> dict[str, Any]:
    """Return copies, pairs, max_rows, short, lonely and shuffle_bytes (payload of all shuffles, before compression).

    most    : neighbors a user can have
    written : users who have rows in the table; a long one has none where nobody met anybody
    refined : vectors were rounded, and candidates refined
    """
    if most == 0 or written == 0:  # Spark drops the plan of an empty table, and what was observed in it
        short = users if most else 0
        return {"copies": 0, "pairs": 0, "max_rows": 0, "short": short, "lonely": users, "shuffle_bytes": 0}
    shipped, joined, merged = meter.shipped.get, meter.joined.get, meter.merged.get
    carried = shipped["bytes"] + shipped["copies"] * (16 + id_bytes)  # hash, home, number of visits, id
    listed = joined["lists"] * (4 + id_bytes) + joined["neighbors"] * (4 + id_bytes)
    if refined:
        listed += sum(one["ids"] * id_bytes + one["bytes"] for one in (meter.asked.get, meter.answered.get))
        listed += users * (most + 1) * (4 + id_bytes)  # to the last merge, a list a user
    return {
        "copies": shipped["copies"],
        "pairs": joined["pairs"],
        "max_rows": joined["max_rows"],
        "short": merged["short"],
        "lonely": merged["lonely"],
        "shuffle_bytes": int(carried + listed),
    }
