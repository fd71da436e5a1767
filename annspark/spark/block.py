"""Blocks: users travel some to a row, because Spark's cost is by the row.

A row of a block costs Spark some 5 microseconds wherever it is cached, shuffled or handed to Python: as much as joining
it costs.  A block holds about 4 KB, so that a batch of Spark's 10,000 rows stays near 40 MB whatever its users are.
"""

from typing import cast

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.vectors import Vectors, in_kind, narrowed, slice_rows, take_rows
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, elements, numbers, to_binary, to_lists
from annspark.spark.wire import Wire, row_bytes
from annspark.tables import HASHES, IDS, LOWEST, USER_ID

_BLOCK_BYTES = 4096


def id_type(blocks: DataFrame) -> T.DataType:
    """Return the type of the ids in blocks."""
    return cast(T.ArrayType, blocks.schema[IDS].dataType).elementType


def block_fields(user: T.DataType, wire: Wire) -> list[T.StructField]:
    """Return the columns of staged blocks of users whose ids have that type."""
    return [
        T.StructField(IDS, T.ArrayType(user)),
        T.StructField(HASHES, T.BinaryType()),
        *wire.fields,
        T.StructField(LOWEST, T.LongType()),
    ]


def seeded_hash(user_id: Column, seed: int) -> Column:
    """Return the hash that decides what samples a user is in and where its lists are merged: int64."""
    return F.xxhash64(user_id, F.lit(str(seed)))


def block_lengths(group: np.ndarray, row_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut rows into blocks of one group each.

    group     : int (n,), ascending or at least all of a group together
    row_bytes : about how many bytes a row brings
    returns   : int (n_blocks,), first row of each block and how many it has
    """
    size = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    begins = np.flatnonzero(np.diff(group, prepend=-1) != 0) if len(group) else np.empty(0, np.int64)
    place = np.arange(len(group)) - np.repeat(begins, np.diff(np.append(begins, len(group))))
    first = np.flatnonzero(place % size == 0)
    return first, np.diff(np.append(first, len(group)))


def block_users(ids: pa.Array, hashes: np.ndarray, vectors: Vectors, wire: Wire) -> list[pa.Array]:
    """Return the columns of block_fields of users in blocks, in order of their hashes: a draw finds few blocks."""
    order = np.argsort(hashes, kind="stable")
    hashes, vectors = hashes[order], take_rows(vectors, order)
    first, lengths = block_lengths(np.zeros(len(ids), np.int8), row_bytes(vectors))
    return [
        to_lists(ids.take(pa.array(order)), lengths),
        to_binary(hashes, lengths),
        *wire.write(vectors, lengths),
        pa.array(hashes[first]),
    ]


def block_lists(
    slot: np.ndarray, keys: np.ndarray, ids: pa.Array, users: np.ndarray, neighbors: np.ndarray, distances: np.ndarray
) -> list[pa.Array]:
    """Return users' lists in blocks: target, ids, neighbor_ids, distances, counts.

    slot      : int (n,), where each list goes, those of one slot together
    keys      : int32 (n_slots,), the targets
    ids       : of everybody
    users     : int (n,), places in ids
    neighbors : int (n, k), places in ids, nearest first; -1 for none
    distances : float32 (n, k)
    """
    met = neighbors >= 0
    counts = met.sum(axis=1, dtype=np.int32)
    first, lengths = block_lengths(slot, neighbors.shape[1] * 12)
    per_block = np.add.reduceat(counts, first)
    return [
        pa.array(keys[slot[first]]),
        to_lists(ids.take(pa.array(users)), lengths),
        to_lists(ids.take(pa.array(neighbors[met])), per_block),
        to_binary(distances[met], per_block),
        to_binary(counts, lengths),
    ]


def unblocked(blocks: DataFrame, wire: Wire) -> DataFrame:
    """Return blocks of users as a row per user: user_id, hash and the columns of its vector (binary, float64).

    In float64 whatever the block has them in: equal vectors have equal bytes.
    """
    schema = T.StructType(
        [T.StructField(USER_ID, id_type(blocks)), T.StructField(HASHES, T.BinaryType()), *wire.fields]
    )
    return blocks.select(IDS, HASHES, *wire.names).mapInArrow(_unblock_mapper(wire), schema)


def blocked(rows: DataFrame, wire: Wire) -> DataFrame:
    """Undo unblocked."""
    schema = T.StructType(block_fields(rows.schema[USER_ID].dataType, wire))
    return rows.select(USER_ID, HASHES, *wire.names).mapInArrow(_block_mapper(wire), schema)


def _unblock_mapper(wire: Wire) -> Mapper:
    def unblock(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes = elements(batch.column(0)), numbers(batch.column(1), np.int64)
            vectors = in_kind(wire.read(batch), np.float64)
            for start in range(0, len(ids), OUT_ROWS):
                end = min(start + OUT_ROWS, len(ids))
                one = np.ones(end - start, np.int64)
                rows = wire.write(slice_rows(vectors, start, end), one)
                columns = [ids[start:end], to_binary(hashes[start:end], one), *rows]
                yield pa.RecordBatch.from_arrays(columns, [USER_ID, HASHES, *wire.names])

    return unblock


def _block_mapper(wire: Wire) -> Mapper:
    def block(batches: Batches) -> Batches:
        for batch in batches:
            vectors = narrowed(wire.read(batch))
            columns = block_users(batch.column(0), numbers(batch.column(1), np.int64), vectors, wire)
            yield pa.RecordBatch.from_arrays(columns, [IDS, HASHES, *wire.names, LOWEST])

    return block
