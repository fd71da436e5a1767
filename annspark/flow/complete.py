"""Widen: neighbors from everywhere for those who met fewer others than they want, in time bounded by the rows.

Most such users are sparse rows that share their columns with few.  All that share nothing with them are equally far, so
that beside those they share something with they need the first of all by id, and no more.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.core.coordinates import Coordinates
from annspark.core.exact import search_exactly
from annspark.core.exact_sparse import search_related
from annspark.core.first_rows import expected_products
from annspark.core.nearest_lists import empty_lists
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, is_sparse, len_of, slice_rows, take_rows
from annspark.flow.exact import vectors_of
from annspark.flow.few import list_schema, meet_few, pick_few
from annspark.flow.read import Users
from annspark.output.layout import Layout, lists_in
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, to_binary, to_lists
from annspark.spark.block import block_lengths, id_type, seeded_hash
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import COUNTS, DISTANCES, HASHES, IDS, NEIGHBOR_ID, NEIGHBOR_IDS, TARGET, USER_ID

_AT_ONCE_BYTES = 64 << 20  # vectors of searching users that travel in one closure
_PAIRS = 10**10  # of dense vectors compared at most: a minute of two cores
_PRODUCTS = 2 * 10**9  # of numbers of sparse rows multiplied at most, likewise
_COLLECTED = 2_000_000  # ids and hashes on the driver at most
_SEARCHED = 2_000  # users who may search everybody in any case: as many as the audit and the calibration let


def find_short(table: DataFrame, layout: Layout, users: Users, most: int, count: int, seed: int) -> pa.Table | None:
    """Return the users who have fewer than most neighbors: user_id, hashes (int64); None where they are too many.

    count : how many there are
    """
    if count > _COLLECTED:
        return None
    user_id = F.col(USER_ID).cast(id_type(users.table))
    served = lists_in(table, layout).where(F.size(NEIGHBOR_ID) >= most).select(user_id.alias(USER_ID))
    # The long shape has no row of those who have no neighbor.
    few = users.table.select(F.explode(IDS).alias(USER_ID)).join(served, USER_ID, "left_anti")
    return collect(few.select(USER_ID, seeded_hash(F.col(USER_ID), seed).alias(HASHES)))


def find_more(users: Users, short: pa.Table | None, shown: Vectors, merge_in: int, k: int) -> DataFrame:
    """Return neighbors from everywhere for the users who are short of some, as candidates to be merged.

    As long as that can be paid for, the nearest of everybody.  Beyond that, and of what sparse rows share nothing with,
    the nearest of some first ones, who are enough to fill every list.

    short    : user_id, hashes; None for so many that everybody is looked at, which takes nothing from anybody
    shown    : sampled vectors
    merge_in : partitions the lists will be merged in
    returns  : target, ids, neighbor_ids, distances, counts
    """
    if short is None:
        return meet_few(users, pick_few(users, k), None, merge_in, k)
    if users.wire.sparse:
        products = expected_products(shown, users.rows, len(short))
        affordable = 4 * users.width * len(short) <= _AT_ONCE_BYTES and products <= _PRODUCTS
    else:
        affordable = users.rows * len(short) <= _PAIRS
    found = search_everybody(users, short, merge_in, k) if affordable or len(short) <= _SEARCHED else None
    if found is not None and not users.wire.sparse:
        return found
    first = meet_few(users, pick_few(users, k), short[HASHES].to_numpy(), merge_in, k)
    return first if found is None else found.unionByName(first)


def search_everybody(users: Users, short: pa.Table, merge_in: int, k: int) -> DataFrame:
    """Return the nearest of everybody, of sparse rows of those they share something with, for some users.

    short    : user_id, hashes
    merge_in : partitions the lists will be merged in
    returns  : target, ids, neighbor_ids, distances, counts
    """
    schema = list_schema(users)
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
        searcher = _searcher(ids[start : start + step], some, keys[slot], users.wire, users.coordinates, k)
        part = blocks.mapInArrow(searcher, schema)
        found = part if found is None else found.unionByName(part)
    if found is None:
        raise ValueError("search_everybody: nobody is short")
    return found


def _searcher(
    ids: pa.Array, queries: Vectors, keys: np.ndarray, wire: Wire, coordinates: Coordinates, k: int
) -> Mapper:
    def search(batches: Batches) -> Batches:
        blocks = gathered(batches)
        if blocks is None:
            return
        # In the order of ids, so that ties go by them.
        here = elements(blocks[IDS])
        order = pc.sort_indices(here).to_numpy()
        vectors = take_rows(wire.read(blocks), order)
        here = here.take(pa.array(order))
        vectors, numbered = coordinates.joined(vectors), np.arange(len_of(vectors))
        # As the join has them, so that a pair has one distance wherever it was met.  One more than wanted: oneself.
        best = empty_lists(len_of(queries), k + 1, np.float32)
        if is_sparse(queries):
            best = search_related(queries, vectors, numbered, best, coordinates.metric)
        else:
            best = search_exactly(queries, vectors, numbered, best, coordinates.metric)
        distances = coordinates.published(best.distances)
        own = pc.fill_null(pc.index_in(ids, here), -1).to_numpy()
        met = np.isfinite(distances) & (best.hashes != own[:, None])
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
