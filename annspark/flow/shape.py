"""Shape: the published form of the table, nested or long, and the check that nobody is missing."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.config import Settings
from annspark.errors import AnnsparkError
from annspark.flow.read import Users
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID, quoted


def shaped(neighbors: DataFrame, settings: Settings) -> DataFrame:
    """Return the table as it is published.

    neighbors : user_id, neighbors
    returns   : <id_col>, neighbors; or for the long shape <id_col>, rank (1..k), neighbor_id, distance
    """
    table = _lengthened(neighbors) if settings.shape == "long" else neighbors
    return table.withColumnRenamed(USER_ID, settings.id_col)


def distances_of(table: DataFrame, settings: Settings) -> DataFrame:
    """Return a published table of either shape as user_id, rank, distance; no other column is read."""
    named = table.withColumnRenamed(settings.id_col, USER_ID)
    if settings.shape == "long":
        return named.select(USER_ID, RANK, DISTANCE)
    distances = named.select(USER_ID, F.posexplode(f"{NEIGHBORS}.{DISTANCE}").alias(RANK, DISTANCE))
    return distances.select(USER_ID, (F.col(RANK) + 1).alias(RANK), DISTANCE)


def listed(table: DataFrame, settings: Settings) -> DataFrame:
    """Return a published table of either shape as user_id, neighbor_id (array), distance (array); any order."""
    named = table.withColumnRenamed(settings.id_col, USER_ID)
    if settings.shape == "long":
        pairs = F.collect_list(F.struct(NEIGHBOR_ID, DISTANCE)).alias(NEIGHBORS)
        named = named.groupBy(USER_ID).agg(pairs)
    return named.select(USER_ID, f"{NEIGHBORS}.{NEIGHBOR_ID}", f"{NEIGHBORS}.{DISTANCE}")


def neighbor_ids_of(table: DataFrame, settings: Settings) -> DataFrame:
    """Return neighbor_id of every neighbor of a published table of either shape; no other column is read."""
    if settings.shape == "long":
        return table.select(NEIGHBOR_ID)
    return table.select(F.explode(f"{NEIGHBORS}.{NEIGHBOR_ID}").alias(NEIGHBOR_ID))


def count_users(table: DataFrame, settings: Settings) -> int:
    """Return how many users a published table has rows of."""
    return table.select(quoted(settings.id_col)).distinct().count() if settings.shape == "long" else table.count()


def require_complete(written: int, users: Users) -> None:
    """Raise AnnsparkError when not every user of the input is accounted for."""
    if written != users.rows:
        raise AnnsparkError(
            f"join: {written:,} of {users.rows:,} users are in the table, so nothing was published. This is a "
            "defect of annspark, or the input changed while it was read: run again with scratch set, and report it."
        )


def _lengthened(nested: DataFrame) -> DataFrame:
    rows = nested.select(USER_ID, F.posexplode(NEIGHBORS).alias(RANK, "neighbor"))
    return rows.select(USER_ID, (F.col(RANK) + 1).alias(RANK), f"neighbor.{NEIGHBOR_ID}", f"neighbor.{DISTANCE}")
