"""Layout: the form of a neighbor table, nested or long, and the check that no user is missing."""

from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from annspark.core.metric import METRICS
from annspark.errors import AnnsparkError
from annspark.settings import Settings
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID, quoted


@dataclass(frozen=True)
class Layout:
    """How a neighbor table is laid out.

    id_col : name of the column of ids
    long   : whether there is a row per neighbor (id, rank, neighbor_id, value) and not one per user (id, neighbors)
    value  : "distance" or "inner_product", which is -distance: the name of the field with a neighbor's value
    """

    id_col: str
    long: bool
    value: str

    @property
    def nested(self) -> "Layout":
        """The same layout with a row per user."""
        return replace(self, long=False)


def layout_of(settings: Settings) -> Layout:
    """Return the layout of the table that settings ask for."""
    value = INNER_PRODUCT if METRICS[settings.metric].largest else DISTANCE
    return Layout(settings.id_col, settings.shape == "long", value)


def laid_out(neighbors: DataFrame, layout: Layout) -> DataFrame:
    """Return the table as it is published.

    neighbors : user_id, neighbors
    returns   : <id_col>, neighbors; or if long <id_col>, rank (1..k), neighbor_id and <value>
    """
    if layout.value == INNER_PRODUCT:
        product = F.transform(
            NEIGHBORS,
            lambda neighbor: F.struct(neighbor[NEIGHBOR_ID], negated(neighbor[DISTANCE]).alias(INNER_PRODUCT)),
        )
        neighbors = neighbors.select(USER_ID, product.alias(NEIGHBORS))
    table = _lengthened(neighbors, layout.value) if layout.long else neighbors
    return table.withColumnRenamed(USER_ID, layout.id_col)


def lists_in(table: DataFrame, layout: Layout) -> DataFrame:
    """Return a published table as user_id, neighbor_id (array), distance (array), nearest first."""
    named = table.withColumnRenamed(layout.id_col, USER_ID)
    if layout.long:
        pairs = F.sort_array(F.collect_list(F.struct(RANK, NEIGHBOR_ID, layout.value))).alias(NEIGHBORS)
        named = named.groupBy(USER_ID).agg(pairs)
    values = F.col(f"{NEIGHBORS}.{layout.value}")
    distances = (
        F.transform(values, negated) if layout.value == INNER_PRODUCT else F.transform(values, lambda value: value)
    )
    return named.select(USER_ID, f"{NEIGHBORS}.{NEIGHBOR_ID}", distances.alias(DISTANCE))


def neighbor_ids_in(table: DataFrame, layout: Layout) -> DataFrame:
    """Return the neighbor_id of every neighbor in a published table, a row each; no other column is read."""
    if layout.long:
        return table.select(NEIGHBOR_ID)
    return table.select(F.explode(f"{NEIGHBORS}.{NEIGHBOR_ID}").alias(NEIGHBOR_ID))


def count_users(table: DataFrame, layout: Layout) -> int:
    """Return the number of users with rows in a published table."""
    return table.select(quoted(layout.id_col)).distinct().count() if layout.long else table.count()


def require_complete(written: int, rows: int) -> None:
    """Raise AnnsparkError when the number of users in the table is not that of the input."""
    if written != rows:
        raise AnnsparkError(
            f"join: {written:,} of {rows:,} users are in the table, so nothing was published. This is a "
            "defect of annspark, or the input changed while it was read: run again with scratch set, and report it."
        )


def negated(value: Column) -> Column:
    """Return 0 - value, a number of the same type: -value would turn 0 into -0."""
    return F.lit(0).cast("float") - value


def _lengthened(nested: DataFrame, value: str) -> DataFrame:
    rows = nested.select(USER_ID, F.posexplode(NEIGHBORS).alias(RANK, "neighbor"))
    return rows.select(USER_ID, (F.col(RANK) + 1).alias(RANK), f"neighbor.{NEIGHBOR_ID}", f"neighbor.{value}")
