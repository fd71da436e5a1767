"""Merge: each user's k nearest among the candidates of all partitions, each neighbor once."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import order_of
from annspark.core.packing import EMPTY, merge_lists, pack, unpack
from annspark.core.sampling import slot_of
from annspark.flow.read import Users
from annspark.output.layout import Layout, lists_in
from annspark.spark.arrow import (
    OUT_ROWS,
    Batches,
    Mapper,
    elements,
    gathered,
    numbers,
    ranks_of_ids,
    to_binary,
    to_lists,
)
from annspark.spark.block import block_lengths, candidate_schema, id_type, seeded_hash
from annspark.spark.cluster import partition_keys
from annspark.tables import (
    COUNTS,
    DISTANCE,
    DISTANCES,
    HASHES,
    IDS,
    NEIGHBOR_ID,
    NEIGHBOR_IDS,
    NEIGHBORS,
    PARTITION_KEY,
    USER_ID,
)


def merge_neighbors(candidates: Sequence[DataFrame], n_partitions: int, k: int) -> DataFrame:
    """Return one row per user, with the k nearest of its candidates.

    candidates : tables of partition_key, ids, neighbor_ids, distances, counts; every list is ordered by (distance,
                 neighbor_id)
    returns    : user_id, neighbors array<struct<neighbor_id, distance>>, ordered by (distance, neighbor_id)
    """
    lists = [table.select(PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS) for table in candidates]
    user, neighbor_id = id_type(lists[0]), id_type(lists[0], NEIGHBOR_IDS)
    neighbor = T.StructType([T.StructField(NEIGHBOR_ID, neighbor_id), T.StructField(DISTANCE, T.FloatType())])
    schema = T.StructType([T.StructField(USER_ID, user), T.StructField(NEIGHBORS, T.ArrayType(neighbor))])
    by_user = reduce(DataFrame.unionByName, lists).repartition(n_partitions, PARTITION_KEY)
    return by_user.mapInArrow(_merge_mapper(k), schema)


def table_as_candidates(
    table: DataFrame, layout: Layout, users: Users, n_partitions: int, seed: int, neighbor: T.DataType | None = None
) -> DataFrame:
    """Return a finished table as candidates for a merge with more candidates.

    n_partitions : number of partitions of the merge
    neighbor     : type of the neighbors' ids, where they are of another table
    returns      : partition_key, ids, neighbor_ids, distances, counts
    """
    user = id_type(users.table)
    user_id = F.col(USER_ID).cast(user)
    lists = lists_in(table, layout).select(
        user_id.alias(USER_ID),
        seeded_hash(user_id, seed).alias(HASHES),
        F.col(NEIGHBOR_ID).cast(T.ArrayType(neighbor or user)),
        F.col(DISTANCE).cast("array<float>"),
    )
    return lists.mapInArrow(_candidates_mapper(partition_keys(n_partitions)), candidate_schema(user, neighbor))


def _candidates_mapper(keys: np.ndarray) -> Mapper:
    def block(batches: Batches) -> Batches:
        for batch in batches:
            if batch.num_rows == 0:
                continue
            slot = slot_of(batch.column(1).to_numpy(), len(keys))
            order = order_of(slot, len(keys))
            taken = batch.take(pa.array(order))
            counts = pc.list_value_length(taken.column(2)).to_numpy().astype(np.int32)
            first, lengths = block_lengths(slot[order], 12 * (1 + int(counts.mean())))
            per_block = np.add.reduceat(counts, first)
            distances = taken.column(3).flatten().to_numpy().astype(np.float32)
            columns = [
                pa.array(keys[slot[order][first]]),
                to_lists(taken.column(0), lengths),
                to_lists(taken.column(2).flatten(), per_block),
                to_binary(distances, per_block),
                to_binary(counts, lengths),
            ]
            yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS])

    return block


def merge_candidates(
    ids: pa.Array, neighbor_ids: pa.Array, counts: np.ndarray, distances: np.ndarray, k: int
) -> tuple[pa.Array, pa.Array, np.ndarray]:
    """Merge the lists of every user.

    ids          : (n_lists,), the user of each list
    neighbor_ids : of all lists, one list after the other
    counts       : int (n_lists,), lengths of the lists, at most k
    distances    : float32, of neighbor_ids
    returns      : the n distinct users; the distinct neighbors in ascending order; uint64 (n, k), the users' k nearest,
                   each a distance and a place among the neighbors in one number, see pack
    """
    encoded = pc.dictionary_encode(ids)
    neighbors, (neighbor,) = ranks_of_ids(neighbor_ids)
    keys = np.full((len(counts), k), EMPTY)
    keys[np.arange(k) < counts[:, None]] = pack(distances, neighbor)
    owners, best = merge_lists(encoded.indices.to_numpy(), keys, k)
    return encoded.dictionary.take(pa.array(owners)), neighbors, best


def _merge_mapper(k: int) -> Mapper:
    def merge(batches: Batches) -> Batches:
        lists = gathered(batches)
        if lists is None:
            return
        ids, neighbor_ids = elements(lists[IDS]), elements(lists[NEIGHBOR_IDS])
        counts, distances = numbers(lists[COUNTS], np.int32), numbers(lists[DISTANCES], np.float32)
        del lists
        # Most users have one list, which needs no merge.  Only the others are merged, because numbering ids takes half
        # of the time of a merge.
        user = pc.dictionary_encode(ids).indices.to_numpy()
        alone = np.bincount(user).take(user) == 1
        others, merged = _merged(ids, neighbor_ids, counts, distances, ~alone, k)
        users = pa.concat_arrays([ids.filter(pa.array(alone)), others])
        neighbors = pa.concat_arrays([to_lists(_pairs(neighbor_ids, distances), counts), merged])
        row = np.concatenate([np.flatnonzero(alone), len(ids) + np.arange(len(others))])
        order = pc.sort_indices(users).to_numpy()
        for start in range(0, len(order), OUT_ROWS):
            part = order[start : start + OUT_ROWS]
            columns = [users.take(pa.array(part)), neighbors.take(pa.array(row[part]))]
            yield pa.RecordBatch.from_arrays(columns, [USER_ID, NEIGHBORS])

    return merge


def _merged(
    ids: pa.Array, neighbor_ids: pa.Array, counts: np.ndarray, distances: np.ndarray, which: np.ndarray, k: int
) -> tuple[pa.Array, pa.Array]:
    """Merge some of the lists, and return their users and the neighbors of these.

    which : bool (n_lists,)
    """
    members = np.repeat(which, counts)
    chosen = ids.filter(pa.array(which)), neighbor_ids.filter(pa.array(members))
    users, neighbors, best = merge_candidates(*chosen, counts[which], distances[members], k)
    nearest, ranks = unpack(best)
    exists = ranks >= 0
    return users, to_lists(_pairs(neighbors.take(pa.array(ranks[exists])), nearest[exists]), exists.sum(axis=1))


def _pairs(neighbor_ids: pa.Array, distances: np.ndarray) -> pa.Array:
    return pa.StructArray.from_arrays([neighbor_ids, pa.array(distances)], [NEIGHBOR_ID, DISTANCE])
