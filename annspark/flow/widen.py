"""Widen: exact neighbors for those who met fewer others than they want, by letting them meet everybody."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.best import nobody_met
from annspark.core.coordinates import Coordinates
from annspark.core.draw import slot_of
from annspark.core.exact import meet
from annspark.core.rows import Vectors, concatenate_rows, len_of, slice_rows, take_rows
from annspark.flow.arrow import collect, elements, to_binary, to_lists
from annspark.flow.block import block_lengths, id_type, seeded_hash
from annspark.flow.cluster import partition_keys
from annspark.flow.exact import vectors_of
from annspark.flow.read import Users
from annspark.flow.shape import listed
from annspark.flow.wire import Wire
from annspark.tables import COUNTS, DISTANCES, HASHES, IDS, NEIGHBOR_ID, NEIGHBOR_IDS, TARGET, USER_ID

_AT_ONCE_BYTES = 64 << 20  # vectors of searching users that travel in one closure


def find_short(table: DataFrame, users: Users, most: int, settings: Settings) -> pa.Table:
    """Return the users who have fewer than most neighbors: user_id, hashes (int64)."""
    user_id = F.col(USER_ID).cast(id_type(users.table))
    served = listed(table, settings).where(F.size(NEIGHBOR_ID) >= most).select(user_id.alias(USER_ID))
    # The long shape has no row of those who have no neighbor.
    few = users.table.select(F.explode(IDS).alias(USER_ID)).join(served, USER_ID, "left_anti")
    return collect(few.select(USER_ID, seeded_hash(F.col(USER_ID), settings.seed).alias(HASHES)))


def search_everybody(users: Users, short: pa.Table, merge_in: int, settings: Settings) -> DataFrame:
    """Return the nearest of everybody for some users, as candidates to be merged.

    short    : user_id, hashes
    merge_in : partitions the lists will be merged in
    returns  : target, ids, neighbor_ids, distances, counts
    """
    user = id_type(users.table)
    schema = T.StructType(
        [
            T.StructField(TARGET, T.IntegerType()),
            T.StructField(IDS, T.ArrayType(user)),
            T.StructField(NEIGHBOR_IDS, T.ArrayType(user)),
            *(T.StructField(name, T.BinaryType()) for name in (DISTANCES, COUNTS)),
        ]
    )
    hashes, vectors = vectors_of(users, short[HASHES].to_numpy())
    row = np.searchsorted(hashes, short[HASHES].to_numpy())
    ids, vectors = short[USER_ID].combine_chunks(), users.coordinates.joined(take_rows(vectors, row))
    step = max(1, int(_AT_ONCE_BYTES / (4 * users.width)))
    keys = partition_keys(merge_in)
    blocks = users.table.select(IDS, HASHES, *users.wire.names)
    found = None
    for start in range(0, len(ids), step):
        some = slice_rows(vectors, start, start + step)
        slot = slot_of(short[HASHES].to_numpy()[start : start + step], merge_in)
        searcher = _searcher(ids[start : start + step], some, keys[slot], users.wire, users.coordinates, settings.k)
        part = blocks.mapInArrow(searcher, schema)
        found = part if found is None else found.unionByName(part)
    if found is None:
        raise ValueError("search_everybody: nobody is short")
    return found


def _searcher(
    ids: pa.Array, queries: Vectors, keys: np.ndarray, wire: Wire, coordinates: Coordinates, k: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        # In the order of ids, so that ties go by them.
        here = pa.concat_arrays([elements(batch.column(0)) for batch in received])
        order = pc.sort_indices(here).to_numpy()
        vectors = take_rows(concatenate_rows([wire.read(batch) for batch in received]), order)
        here = here.take(pa.array(order))
        # As the join has them, so that a pair has one distance wherever it was met.  One more than wanted: oneself.
        best = nobody_met(len_of(queries), k + 1, np.float32)
        best = meet(queries, coordinates.joined(vectors), np.arange(len_of(vectors)), best, coordinates.metric)
        distances = coordinates.published(best.distances)
        own = pc.fill_null(pc.index_in(ids, here), -1).to_numpy()
        met = np.isfinite(best.distances) & (best.hashes != own[:, None])
        met &= np.cumsum(met, axis=1) <= k
        by_key = np.argsort(keys, kind="stable")
        counts = met.sum(axis=1).astype(np.int32)[by_key]
        first, lengths = block_lengths(keys[by_key], 12 * (k + 1))
        per_block = np.add.reduceat(counts, first)
        met = met[by_key]
        columns = [
            pa.array(keys[by_key][first]),
            to_lists(ids.take(pa.array(by_key)), lengths),
            to_lists(here.take(pa.array(best.hashes[by_key][met])), per_block),
            to_binary(distances[by_key][met], per_block),
            to_binary(counts, lengths),
        ]
        yield pa.RecordBatch.from_arrays(columns, [TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS])

    return search
