"""Beside: the table that a use reads beside the neighbors, and the checks that the two belong together."""

from typing import cast

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError
from annspark.input.given import find_column, shown
from annspark.spark.types import readable
from annspark.tables import NEIGHBORS, USER_ID, quoted


def require_column(table: DataFrame, name: str, role: str) -> T.DataType:
    """Return the type of a column; InputError where there is no such column."""
    found = find_column(table, name, role)
    if found is None:
        raise InputError(
            f"{role}: no column {name!r}; there are {shown(table.columns)}. Rename the column, or name it in the call."
        )
    return found.dataType


def select_beside(table: DataFrame, names: dict[str, str], role: str) -> DataFrame:
    """Return the columns of a table under other names; InputError where one is missing.

    names : new names by the names in the table
    """
    for name in names:
        require_column(table, name, role)
    return table.select(*[F.col(quoted(name)).alias(new) for name, new in names.items()])


def require_same_type(lists: DataFrame, beside: DataFrame, of: str, role: str, id_col: str) -> None:
    """Raise InputError where ids of the neighbor table cannot be compared with those of the table beside it.

    lists  : as neighbor_lists returns them
    beside : has user_id
    of     : "user_id" or "neighbor_id", whose ids are those of the other table
    """
    element = cast(T.StructType, cast(T.ArrayType, lists.schema[NEIGHBORS].dataType).elementType)
    here, there = (
        lists.schema[USER_ID].dataType if of == USER_ID else element[of].dataType,
        beside.schema[USER_ID].dataType,
    )
    if here != there and not (isinstance(here, T.IntegralType) and isinstance(there, T.IntegralType)):
        raise InputError(
            f"{role}: the ids in {id_col!r} are {there.simpleString()}, and those of the neighbor table "
            f"{here.simpleString()}. Cast one of them, so that both have one type."
        )


def require_one_row_each(table: DataFrame, role: str, id_col: str) -> None:
    """Raise InputError where an id of a table has several rows."""
    again = table.groupBy(USER_ID).count().where("count > 1").limit(1).collect()
    if again:
        raise InputError(
            f"{role}: {readable(again[0][USER_ID])!r} in {id_col!r} has {again[0]['count']:,} rows, and each id may "
            "have one. Keep one row of each id (dropDuplicates), or aggregate them."
        )
