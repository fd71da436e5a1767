"""Driver: fetch a neighbor table into NumPy arrays, if it fits."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import ranges
from annspark.errors import ClusterError, InputError
from annspark.output.layout import negated
from annspark.spark.arrow import collect, ranks_of_ids
from annspark.spark.memory import bytes_free
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.pairs import neighbor_lists, value_in

_FIXED, _OFFSET = 8, 8  # bytes of an id that is neither a string nor binary, and those beside one that is
# Bytes that a pair takes besides two copies of its neighbor's id, and a cell of the result.  Measured on 200,000 users
# with 15 neighbors: 190 MB at the peak with integer ids and 466 MB with UUIDs, where this gives 243 and 475.
_PAIR, _CELL = 44, 16
_WIDE = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}  # may hold more than 2 GB
_VALUE, _PLACE, _ID = "value", "place", "id"


@dataclass(frozen=True)
class Numbered:
    """A neighbor table on the driver, the ids of users and neighbors in one numbering.

    ids     : (n,) ids of all users and all neighbors, ascending; an id's number is its place here
    rows    : int64 (pairs,), numbers of the users, ascending; the neighbors of one are next to each other
    columns : int64 (pairs,), numbers of the neighbors, a user's nearest first
    values  : float32 or float64 (pairs,), distances or inner products
    value   : "distance" or "inner_product"
    """

    ids: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    value: str

    def counts(self) -> np.ndarray:
        """Return the number of neighbors of each id: int64 (n,)."""
        return np.bincount(self.rows, minlength=len(self.ids))


def fetch(neighbors: DataFrame, most: int | None, id_col: str, *, padded: bool) -> Numbered:
    """Return a neighbor table on the driver.

    most   : neighbors per user, the nearest first; None for all
    padded : the result will have as many places for every id as the longest list needs
    Raises InputError for a table that cannot be used, and ClusterError, before anything is collected, for one that
    takes more memory than is free.
    """
    value = value_in(neighbors, id_col)
    lists = neighbor_lists(neighbors, id_col)
    if most is not None:
        lists = lists.select(USER_ID, F.slice(NEIGHBORS, 1, most).alias(NEIGHBORS))
    _require_room(lists, padded)
    user, other = F.col(USER_ID), F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}")
    if isinstance(lists.schema[USER_ID].dataType, T.IntegralType):  # the neighbors' may be wider
        user, other = user.cast("bigint"), other.cast("array<bigint>")
    told = F.transform(
        f"{NEIGHBORS}.{DISTANCE}", lambda distance: negated(distance) if value == INNER_PRODUCT else distance
    )
    return number(collect(lists.select(user.alias(USER_ID), other.alias(NEIGHBOR_ID), told.alias(_VALUE))), value)


def number(table: pa.Table, value: str) -> Numbered:
    """Return lists with their ids numbered.

    table : user_id; neighbor_id and value, lists of one length, the nearest first
    """
    lengths = pc.list_value_length(table[NEIGHBOR_ID]).to_numpy().astype(np.int64)
    ids, (users, columns) = ranks_of_ids(_flat(table[USER_ID]), _flat(table[NEIGHBOR_ID]))
    if len(users) and np.bincount(users).max() > 1:
        twice = ids[int(np.bincount(users).argmax())].as_py()
        raise InputError(
            f"neighbors: the user {twice!r} has more than one list. Keep one of them, or give a row per neighbor."
        )
    order = np.argsort(users)
    starts = np.cumsum(lengths) - lengths
    lengths, users = lengths[order], users[order]
    pairs = ranges(starts[order], lengths)
    return Numbered(
        ids=ids.to_numpy(zero_copy_only=False),
        rows=np.repeat(users, lengths),
        columns=columns[pairs],
        values=_flat(table[_VALUE]).to_numpy()[pairs],
        value=value,
    )


def _require_room(lists: DataFrame, padded: bool) -> None:
    """Raise ClusterError where the lists would take more memory on the driver than is free there."""
    # A user is at place 0, and its neighbors are at places 1, 2, ...
    ids = F.concat(F.array(USER_ID), F.col(f"{NEIGHBORS}.{NEIGHBOR_ID}"))
    each = lists.select(F.posexplode(ids).alias(_PLACE, _ID))
    varies = isinstance(each.schema[_ID].dataType, T.StringType | T.BinaryType)
    users, places, longest, distinct, width = each.agg(
        F.count_if(F.col(_PLACE) == 0),
        F.count("*"),
        F.max(_PLACE),
        F.approx_count_distinct(_ID),
        F.avg(F.octet_length(_ID) + _OFFSET if varies else F.lit(_FIXED)),
    ).collect()[0]
    if not users:
        return
    cells = max(users, distinct) * (longest + 1) if padded else 4 * places
    needed = places * (2 * width + _PAIR) + cells * _CELL
    free = bytes_free()
    if 0 < free < needed:
        raise ClusterError(
            f"neighbors: {users:,} users with {places - users:,} neighbors take {needed / 1e9:,.1f} GB on the driver, "
            f"where {free / 1e9:,.1f} GB are free; nothing was collected. Take a smaller k or fewer users, run on a "
            "machine with more memory, or use to_edges, whose result stays on Spark."
        )


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Return a column, or the elements of a column of lists, as one array."""
    chunks = [chunk.flatten() if pa.types.is_list(chunk.type) else chunk for chunk in column.chunks]
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    kind = _WIDE.get(kind, kind)
    return pa.concat_arrays([chunk.cast(kind) for chunk in chunks]) if chunks else pa.array([], kind)
