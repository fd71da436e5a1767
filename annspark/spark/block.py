"""Blocks: several users in one row of a table, because much of Spark's cost is per row.

Caching, shuffling or handing a row to Python costs Spark some 5 microseconds each time.  With one user to a row that is
as much as joining the user.  A block holds about 4 KB, so that a batch of Spark, 10,000 rows, stays near 40 MB whatever
the size of a vector.
"""

from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import are_in, distinct, order_of
from annspark.core.excluded import Excluded
from annspark.core.vectors import Vectors, in_kind, narrowed, slice_rows, take_rows
from annspark.spark.arrow import (
    OUT_ROWS,
    Batches,
    Mapper,
    collect,
    elements,
    numbers,
    to_binary,
    to_lists,
)
from annspark.spark.wire import Wire, row_bytes
from annspark.tables import (
    COUNTS,
    DISTANCES,
    EXCLUDED,
    HASHES,
    IDS,
    LOWEST,
    N_EXCLUDED,
    NEIGHBOR_IDS,
    PARTITION_KEY,
    USER_ID,
)

_BLOCK_BYTES = 4096
_FEW = 0.1  # share of the users: a block holds some 15 of 64 numbers, so where more are wanted, most blocks hold one
_MOST_HELD = 20_000  # blocks, whose names are in the plan: 400 KB
_HELD = "held"


def id_type(blocks: DataFrame, column: str = IDS) -> T.DataType:
    """Return the type of the ids in blocks."""
    return cast(T.ArrayType, blocks.schema[column].dataType).elementType


def block_fields(user: T.DataType, wire: Wire) -> list[T.StructField]:
    """Return the columns of staged blocks of users with ids of the given type."""
    return [
        T.StructField(IDS, T.ArrayType(user)),
        T.StructField(HASHES, T.BinaryType()),
        *wire.fields,
        T.StructField(LOWEST, T.LongType()),
    ]


def candidate_schema(user: T.DataType, neighbor: T.DataType | None = None) -> T.StructType:
    """Return the columns of candidates: partition_key (of the merge), ids, neighbor_ids, distances, counts.

    user     : type of the ids
    neighbor : type of the neighbors' ids, where they are of another table
    """
    return T.StructType(
        [
            T.StructField(PARTITION_KEY, T.IntegerType()),
            T.StructField(IDS, T.ArrayType(user)),
            T.StructField(NEIGHBOR_IDS, T.ArrayType(neighbor or user)),
            *(T.StructField(name, T.BinaryType()) for name in (DISTANCES, COUNTS)),
        ]
    )


def seeded_hash(user_id: Column, seed: int) -> Column:
    """Return the hash of an id: int64.  It decides which samples a user is in and which partition merges its lists."""
    return F.xxhash64(user_id, F.lit(str(seed)))


def block_lengths(group: np.ndarray, row_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows into blocks of about 4 KB, each with rows of a single group.

    group     : int (n,), the group of each row; the rows of a group are next to each other
    row_bytes : mean size of a row
    returns   : int (n_blocks,), the first row of each block; int (n_blocks,), the number of its rows
    """
    size = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    begins = np.flatnonzero(np.diff(group, prepend=-1) != 0) if len(group) else np.empty(0, np.int64)
    place = np.arange(len(group)) - np.repeat(begins, np.diff(np.append(begins, len(group))))
    first = np.flatnonzero(place % size == 0)
    return first, np.diff(np.append(first, len(group)))


def block_numbers(target: np.ndarray, keys: np.ndarray, *numbers_of_rows: np.ndarray) -> list[pa.Array]:
    """Return numbers of rows in blocks, each with rows of a single target: its key, and a binary column for each array.

    target : int (n,), which of the keys each row goes to
    keys   : int32, partition_key of each target
    """
    order = order_of(target, len(keys))
    first, lengths = block_lengths(target[order], sum(part.itemsize for part in numbers_of_rows))
    return [pa.array(keys[target[order][first]]), *(to_binary(part[order], lengths) for part in numbers_of_rows)]


def block_users(
    ids: pa.Array, hashes: np.ndarray, vectors: Vectors, wire: Wire, excluded: Excluded | None = None
) -> list[pa.Array]:
    """Return users in blocks, as the columns of block_fields, and those of excluded_fields where pairs are excluded.

    They are in the order of their hashes, so that the users of a sample, which have the smallest, are in few blocks.
    """
    order = np.argsort(hashes, kind="stable")
    some = excluded.take(order) if excluded else None
    return block_in_order(ids.take(pa.array(order)), hashes[order], take_rows(vectors, order), wire, some)


def block_in_order(
    ids: pa.Array, hashes: np.ndarray, vectors: Vectors, wire: Wire, excluded: Excluded | None = None
) -> list[pa.Array]:
    """Return users in blocks, as block_users does; they are given in the order of their hashes."""
    first, lengths = block_lengths(np.zeros(len(ids), np.int8), row_bytes(vectors) + excluded_bytes(excluded))
    return [
        to_lists(ids, lengths),
        to_binary(hashes, lengths),
        *wire.write(vectors, lengths),
        pa.array(hashes[first]),
        *(write_excluded(excluded, lengths) if excluded else []),
    ]


def rows_of(hashes: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return how many users each block has, from its column of hashes: int (n_blocks,)."""
    return pc.binary_length(hashes).to_numpy() // 8


def blocks_holding(blocks: DataFrame, wanted: np.ndarray, rows: int) -> DataFrame:
    """Return the blocks that hold users with some hashes, and perhaps others; all where many users are wanted.

    Where few are wanted, most vectors do not have to be handed to Python.

    blocks : with lowest
    wanted : int64 (n,), ascending
    rows   : of all blocks
    """
    if len(wanted) == 0 or len(wanted) > min(_FEW * rows, _MOST_HELD):
        return blocks

    def find(batches: Batches) -> Batches:
        for batch in batches:
            block = np.repeat(np.arange(batch.num_rows), rows_of(batch.column(0)))
            holding = distinct(block[are_in(numbers(batch.column(0), np.int64), wanted)])
            yield pa.RecordBatch.from_arrays([batch.column(1).take(pa.array(holding))], [_HELD])

    # Collected, and not broadcast by Spark itself, which gives up after five minutes of computing.
    held = collect(blocks.select(HASHES, LOWEST).mapInArrow(find, f"{_HELD} long"))[_HELD].to_pylist()
    if not held:  # Spark would drop the plan of a table that it knows to be empty
        return blocks
    # As text: Spark makes a table of Python's numbers in Python workers that it starts for that, in two core-seconds.
    numbers_held = F.split(F.lit(",".join(map(str, held))), ",").cast("array<bigint>")
    named = blocks.sparkSession.range(1).select(F.explode(numbers_held).alias(_HELD))
    return blocks.join(F.broadcast(named), F.col(LOWEST) == F.col(_HELD), "left_semi")


def excluded_fields(blocks: DataFrame) -> list[T.StructField]:
    """Return the columns of excluded pairs that blocks have: two, or none where no pairs are excluded."""
    return [field for field in blocks.schema.fields if field.name in (EXCLUDED, N_EXCLUDED)]


def read_excluded(blocks: pa.RecordBatch | pa.Table) -> Excluded | None:
    """Return what the users of blocks exclude; None where the blocks have no columns for it."""
    if EXCLUDED not in blocks.schema.names:
        return None
    return Excluded(numbers(blocks[N_EXCLUDED], np.int32), numbers(blocks[EXCLUDED], np.int64))


def write_excluded(excluded: Excluded, lengths: np.ndarray) -> list[pa.Array]:
    """Pack what users exclude into the columns of excluded_fields, lengths[i] users into block i."""
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(excluded.counts, dtype=np.int64)])
    per_block = np.diff(ends[np.cumsum(lengths)], prepend=0)
    return [to_binary(excluded.hashes, per_block), to_binary(excluded.counts, lengths)]


def excluded_bytes(excluded: Excluded | None) -> int:
    """Return about how many bytes a user's excluded pairs take in a block."""
    return 0 if excluded is None else 4 + 8 * (len(excluded.hashes) // max(1, len(excluded.counts)))


def block_lists(
    slot: np.ndarray,
    keys: np.ndarray,
    ids: pa.Array,
    users: np.ndarray,
    neighbors: np.ndarray,
    distances: np.ndarray,
    neighbor_ids: pa.Array | None = None,
) -> list[pa.Array]:
    """Return users' lists in blocks: partition_key, ids, neighbor_ids, distances, counts.

    slot         : int (n,), the slot of each list's partition; lists of one slot are next to each other
    keys         : int32 (n_slots,), the target of each slot
    ids          : of all users and neighbors
    users        : int (n,), places in ids
    neighbors    : int (n, k), places in neighbor_ids, nearest first; -1 for none
    distances    : float32 (n, k)
    neighbor_ids : of all neighbors; None where ids are
    """
    neighbor_ids = ids if neighbor_ids is None else neighbor_ids
    exists = neighbors >= 0
    counts = exists.sum(axis=1, dtype=np.int32)
    first, lengths = block_lengths(slot, neighbors.shape[1] * 12)
    per_block = np.add.reduceat(counts, first)
    return [
        pa.array(keys[slot[first]]),
        to_lists(ids.take(pa.array(users)), lengths),
        to_lists(neighbor_ids.take(pa.array(neighbors[exists])), per_block),
        to_binary(distances[exists], per_block),
        to_binary(counts, lengths),
    ]


def unblocked(blocks: DataFrame, wire: Wire) -> DataFrame:
    """Return blocks of users as one row per user: user_id, hashes (binary, of one) and the columns of its vector.

    Vectors are float64 whatever type the block has, so that equal vectors have equal bytes.
    """
    schema = T.StructType(
        [T.StructField(USER_ID, id_type(blocks)), T.StructField(HASHES, T.BinaryType()), *wire.fields]
    )
    return blocks.select(IDS, HASHES, *wire.names).mapInArrow(_unblock_mapper(wire), schema)


def blocked(rows: DataFrame, wire: Wire) -> DataFrame:
    """Return the rows of unblocked as blocks again."""
    schema = T.StructType(block_fields(rows.schema[USER_ID].dataType, wire))
    return rows.select(USER_ID, HASHES, *wire.names).mapInArrow(_block_mapper(wire), schema)


def _unblock_mapper(wire: Wire) -> Mapper:
    def unblock(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes = elements(batch.column(0)), numbers(batch.column(1), np.int64)
            vectors = in_kind(wire.read(batch), np.float64)
            for start in range(0, len(ids), OUT_ROWS):
                end = min(start + OUT_ROWS, len(ids))
                lengths = np.ones(end - start, np.int64)
                rows = wire.write(slice_rows(vectors, start, end), lengths)
                columns = [ids[start:end], to_binary(hashes[start:end], lengths), *rows]
                yield pa.RecordBatch.from_arrays(columns, [USER_ID, HASHES, *wire.names])

    return unblock


def _block_mapper(wire: Wire) -> Mapper:
    def block(batches: Batches) -> Batches:
        for batch in batches:
            vectors = narrowed(wire.read(batch))
            columns = block_users(batch.column(0), numbers(batch.column(1), np.int64), vectors, wire)
            yield pa.RecordBatch.from_arrays(columns, [IDS, HASHES, *wire.names, LOWEST])

    return block
