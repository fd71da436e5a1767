"""Links: what is published of the neighbors found, when not all of them as they are."""

from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.config import Settings
from annspark.output.layout import listed, shaped
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID

_LOW, _HIGH, _TIMES = "low", "high", "times"


def restrict_links(
    found: DataFrame, users: int, most: int, settings: Settings, keep: Callable[[DataFrame], DataFrame]
) -> tuple[DataFrame, int]:
    """Return the table to publish, kept, and how many of so many users have fewer than most neighbors in it.

    found : the table of all neighbors, as settings.found shapes it
    keep  : materialises a table
    """
    nested = listed(found, settings.found).select(USER_ID, F.arrays_zip(NEIGHBOR_ID, DISTANCE).alias(NEIGHBORS))
    table = keep(shaped(_restricted(nested, settings), settings))
    if most == 0:
        return table, 0
    # Not observed while the table is made: of a long one that comes out empty Spark forgets what was observed.
    return table, users - listed(table, settings).where(F.size(NEIGHBOR_ID) >= most).count()


def _restricted(neighbors: DataFrame, settings: Settings) -> DataFrame:
    """Return the neighbors to publish; a user who loses all of them keeps an empty list.

    neighbors : user_id, neighbors, as merged
    returns   : the same columns.  Neighbors farther than max_distance are left out; then, of links, "mutual" keeps
                those that name each other, "either" adds the user to the list of everybody it names, which may make
                lists longer than k
    """
    if settings.max_distance is not None:
        farthest = F.lit(float(settings.max_distance)).cast("float")
        near = F.filter(NEIGHBORS, lambda one: one[DISTANCE] <= farthest)
        neighbors = neighbors.select(USER_ID, near.alias(NEIGHBORS))
    if settings.links == "all":
        return neighbors
    pairs = neighbors.select(USER_ID, F.explode(NEIGHBORS).alias("one")).select(USER_ID, "one.*")
    ends = [F.least(USER_ID, NEIGHBOR_ID).alias(_LOW), F.greatest(USER_ID, NEIGHBOR_ID).alias(_HIGH)]
    # A distance is the same from both ends.
    linked = pairs.groupBy(*ends).agg(F.min(DISTANCE).alias(DISTANCE), F.count("*").alias(_TIMES))
    if settings.links == "mutual":
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
