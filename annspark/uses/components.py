"""Components: the rows that links connect, by a loop of joins.

Source: alternating large-star and small-star, Kiveris et al. 2014, Connected Components in MapReduce and Beyond (SoCC).
Every round is a few joins and aggregations of Spark over the links, and the rounds are about as many as the logarithm
of the longest path.  GraphFrames has the same algorithm, in a jar that a session must be started with.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.spark.staging import Store
from annspark.tables import USER_ID

LOW, HIGH, GROUP = "low", "high", "group"
_LEAST = "least"


def connect(links: DataFrame, store: Store) -> tuple[DataFrame, int]:
    """Return the rows that have links, each with the lowest id of its component: user_id, group; and the rounds taken.

    links : low, high, ids of any type that has an order, with low < high
    store : stores a table, so that its plan does not grow with every round
    """
    links, rounds = store(links.select(LOW, HIGH).distinct()), 0
    while not _are_stars(links):
        links, rounds = store(_small_star(_large_star(links))), rounds + 1
    centres = links.select(F.col(LOW).alias(USER_ID), F.col(LOW).alias(GROUP)).distinct()
    return links.select(F.col(HIGH).alias(USER_ID), F.col(LOW).alias(GROUP)).unionByName(centres), rounds


def _are_stars(links: DataFrame) -> bool:
    """Say whether every row is the low end of links, or the high end of a single one."""
    lows, highs = (links.select(F.col(end).alias(USER_ID), F.lit(end == HIGH).alias("is_high")) for end in (LOW, HIGH))
    by_row = lows.unionByName(highs).groupBy(USER_ID).agg(F.count_if("is_high").alias("highs"), F.count("*").alias("n"))
    return not by_row.where("highs > 1 OR (highs = 1 AND n > 1)").limit(1).collect()


def _large_star(links: DataFrame) -> DataFrame:
    """Link the higher neighbors of every row to the lowest of the row and its neighbors."""
    # A row that is the high end of no link is lower than all its neighbors.
    least = links.groupBy(HIGH).agg(F.min(LOW).alias(_LEAST)).withColumnRenamed(HIGH, LOW)
    lowest = F.coalesce(_LEAST, LOW).alias(LOW)
    return links.join(least, LOW, "left").select(lowest, HIGH).distinct()


def _small_star(links: DataFrame) -> DataFrame:
    """Link every row and its lower neighbors to the lowest of them."""
    least = links.groupBy(HIGH).agg(F.min(LOW).alias(_LEAST))
    lower = links.join(least, HIGH).where(F.col(LOW) != F.col(_LEAST))
    own = least.select(F.col(_LEAST).alias(LOW), HIGH)
    return own.unionByName(lower.select(F.col(_LEAST).alias(LOW), F.col(LOW).alias(HIGH))).distinct()
