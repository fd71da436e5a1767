"""Stars: split rows that hang together by long chains, so that every row is linked to the centre of its group.

The centres are a maximal independent set: no two of them are linked, and every other row is linked to one of them.

Source: greedy, in parallel, Blelloch et al. 2012, Greedy Sequential Maximal Independent Set and Matching are Parallel
on Average (SPAA).  Rows with more links come first, then those with a lower hash: an order without long runs, as orders
of ids would have where ids follow the time.
"""

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.spark.block import seeded_hash
from annspark.spark.staging import Store
from annspark.tables import DISTANCE, USER_ID
from annspark.uses.components import GROUP, HIGH, LOW

OTHER = "other"
_ORDER, _OTHERS_ORDER, _FIRST = "order", "others_order", "first"


def split(links: DataFrame, store: Store) -> DataFrame:
    """Return the rows of links in groups whose rows are all linked to one: user_id, group, which is the id of that one.

    A row goes to the nearest centre that it is linked to.  A centre may be alone in its group.

    links : low, high, distance
    store : stores a table, so that its plan does not grow with every round
    """
    pairs = store(both_ways(links))
    order = F.struct((-F.count("*")).alias("links"), seeded_hash(F.col(USER_ID), 0).alias("hash"), USER_ID)
    orders = store(pairs.groupBy(USER_ID).agg(order.alias(_ORDER)))
    of_others = orders.select(F.col(USER_ID).alias(OTHER), F.col(_ORDER).alias(_OTHERS_ORDER))
    undecided = pairs.join(orders, USER_ID).join(of_others, OTHER).drop(DISTANCE)
    undecided = store(undecided)
    covered = []
    while undecided.limit(1).collect():
        centres = store(_first_of_all(undecided))
        covered.append(store(undecided.join(centres, F.col(OTHER) == F.col(_FIRST)).select(USER_ID).distinct()))
        decided = centres.select(F.col(_FIRST).alias(USER_ID)).unionByName(covered[-1])
        left = undecided.join(decided, USER_ID, "left_anti")
        undecided = store(left.join(decided.withColumnRenamed(USER_ID, OTHER), OTHER, "left_anti"))
    # Rows whose neighbors are all covered by others are centres too.
    all_covered = reduce(DataFrame.unionByName, covered)
    centres = store(orders.select(USER_ID).join(all_covered, USER_ID, "left_anti"))
    linked = pairs.join(centres.withColumnRenamed(USER_ID, OTHER), OTHER)
    nearest = linked.groupBy(USER_ID).agg(F.min(F.struct(DISTANCE, OTHER)).alias("nearest"))
    members = nearest.select(USER_ID, F.col(f"nearest.{OTHER}").alias(GROUP))
    return store(members.unionByName(centres.select(USER_ID, F.col(USER_ID).alias(GROUP))))


def both_ways(links: DataFrame) -> DataFrame:
    """Return every link from both of its rows: user_id, other, distance."""
    there = links.select(F.col(LOW).alias(USER_ID), F.col(HIGH).alias(OTHER), DISTANCE)
    return there.unionByName(links.select(F.col(HIGH).alias(USER_ID), F.col(LOW).alias(OTHER), DISTANCE))


def _first_of_all(undecided: DataFrame) -> DataFrame:
    """Return the rows that come before all that they are linked to: first."""
    by_row = undecided.groupBy(USER_ID).agg(F.min(_ORDER).alias(_ORDER), F.min(_OTHERS_ORDER).alias(_OTHERS_ORDER))
    return by_row.where(F.col(_ORDER) < F.col(_OTHERS_ORDER)).select(F.col(USER_ID).alias(_FIRST))
