"""Join: in every leaf of a partition, compare the vectors that are at home in it or probe it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.arrays import order_of
from annspark.core.coordinates import Coordinates
from annspark.core.join import Joined, join_leaves
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.sampling import slot_of
from annspark.core.vectors import take_rows
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, elements, gathered, numbers
from annspark.spark.block import block_lists, candidate_schema, id_type, read_excluded
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import (
    COUNTS,
    DISTANCES,
    HASHES,
    HOMES,
    IDS,
    MAX_ROWS,
    N_VISITS,
    NEIGHBOR_IDS,
    PAIRS,
    PARTITION_KEY,
    VISITS,
)


def join_partitions(
    shipped: DataFrame, plan: Plan, n_merge_partitions: int, wire: Wire, coordinates: Coordinates, k: int
) -> DataFrame:
    """Return, for every partition, the k nearest neighbors it found for each vector shipped to it, in blocks of lists.

    A resident is a vector whose home leaf is in the partition; a guest is one that only probes leaves of it.

    shipped            : as ship_vectors returns it
    n_merge_partitions : number of partitions of the merge
    returns            : partition_key (of the merge), ids, neighbor_ids (array, user after user, nearest first),
                         distances, counts, pairs, max_rows.  There is a list for every resident, and for every
                         guest with at least one neighbor.  pairs and max_rows of the partition are in its first row;
                         other rows have 0
    """
    keys = partition_keys(n_merge_partitions)
    by_partition = shipped.repartition(plan.n_partitions, PARTITION_KEY)
    mapper = _join_mapper(keys, plan.shared, wire, coordinates, k)
    return by_partition.mapInArrow(mapper, joined_schema(id_type(shipped)))


def joined_schema(user: T.DataType, neighbor: T.DataType | None = None) -> T.StructType:
    """Return the columns of a joined partition, see join_partitions; arguments are those of candidate_schema."""
    schema = T.StructType(candidate_schema(user, neighbor).fields)
    return schema.add(PAIRS, T.LongType()).add(MAX_ROWS, T.LongType())


def _join_mapper(keys: np.ndarray, shared: range, wire: Wire, coordinates: Coordinates, k: int) -> Mapper:
    def join(batches: Batches) -> Batches:
        # A leaf's vectors may arrive in any batch, so the whole partition is gathered first.  The plan makes
        # partitions that fit in memory.
        shipped = gathered(batches)
        if shipped is None:
            return
        ids = elements(shipped[IDS])
        order = pc.sort_indices(ids)
        by_id = order.to_numpy()
        ids = ids.take(order)
        hashes = numbers(shipped[HASHES], np.int64)[by_id]
        home = numbers(shipped[HOMES], np.int32)[by_id]
        place = np.empty(len(by_id), np.int32)
        place[by_id] = np.arange(len(by_id))
        visits = Visits(np.repeat(place, numbers(shipped[N_VISITS], np.int32)), numbers(shipped[VISITS], np.int32))
        vectors, excluded = take_rows(wire.read(shipped), by_id), read_excluded(shipped)
        del shipped
        pairs = excluded.take(by_id).among(hashes) if excluded else None
        joined = join_leaves(vectors, home, visits, k, coordinates.metric, pairs, shared)
        distances = coordinates.in_input_units(joined.distances)
        listed = np.flatnonzero((home >= 0) | (joined.neighbors[:, 0] >= 0))
        yield from joined_batches(replace(joined, distances=distances), listed, hashes, keys, ids)

    return join


def joined_batches(
    joined: Joined,
    listed: np.ndarray,
    hashes: np.ndarray,
    keys: np.ndarray,
    ids: pa.Array,
    neighbor_ids: pa.Array | None = None,
) -> Batches:
    """Yield the lists of a partition in blocks, in the columns of joined_schema.

    joined       : the lists, with distances in the units of the input
    listed       : int, which of them are yielded
    hashes       : int64 (n,), of the ids; they decide which partition merges a list
    keys         : int32, the targets of these partitions
    ids          : whose lists they are
    neighbor_ids : of the rows that are neighbors; None where these are ids
    """
    slot = slot_of(hashes, len(keys))
    listed = listed[order_of(slot[listed], len(keys))]
    for start in range(0, len(listed), OUT_ROWS):
        rows = listed[start : start + OUT_ROWS]
        lists = block_lists(slot[rows], keys, ids, rows, joined.neighbors[rows], joined.distances[rows], neighbor_ids)
        is_first = np.zeros(len(lists[0]), np.int64)
        is_first[0] = start == 0
        columns = [*lists, pa.array(is_first * joined.pairs), pa.array(is_first * joined.max_rows)]
        names = [PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS, PAIRS, MAX_ROWS]
        yield pa.RecordBatch.from_arrays(columns, names)
