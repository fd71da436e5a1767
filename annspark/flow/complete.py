"""Complete: fill the lists of users that the forest compared with fewer than k others, in time bounded by the rows.

Most such users are sparse rows that share columns with few other rows.  Under cosine, jaccard and the inner product all
rows that share no column with a user are equally far from it, so that the ones with the smallest ids fill its list.
Under euclidean the shortest of these rows are the nearest.  Either way a few hundred first rows are enough for every
user.
"""

from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.core.coordinates import Coordinates
from annspark.core.exact import search_exactly
from annspark.core.exact_sparse import search_related
from annspark.core.excluded import Excluded
from annspark.core.first_rows import expected_products
from annspark.core.nearest_lists import empty_lists
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, is_sparse, len_of, slice_rows, take_rows
from annspark.flow.exact import find_rows
from annspark.flow.first_rows import compare_with_first_rows, pick_first_rows
from annspark.flow.read import Users
from annspark.output.layout import Layout, lists_in
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, numbers, to_binary, to_lists
from annspark.spark.block import block_lengths, candidate_schema, id_type, seeded_hash
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import COUNTS, DISTANCES, GROUPS, HASHES, IDS, NEIGHBOR_ID, NEIGHBOR_IDS, PARTITION_KEY, USER_ID

_AT_ONCE_BYTES = 64 << 20  # vectors of query users in one closure
_PAIRS = 10**10  # most pairs of dense vectors to compare: a minute on two cores
_PRODUCTS = 2 * 10**9  # most multiplications of numbers of sparse rows: likewise
_COLLECTED = 2_000_000  # most ids and hashes on the driver
_SEARCHED = 2_000  # so many users are compared with all rows at any cost, as the audit and the calibration do


def find_short(table: DataFrame, layout: Layout, users: Users, most: int, count: int, seed: int) -> pa.Table | None:
    """Return the users that have fewer than `most` neighbors: user_id, hashes (int64); None where they are too many.

    Users of small groups are left out, as they have been compared with all of their group.

    count : number of these users
    """
    if count > _COLLECTED:
        return None
    user_id = F.col(USER_ID).cast(id_type(users.table))
    full = lists_in(table, layout).where(F.size(NEIGHBOR_ID) >= most).select(user_id.alias(USER_ID))
    # Taken from the input, because a long table has no row for a user without neighbors.
    some = users.table if users.groups is None else _of_large_groups(users, np.array(sorted(users.groups.large)))
    short = some.select(F.explode(IDS).alias(USER_ID)).join(full, USER_ID, "left_anti")
    return collect(short.select(USER_ID, seeded_hash(F.col(USER_ID), seed).alias(HASHES)))


def _of_large_groups(users: Users, large: np.ndarray) -> DataFrame:
    """Return the ids of the users of large groups: ids (array)."""

    def pick(batches: Batches) -> Batches:
        for batch in batches:
            row = np.flatnonzero(np.isin(numbers(batch.column(1), np.int64), large))
            ids = elements(batch.column(0)).take(pa.array(row))
            yield pa.RecordBatch.from_arrays([to_lists(ids, np.array([len(row)]))], [IDS])

    return users.table.select(IDS, GROUPS).mapInArrow(pick, users.table.select(IDS).schema)


def find_more(
    users: Users, asking: Users, short: pa.Table | None, routed: Vectors, n_merge_partitions: int, k: int, *, own: bool
) -> DataFrame:
    """Return neighbors for those who ask and have fewer than they can have, as candidates for the merge.

    Dense ones are compared with all users where that is affordable, else with the first rows.  Sparse ones are
    compared with the first rows, for their unrelated neighbors, and where that is affordable also with all rows that
    share a column with them.  There are enough first rows to fill every list.

    users              : those that may be neighbors
    asking             : those who ask: users, or queries of another table
    short              : user_id, hashes; None where they are too many: then all who ask are compared with the first
                         rows, which makes no list worse
    routed             : sampled vectors of those who ask
    n_merge_partitions : number of partitions of the merge
    own                : leave out the user with the id of the one who asks
    returns            : partition_key, ids, neighbor_ids, distances, counts
    """
    if short is None:
        return _find_first(users, asking, None, n_merge_partitions, k, own)
    if users.wire.sparse:
        products = expected_products(routed, users.rows, len(short))
        affordable = 4 * asking.width * len(short) <= _AT_ONCE_BYTES and products <= _PRODUCTS
    else:
        affordable = users.rows * len(short) <= _PAIRS
    nearest = None
    if affordable or len(short) <= _SEARCHED:
        nearest = search_all_users(users, asking, short, n_merge_partitions, k, own=own)
        if not users.wire.sparse:
            return nearest
    first = _find_first(users, asking, short[HASHES].to_numpy(), n_merge_partitions, k, own)
    return first if nearest is None else nearest.unionByName(first)


def _find_first(
    users: Users, asking: Users, hashes: np.ndarray | None, n_merge_partitions: int, k: int, own: bool
) -> DataFrame:
    """Return the nearest of the first rows for those with the given hashes, or for all."""
    first_rows, neighbor = pick_first_rows(users, k + asking.spare), id_type(users.table)
    assert first_rows is not None  # users of small groups are not short
    return compare_with_first_rows(asking, first_rows, hashes, n_merge_partitions, k, neighbor=neighbor, own=own)


def search_all_users(
    users: Users, asking: Users, short: pa.Table, n_merge_partitions: int, k: int, *, own: bool
) -> DataFrame:
    """Compare some with all users, or sparse ones with all that share a column with them; return the k nearest.

    users              : those that may be neighbors
    short              : those who ask, of `asking`, at least one: user_id, hashes
    n_merge_partitions : number of partitions of the merge
    returns            : partition_key, ids, neighbor_ids, distances, counts
    """
    schema = candidate_schema(id_type(asking.table), id_type(users.table))
    hashes, vectors, excluded = find_rows(asking, short[HASHES].to_numpy())
    row = np.searchsorted(hashes, short[HASHES].to_numpy())
    ids, vectors = short[USER_ID].combine_chunks(), users.coordinates.for_join(take_rows(vectors, row))
    excluded = excluded.take(row) if excluded else None
    step = max(1, int(_AT_ONCE_BYTES / (4 * asking.width)))
    keys = partition_keys(n_merge_partitions)
    blocks = users.table.select(IDS, HASHES, *users.wire.names)
    nearest = []
    for start in range(0, len(ids), step):
        some = slice_rows(vectors, start, start + step)
        slot = slot_of(short[HASHES].to_numpy()[start : start + step], n_merge_partitions)
        query_ids, named = ids[start : start + step], np.arange(start, start + len_of(some))
        mapper = _nearest_lists_mapper(
            query_ids,
            some,
            keys[slot],
            users.wire,
            users.coordinates,
            k,
            own,
            excluded.take(named) if excluded else None,
        )
        nearest.append(blocks.mapInArrow(mapper, schema))
    return reduce(DataFrame.unionByName, nearest)


def _nearest_lists_mapper(
    query_ids: pa.Array,
    queries: Vectors,
    keys: np.ndarray,
    wire: Wire,
    coordinates: Coordinates,
    k: int,
    own: bool,
    excluded: Excluded | None,
) -> Mapper:
    """Return the function that yields the k nearest rows of a partition for every query.

    query_ids : of the n queries
    keys      : int32 (n,), the targets of their lists
    """

    def search(batches: Batches) -> Batches:
        blocks = gathered(batches)
        if blocks is None:
            return
        # Rows are sorted by id, so that ties go by id.
        ids = elements(blocks[IDS])
        order = pc.sort_indices(ids).to_numpy()
        vectors = take_rows(wire.read(blocks), order)
        ids = ids.take(pa.array(order))
        vectors, numbered = coordinates.for_join(vectors), np.arange(len_of(vectors))
        pairs = excluded.among(numbers(blocks[HASHES], np.int64)[order]) if excluded else None
        # float32 as in the join, so that a pair has the same distance wherever it is compared.
        # k + 1, because a query may itself be a row of the partition.
        best = empty_lists(len_of(queries), k + 1, np.float32)
        if is_sparse(queries):
            best = search_related(queries, vectors, numbered, best, coordinates.metric, pairs)
        else:
            best = search_exactly(queries, vectors, numbered, best, coordinates.metric, pairs)
        distances = coordinates.in_input_units(best.distances)
        is_neighbor = np.isfinite(distances)
        if own:
            place = pc.fill_null(pc.index_in(query_ids, ids), -1).to_numpy()
            is_neighbor &= best.hashes != place[:, None]
        is_neighbor &= np.cumsum(is_neighbor, axis=1) <= k
        by_key = np.argsort(keys, kind="stable")
        counts = is_neighbor.sum(axis=1).astype(np.int32)[by_key]
        first, lengths = block_lengths(keys[by_key], 12 * (k + 1))
        per_block = np.add.reduceat(counts, first)
        is_neighbor = is_neighbor[by_key]
        columns = [
            pa.array(keys[by_key][first]),
            to_lists(query_ids.take(pa.array(by_key)), lengths),
            to_lists(ids.take(pa.array(best.hashes[by_key][is_neighbor])), per_block),
            to_binary(distances[by_key][is_neighbor], per_block),
            to_binary(counts, lengths),
        ]
        yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS])

    return search
