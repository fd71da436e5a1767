"""Shape: the published form of the table, nested or long, and the check that nobody is missing."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from annspark.config import Settings
from annspark.core.metric import METRICS
from annspark.errors import AnnsparkError
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID, quoted


def shaped(neighbors: DataFrame, settings: Settings) -> DataFrame:
    """Return the table as it is published.

    neighbors : user_id, neighbors
    returns   : <id_col>, neighbors; or for the long shape <id_col>, rank (1..k), neighbor_id, distance; in place of the
                distance the inner product, where the distance is minus that
    """
    if METRICS[settings.metric].largest:
        product = F.transform(
            NEIGHBORS, lambda one: F.struct(one[NEIGHBOR_ID], _negated(one[DISTANCE]).alias(INNER_PRODUCT))
        )
        neighbors = neighbors.select(USER_ID, product.alias(NEIGHBORS))
    table = _lengthened(neighbors, value_of(settings)) if settings.shape == "long" else neighbors
    return table.withColumnRenamed(USER_ID, settings.id_col)


def value_of(settings: Settings) -> str:
    """Return the name under which a neighbor's distance, or inner product, is published."""
    return INNER_PRODUCT if METRICS[settings.metric].largest else DISTANCE


def _distance(value: Column, settings: Settings) -> Column:
    return _negated(value) if METRICS[settings.metric].largest else value


def _negated(value: Column) -> Column:
    """Return 0 - value, a float; -value would make -0 of 0."""
    return F.lit(0).cast("float") - value


def listed(table: DataFrame, settings: Settings) -> DataFrame:
    """Return a published table of either shape as user_id, neighbor_id (array), distance (array), nearest first."""
    named, value = table.withColumnRenamed(settings.id_col, USER_ID), value_of(settings)
    if settings.shape == "long":
        pairs = F.sort_array(F.collect_list(F.struct(RANK, NEIGHBOR_ID, value))).alias(NEIGHBORS)
        named = named.groupBy(USER_ID).agg(pairs)
    distances = F.transform(f"{NEIGHBORS}.{value}", lambda one: _distance(one, settings))
    return named.select(USER_ID, f"{NEIGHBORS}.{NEIGHBOR_ID}", distances.alias(DISTANCE))


def neighbor_ids_of(table: DataFrame, settings: Settings) -> DataFrame:
    """Return neighbor_id of every neighbor of a published table of either shape; no other column is read."""
    if settings.shape == "long":
        return table.select(NEIGHBOR_ID)
    return table.select(F.explode(f"{NEIGHBORS}.{NEIGHBOR_ID}").alias(NEIGHBOR_ID))


def count_users(table: DataFrame, settings: Settings) -> int:
    """Return how many users a published table has rows of."""
    return table.select(quoted(settings.id_col)).distinct().count() if settings.shape == "long" else table.count()


def require_complete(written: int, rows: int) -> None:
    """Raise AnnsparkError when not every user of the input is accounted for."""
    if written != rows:
        raise AnnsparkError(
            f"join: {written:,} of {rows:,} users are in the table, so nothing was published. This is a "
            "defect of annspark, or the input changed while it was read: run again with scratch set, and report it."
        )


def _lengthened(nested: DataFrame, value: str) -> DataFrame:
    rows = nested.select(USER_ID, F.posexplode(NEIGHBORS).alias(RANK, "neighbor"))
    return rows.select(USER_ID, (F.col(RANK) + 1).alias(RANK), f"neighbor.{NEIGHBOR_ID}", f"neighbor.{value}")
