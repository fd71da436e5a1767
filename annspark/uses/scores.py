"""Scores: how far each user is from its neighbors, and from what is usual among them."""

from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from annspark.errors import spark_errors_explained
from annspark.input.given import require_table
from annspark.run import Run
from annspark.settings import make_record, takes
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.pairs import neighbor_lists, require_distances
from annspark.uses.report import Used, tell, use_in_session
from annspark.uses.settings import OutlierSettings
from annspark.uses.sums import sum_in_order, sum_of

_SCORE, _REACH, _DENSITY, _COUNT = "score", "reach", "density", "count"
_TINY = 1e-10  # scikit-learn's, for users who have k twins
_SHARES = (0.5, 0.9, 0.99, 0.999)


@spark_errors_explained()
@takes(OutlierSettings)
def outliers(neighbors: DataFrame, *, scratch: str | PathLike[str] | None = None, **settings: Any) -> Used:
    """Return a score for every user: the larger, the more alone the user is.

    neighbors : a neighbor table, in either shape, with distances
    {settings}
    scratch   : Folder for intermediate tables. Default: none, they are cached in the session.

    The table has the columns user_id, score (double) and neighbors (int, how many of the k the user has). Who has fewer
    than k neighbors has no k-th: its score is infinite under kth and mean. Under lof the neighbors there are count, and
    the score is infinite where there are none.

    lof is the local outlier factor of Breunig et al. 2000 (SIGMOD) with exactly k neighbors, as scikit-learn computes
    it: the mean of the neighbors' densities over the user's own. A user with k twins has a score of 1 among its twins.

    The report's facts: users, k, short (users with fewer than k neighbors), twins (users with k neighbors at distance
    0), score (that half, 90 %, 99 % and 99.9 % of the users do not exceed, approximately), infinite (users with an
    infinite score).

    Raises SettingsError for settings that cannot be used and InputError for tables that cannot be used.
    """
    asked = make_record(OutlierSettings, settings, "scratch")
    table = require_table(neighbors, "neighbors")
    return use_in_session(partial(score_users, table, asked), table.sparkSession, scratch)


def score_users(neighbors: DataFrame, settings: OutlierSettings, run: Run) -> Used:
    """Return the scores, as outliers does."""
    require_distances(neighbors, settings.id_col, "outliers")
    with run.clock.step("read") as facts:
        lists = run.stage(neighbor_lists(neighbors, settings.id_col))
        k = settings.k or max(1, lists.agg(F.max(F.size(NEIGHBORS))).collect()[0][0] or 0)
        lists = lists.select(USER_ID, F.slice(NEIGHBORS, 1, k).alias(NEIGHBORS))
        is_short, last = F.size(NEIGHBORS) < k, _last_distance()
        users, short, twins = lists.agg(
            F.count("*"), F.count_if(is_short), F.count_if(~is_short & (last == 0))
        ).collect()[0]
        facts += [f"{users:,} users"]
    with run.clock.step("score") as facts:
        scored = _factors(lists, run) if settings.method == "lof" else _distances(lists, settings.method, k)
        table = run.keep(scored.withColumnRenamed(USER_ID, settings.id_col))
        finite = table.where(F.col(_SCORE) < F.lit(float("inf")))
        found = finite.agg(F.count("*"), F.percentile_approx(_SCORE, list(_SHARES), 10_000)).collect()[0]
    warnings = []
    if short:
        warnings.append(
            f"{short:,} of {users:,} users have fewer than k = {k} neighbors in the table, as after max_distance or "
            "links, or in a table of links 'either'. Set 'k' to a number that the others have, or build without them."
        )
    if twins and settings.method == "lof":
        warnings.append(
            f"{twins:,} of {users:,} users have k = {k} neighbors at distance 0. Scores of users near them are huge, "
            "and say little. Leave all but one of such twins out (see duplicates), or build with a larger k."
        )
    told = {
        "users": users,
        "k": k,
        "short": short,
        "twins": twins,
        "score": dict(zip(map("{:g}".format, _SHARES), found[1] or [], strict=False)),
        "infinite": users - found[0],
    }
    return Used(table, tell("outliers", settings, run, told, warnings))


def _last_distance() -> Column:
    """Return the distance of the last neighbor; null for an empty list."""
    return F.try_element_at(f"{NEIGHBORS}.{DISTANCE}", F.lit(-1))


def _distances(lists: DataFrame, method: str, k: int) -> DataFrame:
    """Return user_id, score (distance to the k-th neighbor, or mean distance to k) and neighbors."""
    distances = F.col(f"{NEIGHBORS}.{DISTANCE}")
    score = _last_distance().cast("double") if method == "kth" else sum_of(distances) / F.size(distances)
    whole = F.when(F.size(NEIGHBORS) == k, score).otherwise(F.lit(float("inf")))
    return lists.select(USER_ID, whole.alias(_SCORE), F.size(NEIGHBORS).alias(NEIGHBORS))


def _factors(lists: DataFrame, run: Run) -> DataFrame:
    """Return user_id, score (local outlier factor) and neighbors."""
    reach = lists.select(F.col(USER_ID).alias(NEIGHBOR_ID), _last_distance().alias(_REACH))
    pairs = lists.select(USER_ID, F.explode(NEIGHBORS).alias("neighbor")).select(USER_ID, "neighbor.*")
    # A neighbor that has no list of its own is reached at its distance.
    farther = F.greatest(DISTANCE, _REACH).cast("double")
    density = run.stage(
        pairs.join(reach, NEIGHBOR_ID, "left")
        .groupBy(USER_ID)
        .agg(
            (1 / (sum_in_order(farther) / F.count("*") + _TINY)).alias(_DENSITY), F.count("*").cast("int").alias(_COUNT)
        )
    )
    of_neighbors = density.select(F.col(USER_ID).alias(NEIGHBOR_ID), _DENSITY)
    around = (
        pairs.join(of_neighbors, NEIGHBOR_ID)
        .groupBy(USER_ID)
        .agg((sum_in_order(F.col(_DENSITY)) / F.count("*")).alias("around"))
    )
    factors = density.join(around, USER_ID, "left").select(
        USER_ID, (F.col("around") / F.col(_DENSITY)).alias(_SCORE), _COUNT
    )
    return (
        lists.select(USER_ID)
        .join(factors, USER_ID, "left")
        .select(
            USER_ID,
            F.coalesce(_SCORE, F.lit(float("inf"))).alias(_SCORE),
            F.coalesce(_COUNT, F.lit(0)).alias(NEIGHBORS),
        )
    )
