"""Pairs: bring a neighbor table, ours in either shape or another system's, into one form."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError
from annspark.input.given import require_table, shown
from annspark.input.neighbor_columns import NeighborColumns, find_neighbor_columns
from annspark.output.layout import negated
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, USER_ID, quoted


def neighbor_lists(neighbors: DataFrame, id_col: str = USER_ID, same_ids: bool = True) -> DataFrame:
    """Return a neighbor table as user_id and neighbors, array<struct<neighbor_id, distance>>, nearest first.

    Where the table has inner products, distance is the negative of them.  Pairs without an id or a finite value are
    left out, and all but the nearest of several pairs of the same two ids.

    neighbors : a row per user with an array `neighbors` of structs, or a row per neighbor; both with neighbor_id, and
                with distance or inner_product.  Their order and rank are not read
    id_col    : the column of users
    same_ids  : ids of users and of neighbors name the same things: a user that is its own neighbor is left out
    Raises InputError for what is no DataFrame, and for columns that are missing or of unusable types.
    """
    table = require_table(neighbors, "neighbors")
    columns, value = find_neighbor_columns(table, id_col), value_in(table, id_col)
    if same_ids:
        _require_one_type(columns)
    user = F.col(quoted(id_col))
    lists = table.select(user.alias(USER_ID), NEIGHBORS) if columns.nested else _gathered(table, id_col, value)
    kind = T.FloatType() if isinstance(columns.told[value], T.FloatType) else T.DoubleType()

    def measured(neighbor: Column) -> Column:
        told = neighbor[value].cast(kind)
        return F.struct((negated(told) if value == INNER_PRODUCT else told).alias(DISTANCE), neighbor[NEIGHBOR_ID])

    def is_usable(pair: Column) -> Column:
        # null and NaN are in no order with infinity
        known = F.coalesce(F.abs(pair[DISTANCE]) < F.lit(float("inf")), F.lit(False))
        other = pair[NEIGHBOR_ID] != F.col(USER_ID) if same_ids else F.lit(True)
        return known & pair[NEIGHBOR_ID].isNotNull() & other

    pairs = F.coalesce(F.filter(F.transform(NEIGHBORS, measured), is_usable), F.array())
    ordered = lists.where(F.col(USER_ID).isNotNull()).select(USER_ID, F.sort_array(pairs).alias(NEIGHBORS))
    ids = F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}")
    # By its name, as the function of Spark 3.5's Python takes no column.
    nearest_of_each = F.filter(
        NEIGHBORS, lambda pair, place: F.call_function("array_position", ids, pair[NEIGHBOR_ID]) == place + 1
    )
    # Looked for only in lists that name an id twice: array_position is slow in long lists.
    is_repeated = F.size(F.array_distinct(ids)) < F.size(ids)
    once = F.when(is_repeated, nearest_of_each).otherwise(F.col(NEIGHBORS))
    swapped = F.transform(once, lambda pair: F.struct(pair[NEIGHBOR_ID], pair[DISTANCE]))
    return ordered.select(USER_ID, swapped.alias(NEIGHBORS))


def value_in(neighbors: DataFrame, id_col: str = USER_ID) -> str:
    """Return what a neighbor table tells of its pairs, "distance" or "inner_product"; InputError for neither."""
    columns = find_neighbor_columns(require_table(neighbors, "neighbors"), id_col)
    value = next((name for name in (DISTANCE, INNER_PRODUCT) if name in columns.told), None)
    if value is None:
        there = [NEIGHBOR_ID, *columns.told] if columns.structs else neighbors.columns
        raise InputError(
            f"neighbors: neither {DISTANCE!r} nor {INNER_PRODUCT!r} beside {NEIGHBOR_ID!r}; there are {shown(there)}. "
            f"Rename the column or field that holds the distance (the smallest is nearest) to {DISTANCE!r}; for "
            f"similarities take 1 - similarity."
        )
    kind = columns.told[value]
    if not isinstance(kind, T.NumericType):
        raise InputError(f"neighbors: {value!r} is {kind.simpleString()}, and it must be a number. Cast it.")
    return value


def require_distances(neighbors: DataFrame, id_col: str, use: str) -> None:
    """Raise InputError for a table of inner products, which are no distances.

    use : what needs distances
    """
    if value_in(neighbors, id_col) != DISTANCE:
        raise InputError(
            f"neighbors: the table has inner products, and {use} needs distances. Build it with another metric, "
            "such as cosine."
        )


def _gathered(table: DataFrame, id_col: str, value: str) -> DataFrame:
    """Return a table with a row per neighbor as user_id and neighbors, in no order."""
    pair = F.struct(NEIGHBOR_ID, value)
    return table.groupBy(F.col(quoted(id_col)).alias(USER_ID)).agg(F.collect_list(pair).alias(NEIGHBORS))


def _require_one_type(columns: NeighborColumns) -> None:
    """Raise InputError where the ids of users and of neighbors cannot be compared as they are."""
    user, neighbor = columns.user, columns.neighbor
    if user != neighbor and not (isinstance(user, T.IntegralType) and isinstance(neighbor, T.IntegralType)):
        raise InputError(
            f"neighbors: the ids of users are {user.simpleString()} and those of neighbors {neighbor.simpleString()}. "
            "Cast one of the two columns, so that both have one type."
        )
