"""Finish: leave neighbors out (max_distance, links) and restore the collation of ids before the table is published."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.output.layout import Layout, laid_out, lists_in
from annspark.settings import Settings
from annspark.spark.types import is_collated
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID

LOW, HIGH = "low", "high"
_TIMES = "times"


def finish(
    table: DataFrame,
    found: Layout,
    layout: Layout,
    settings: Settings,
    kind: T.DataType,
    neighbor: T.DataType | None = None,
) -> DataFrame:
    """Return the table to publish.

    table    : all neighbors; ids of a collated type are plain strings
    found    : the layout of table
    layout   : the layout of the table to publish
    kind     : type of the published ids
    neighbor : type of the published ids of neighbors, where these are of another table
    """
    neighbor = neighbor or kind
    pairs = F.arrays_zip(NEIGHBOR_ID, DISTANCE).alias(NEIGHBORS)
    lists = lists_in(table, found).select(USER_ID, pairs)
    lists = _restricted(lists, settings.max_distance, settings.links)
    return laid_out(_collated(lists, kind, neighbor) if is_collated(kind) or is_collated(neighbor) else lists, layout)


def count_shorter(table: DataFrame, layout: Layout, neighbors: int, rows: int) -> int:
    """Return how many users have fewer neighbors in a table than they could.

    neighbors : the most neighbors a user can have
    rows      : number of users
    """
    # Not observed while the table is computed, because Spark drops the observations of a long table that is empty.
    full = lists_in(table, layout).where(F.size(NEIGHBOR_ID) >= neighbors).count()
    return rows - full if neighbors else 0


def _restricted(neighbors: DataFrame, max_distance: float | None, links: str) -> DataFrame:
    """Return the neighbors to publish; a user that loses all its neighbors keeps an empty list.

    First the neighbors farther than max_distance are left out.  Then links "mutual" keeps a neighbor only if each of
    the two is in the other's list; "either" adds each user to the lists of all its neighbors, which may make lists
    longer than k; "all" changes nothing.

    neighbors : user_id, neighbors, as merged
    returns   : the same columns
    """
    if max_distance is not None:
        farthest = F.lit(float(max_distance)).cast("float")
        near = F.filter(NEIGHBORS, lambda neighbor: neighbor[DISTANCE] <= farthest)
        neighbors = neighbors.select(USER_ID, near.alias(NEIGHBORS))
    if links == "all":
        return neighbors
    linked = linked_once(neighbors, links)
    ways = F.array(F.struct(LOW, HIGH), F.struct(F.col(HIGH).alias(LOW), F.col(LOW).alias(HIGH)))
    both = linked.select(DISTANCE, F.explode(ways).alias("way")).select("way.*", DISTANCE)
    lists = both.groupBy(F.col(LOW).alias(USER_ID)).agg(
        F.sort_array(F.collect_list(F.struct(DISTANCE, F.col(HIGH).alias(NEIGHBOR_ID)))).alias(NEIGHBORS)
    )
    swapped = F.transform(NEIGHBORS, lambda neighbor: F.struct(neighbor[NEIGHBOR_ID], neighbor[DISTANCE]))
    linked_lists = lists.select(USER_ID, swapped.alias("linked"))
    all_users = neighbors.join(linked_lists, USER_ID, "left")
    return all_users.select(USER_ID, F.coalesce("linked", F.filter(NEIGHBORS, lambda _: F.lit(False))).alias(NEIGHBORS))


def linked_once(neighbors: DataFrame, links: str) -> DataFrame:
    """Return the pairs of users of whom one lists the other ("either") or each does ("mutual"), every pair once.

    neighbors : user_id, neighbors
    returns   : low, high (the ids, in their order) and distance, the smaller one where the two directions differ
    """
    pairs = neighbors.select(USER_ID, F.explode(NEIGHBORS).alias("neighbor")).select(USER_ID, "neighbor.*")
    ends = [F.least(USER_ID, NEIGHBOR_ID).alias(LOW), F.greatest(USER_ID, NEIGHBOR_ID).alias(HIGH)]
    linked = pairs.groupBy(*ends).agg(F.min(DISTANCE).alias(DISTANCE), F.count("*").alias(_TIMES))
    return (linked.where(F.col(_TIMES) == 2) if links == "mutual" else linked).select(LOW, HIGH, DISTANCE)


def _collated(lists: DataFrame, kind: T.DataType, neighbor: T.DataType) -> DataFrame:
    """Return the lists with ids of collated types; neighbors at the same distance are in the order of their type.

    lists   : user_id, neighbors, with plain strings as ids
    returns : the same columns
    """
    ids = F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}").cast(T.ArrayType(neighbor))
    pairs = F.arrays_zip(F.col(f"{NEIGHBORS}.{DISTANCE}").alias(DISTANCE), ids.alias(NEIGHBOR_ID))
    ordered = F.transform(F.sort_array(pairs), lambda neighbor: F.struct(neighbor[NEIGHBOR_ID], neighbor[DISTANCE]))
    return lists.select(F.col(USER_ID).cast(kind).alias(USER_ID), ordered.alias(NEIGHBORS))
