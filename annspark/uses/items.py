"""Items: what a user's neighbors took and the user did not."""

import math
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError, SettingsError, spark_errors_explained
from annspark.input.given import require_table
from annspark.run import Run
from annspark.settings import make_record, takes
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID
from annspark.uses.beside import require_column, require_same_type, select_beside
from annspark.uses.pairs import neighbor_lists, value_in
from annspark.uses.report import Used, tell, use_in_session
from annspark.uses.settings import RecommendSettings
from annspark.uses.sums import sum_in_order, sum_of

_ITEM, _STRENGTH, _SCORE, _FALLBACK, _TAKERS = "item", "strength", "score", "fallback", "takers"
_SHARE, _OFFERED = "share", "offered"
_MOST_SIMILAR = 2  # the largest distance under cosine and jaccard
# Scores are added up as whole numbers of this part of the largest strength, so that they do not depend on the order of
# the rows.  The shares of a user's neighbors add up to 1, so a sum stays below 2**61, and a bigint holds it.
_UNIT = 2.0**-60


@spark_errors_explained()
@takes(RecommendSettings)
def recommend(
    neighbors: DataFrame, interactions: DataFrame, *, scratch: str | PathLike[str] | None = None, **settings: Any
) -> Used:
    """Return the items that each user's neighbors took and the user did not, the best k of them.

    neighbors    : a neighbor table of users, in either shape
    interactions : a row per user and item that the user took, under the same ids of users as neighbors; repeated rows
                   count once, or add up where there is a strength_col
    {settings}
    scratch      : Folder for intermediate tables. Default: none, they are cached in the session.

    The table has the columns id_col, rank (1 to k), item_col, score (double), neighbors (int, how many of the user's
    neighbors took it) and fallback. The score is the weighted share of the user's neighbors who took the item, times
    the strength where there is one, divided by the number of users of the item to the power of popularity. Equal scores
    are in the order of the items. An item that a user took is never recommended to that user, whatever its strength.

    Users are those of both tables. With fallback, a user with fewer than k items gets popular ones after them, out of
    the 5 k + 100 most popular; their score is null and neighbors is 0.

    The report's facts: users, cold (users without neighbors), nothing_new (users whose neighbors took nothing that the
    user did not), short (users with fewer than k items from neighbors, those two included), filled (rows that are
    fallback), items (items that somebody took), recommended_items (of these, recommended to somebody by neighbors).

    Raises SettingsError for settings that cannot be used and InputError for tables that cannot be used.
    """
    asked = make_record(RecommendSettings, settings, "scratch")
    table, taken = require_table(neighbors, "neighbors"), require_table(interactions, "interactions")
    return use_in_session(partial(recommend_items, table, taken, asked), table.sparkSession, scratch)


def recommend_items(neighbors: DataFrame, interactions: DataFrame, settings: RecommendSettings, run: Run) -> Used:
    """Return the recommendations, as recommend does."""
    value = value_in(neighbors, settings.id_col)
    lists = neighbor_lists(neighbors, settings.id_col)
    taken = _taken(interactions, settings)
    require_same_type(lists, taken, USER_ID, "interactions", settings.id_col)
    if value == INNER_PRODUCT and settings.weights == "inverse":
        raise SettingsError("'weights' is 'inverse', and the table has inner products. Set it to 'similarity'.")
    with run.clock.step("read") as facts:
        lists, taken = run.stage(lists), run.stage(taken)
        if value == DISTANCE and settings.weights == "similarity":
            _require_similar(lists)
        popular = run.stage(taken.groupBy(_ITEM).agg(F.count("*").alias(_TAKERS)))
        users = run.stage(
            lists.select(USER_ID, F.size(NEIGHBORS).alias(NEIGHBORS)).join(
                taken.select(USER_ID).distinct(), USER_ID, "full"
            )
        )
        facts += [f"{users.count():,} users, {popular.count():,} items"]
    with run.clock.step("score") as facts:
        weighted = _weighted(lists, value, settings.weights)
        scored = _scored(weighted, taken, popular, _largest_strength(taken), settings.popularity)
        own = run.stage(_best(scored, settings.k))
        facts += [f"{own.count():,} rows"]
    with run.clock.step("fill") as facts:
        found = own.unionByName(_filled(users, own, taken, popular, settings.k)) if settings.fallback else own
        named = found.withColumnsRenamed({USER_ID: settings.id_col, _ITEM: settings.item_col})
        table = run.keep(named)
        filled = table.where(_FALLBACK).count()
        facts += [f"{filled:,} rows"]
    told = _counts(users, own, popular, settings.k) | {"filled": filled}
    return Used(table, tell("recommend", settings, run, told, _warnings(told)))


def _taken(interactions: DataFrame, settings: RecommendSettings) -> DataFrame:
    """Return each user and item once: user_id, item, strength."""
    names = {settings.id_col: USER_ID, settings.item_col: _ITEM}
    if settings.strength_col:
        kind = require_column(interactions, settings.strength_col, "interactions")
        if not isinstance(kind, T.NumericType):
            raise InputError(
                f"interactions: {settings.strength_col!r} is {kind.simpleString()}, and it must be a number. Cast it."
            )
        names[settings.strength_col] = _STRENGTH
    strength = sum_in_order(F.col(_STRENGTH)) if settings.strength_col else F.lit(1.0)
    rows = select_beside(interactions, names, "interactions").dropna()
    return rows.groupBy(USER_ID, _ITEM).agg(strength.alias(_STRENGTH))


def _require_similar(lists: DataFrame) -> None:
    """Raise SettingsError where distances are too large to be those of cosine or jaccard."""
    farthest = lists.agg(F.max(F.array_max(f"{NEIGHBORS}.{DISTANCE}"))).collect()[0][0]
    if farthest is not None and farthest > _MOST_SIMILAR + 1e-3:  # rounding
        raise SettingsError(
            f"'weights' is 'similarity', which is 1 - distance, and the table has distances up to {farthest:g}, as "
            "euclidean has them. Set 'weights' to 'inverse' or 'uniform'."
        )


def _weighted(lists: DataFrame, value: str, weights: str) -> DataFrame:
    """Return the neighbors of each user with their shares of the weight: user_id, neighbor_id, share."""
    similar = F.transform(f"{NEIGHBORS}.{DISTANCE}", lambda distance: _similarity(distance, value, weights))
    weighted = lists.select(USER_ID, F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}").alias(NEIGHBOR_ID), similar.alias(_SHARE))
    total = sum_of(F.col(_SHARE)).alias("total")
    pairs = weighted.select(USER_ID, total, F.explode(F.arrays_zip(NEIGHBOR_ID, _SHARE)).alias("neighbor"))
    share = F.col(f"neighbor.{_SHARE}") / F.col("total")
    return pairs.where(F.col(f"neighbor.{_SHARE}") > 0).select(USER_ID, f"neighbor.{NEIGHBOR_ID}", share.alias(_SHARE))


def _similarity(distance: Column, value: str, weights: str) -> Column:
    """Return how much a neighbor counts, double, from its distance as neighbor_lists gives it."""
    distance = distance.cast("double")
    if weights == "uniform":
        return F.lit(1.0)
    if weights == "inverse":
        return 1 / (1 + distance)
    return F.greatest(-distance if value == INNER_PRODUCT else 1 - distance, F.lit(0.0))


def _largest_strength(taken: DataFrame) -> float:
    """Return the largest strength, whatever its sign; InputError where one is not finite."""
    largest = taken.agg(F.max(F.abs(_STRENGTH))).collect()[0][0] or 1.0
    if not math.isfinite(largest):
        raise InputError(f"interactions: a strength is {largest}, and it must be finite. Leave such rows out.")
    return float(largest)


def _scored(weighted: DataFrame, taken: DataFrame, popular: DataFrame, largest: float, popularity: float) -> DataFrame:
    """Return what neighbors took and the user did not: user_id, item, score, neighbors.

    largest : strength
    """
    of_neighbors = taken.withColumnRenamed(USER_ID, NEIGHBOR_ID)
    units = F.rint(F.col(_SHARE) * (F.col(_STRENGTH) / largest) / _UNIT).cast("bigint")
    offered = weighted.join(of_neighbors, NEIGHBOR_ID).select(USER_ID, _ITEM, units.alias(_SCORE))
    own = taken.select(USER_ID, _ITEM, F.lit(None).alias(_SCORE))
    # Rows are shipped once, by user, as sums and ranks both need.  An item with a null is one of the user's own.
    scored = (
        offered.unionByName(own)
        .repartition(USER_ID)
        .groupBy(USER_ID, _ITEM)
        .agg(
            (F.sum(_SCORE) * _UNIT * largest).alias(_SCORE),
            F.count("*").cast("int").alias(NEIGHBORS),
            F.count(_SCORE).alias(_OFFERED),
        )
        .where(F.col(_OFFERED) == F.col(NEIGHBORS))
        .drop(_OFFERED)
    )
    if popularity == 0:
        return scored
    corrected = (F.col(_SCORE) / F.pow(F.col(_TAKERS).cast("double"), F.lit(popularity))).alias(_SCORE)
    return scored.join(popular, _ITEM).select(USER_ID, _ITEM, corrected, NEIGHBORS)


def _best(scored: DataFrame, k: int) -> DataFrame:
    """Return the k best items of each user: user_id, rank, item, score, neighbors, fallback."""
    order = Window.partitionBy(USER_ID).orderBy(F.desc(_SCORE), _ITEM)
    ranked = scored.withColumn(RANK, F.row_number().over(order)).where(F.col(RANK) <= k)
    return ranked.select(USER_ID, RANK, _ITEM, _SCORE, NEIGHBORS, F.lit(False).alias(_FALLBACK))


def _filled(users: DataFrame, own: DataFrame, taken: DataFrame, popular: DataFrame, k: int) -> DataFrame:
    """Return popular items for users with fewer than k, with the columns of own."""
    most = popular.orderBy(F.desc(_TAKERS), _ITEM).limit(5 * k + 100)
    order = F.sort_array(F.collect_list(F.struct((-F.col(_TAKERS)).alias(_TAKERS), _ITEM)))
    listed = most.agg(order[_ITEM].alias("popular"))
    known = taken.join(F.broadcast(most), _ITEM).groupBy(USER_ID).agg(F.collect_list(_ITEM).alias("known"))
    has = own.groupBy(USER_ID).agg(F.count("*").cast("int").alias("has"), F.collect_list(_ITEM).alias("own"))
    lists = (
        users.select(USER_ID)
        .join(has, USER_ID, "left")
        .where(F.coalesce("has", F.lit(0)) < k)
        .join(known, USER_ID, "left")
        .crossJoin(F.broadcast(listed))
    )
    nothing = F.slice("popular", 1, 0)
    new = F.array_except(F.array_except("popular", F.coalesce("known", nothing)), F.coalesce("own", nothing))
    n = F.coalesce("has", F.lit(0))
    filling = lists.select(USER_ID, n.alias("has"), F.posexplode(F.slice(new, F.lit(1), k - n)).alias("place", _ITEM))
    return filling.select(
        USER_ID,
        (F.col("has") + F.col("place") + 1).alias(RANK),
        _ITEM,
        F.lit(None).cast("double").alias(_SCORE),
        F.lit(0).alias(NEIGHBORS),
        F.lit(True).alias(_FALLBACK),
    )


def _counts(users: DataFrame, own: DataFrame, popular: DataFrame, k: int) -> dict[str, Any]:
    """Return the report's facts, but for filled."""
    has = own.groupBy(USER_ID).agg(F.count("*").alias("has"))
    by_user = users.join(has, USER_ID, "left").select(
        (F.coalesce(NEIGHBORS, F.lit(0)) == 0).alias("cold"), F.coalesce("has", F.lit(0)).alias("has")
    )
    counts = {
        "users": F.count("*"),
        "cold": F.count_if("cold"),
        "nothing_new": F.count_if(~F.col("cold") & (F.col("has") == 0)),
        "short": F.count_if(F.col("has") < k),
    }
    told = by_user.agg(*[one.alias(name) for name, one in counts.items()]).collect()[0].asDict()
    return told | {"items": popular.count(), "recommended_items": own.select(_ITEM).distinct().count()}


def _warnings(told: dict[str, Any]) -> list[str]:
    warnings = []
    if told["cold"]:
        warnings.append(
            f"{told['cold']:,} of {told['users']:,} users have no neighbors. They are in one table and not in the "
            "other, or max_distance or links left them none."
        )
    if told["users"] and told["cold"] + told["nothing_new"] == told["users"]:
        warnings.append("No neighbor took anything: see that both tables have the same ids of users.")
    return warnings
