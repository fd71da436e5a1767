"""Neighbor columns: where a neighbor table, ours or another system's, holds users, neighbors and distances."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.errors import InputError
from annspark.input.given import find_column, shown
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, RANK

_TOLD = (RANK, DISTANCE, INNER_PRODUCT)


@dataclass(frozen=True)
class NeighborColumns:
    """What the columns of a neighbor table are.

    user     : type of the users' ids
    neighbor : type of the neighbors' ids
    nested   : whether each user has an array `neighbors`, and not a row for each neighbor
    structs  : whether the array holds structs, and not ids
    told     : types of rank, distance and inner_product, of those that the rows or the structs have
    """

    user: T.DataType
    neighbor: T.DataType
    nested: bool
    structs: bool
    told: dict[str, T.DataType]


def find_neighbor_columns(table: DataFrame, id_col: str) -> NeighborColumns:
    """Return what the columns of a neighbor table are.

    table : a row per user with an array `neighbors` of ids or of structs with neighbor_id, or a row per neighbor with
            neighbor_id
    Raises InputError where the columns of users or of neighbors are missing.
    """
    user, nested, neighbor = (find_column(table, name, "neighbors") for name in (id_col, NEIGHBORS, NEIGHBOR_ID))
    if user is None:
        raise InputError(
            f"neighbors: no column {id_col!r}; there are {shown(table.columns)}. "
            "Rename the column of users, so that it is named as in the input."
        )
    if nested is not None and isinstance(nested.dataType, T.ArrayType):
        element = nested.dataType.elementType
        if not isinstance(element, T.StructType):
            return NeighborColumns(user.dataType, element, nested=True, structs=False, told={})
        if NEIGHBOR_ID not in element.names:
            raise InputError(
                f"neighbors: the structs of {NEIGHBORS!r} have no field {NEIGHBOR_ID!r}; there are "
                f"{shown(element.names)}. Rename the one that holds the neighbor."
            )
        told = {name: element[name].dataType for name in _TOLD if name in element.names}
        return NeighborColumns(user.dataType, element[NEIGHBOR_ID].dataType, nested=True, structs=True, told=told)
    if neighbor is None:
        raise InputError(
            f"neighbors: neither an array column {NEIGHBORS!r} nor a column {NEIGHBOR_ID!r}; there are "
            f"{shown(table.columns)}. Rename the one that holds the neighbors."
        )
    found = {name: find_column(table, name, "neighbors") for name in _TOLD}
    told = {name: field.dataType for name, field in found.items() if field is not None}
    return NeighborColumns(user.dataType, neighbor.dataType, nested=False, structs=False, told=told)
