"""Finish: what is published of the neighbors found, where some are left out or ids have a collation."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.output.layout import Layout, laid_out, lists_in
from annspark.settings import Settings
from annspark.spark.types import is_collated
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID

_LOW, _HIGH, _TIMES = "low", "high", "times"


def finish(table: DataFrame, found: Layout, layout: Layout, settings: Settings, kind: T.DataType) -> DataFrame:
    """Return the table to publish.

    table  : of all neighbors, with plain strings in place of collated ones
    found  : how it is laid out
    layout : how to lay out what is published
    kind   : type of the published ids
    """
    pairs = F.arrays_zip(NEIGHBOR_ID, DISTANCE).alias(NEIGHBORS)
    lists = lists_in(table, found).select(USER_ID, pairs)
    lists = _restricted(lists, settings.max_distance, settings.links)
    return laid_out(_collated(lists, kind) if is_collated(kind) else lists, layout)


def count_shorter(table: DataFrame, layout: Layout, neighbors: int, rows: int) -> int:
    """Return how many of so many users have fewer neighbors in a table than they could."""
    # Not observed while the table is made: of a long one that comes out empty Spark forgets what was observed.
    full = lists_in(table, layout).where(F.size(NEIGHBOR_ID) >= neighbors).count()
    return rows - full if neighbors else 0


def _restricted(neighbors: DataFrame, max_distance: float | None, links: str) -> DataFrame:
    """Return the neighbors to publish; a user who loses all of them keeps an empty list.

    neighbors : user_id, neighbors, as merged
    returns   : the same columns.  Neighbors farther than max_distance are left out; then, of links, "mutual" keeps
                those that name each other, "either" adds the user to the list of everybody it names, which may make
                lists longer than k
    """
    if max_distance is not None:
        farthest = F.lit(float(max_distance)).cast("float")
        near = F.filter(NEIGHBORS, lambda one: one[DISTANCE] <= farthest)
        neighbors = neighbors.select(USER_ID, near.alias(NEIGHBORS))
    if links == "all":
        return neighbors
    pairs = neighbors.select(USER_ID, F.explode(NEIGHBORS).alias("one")).select(USER_ID, "one.*")
    ends = [F.least(USER_ID, NEIGHBOR_ID).alias(_LOW), F.greatest(USER_ID, NEIGHBOR_ID).alias(_HIGH)]
    # A distance is the same from both ends.
    linked = pairs.groupBy(*ends).agg(F.min(DISTANCE).alias(DISTANCE), F.count("*").alias(_TIMES))
    if links == "mutual":
        linked = linked.where(F.col(_TIMES) == 2)
    ways = F.array(F.struct(_LOW, _HIGH), F.struct(F.col(_HIGH).alias(_LOW), F.col(_LOW).alias(_HIGH)))
    both = linked.select(DISTANCE, F.explode(ways).alias("way")).select("way.*", DISTANCE)
    lists = both.groupBy(F.col(_LOW).alias(USER_ID)).agg(
        F.sort_array(F.collect_list(F.struct(DISTANCE, F.col(_HIGH).alias(NEIGHBOR_ID)))).alias(NEIGHBORS)
    )
    turned = F.transform(NEIGHBORS, lambda one: F.struct(one[NEIGHBOR_ID], one[DISTANCE]))
    named = lists.select(USER_ID, turned.alias("found"))
    everybody = neighbors.join(named, USER_ID, "left")
    return everybody.select(USER_ID, F.coalesce("found", F.filter(NEIGHBORS, lambda _: F.lit(False))).alias(NEIGHBORS))


def _collated(lists: DataFrame, kind: T.DataType) -> DataFrame:
    """Return neighbors whose ids are of a collated type: user_id, neighbors.

    Neighbors at one distance are in that type's order.

    lists : user_id, neighbors, with plain strings
    """
    ids = F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}").cast(T.ArrayType(kind))
    pairs = F.arrays_zip(F.col(f"{NEIGHBORS}.{DISTANCE}").alias(DISTANCE), ids.alias(NEIGHBOR_ID))
    ordered = F.transform(F.sort_array(pairs), lambda one: F.struct(one[NEIGHBOR_ID], one[DISTANCE]))
    return lists.select(F.col(USER_ID).cast(kind).alias(USER_ID), ordered.alias(NEIGHBORS))
