"""Join: every leaf of a partition, with the vectors that visit it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.join import join_leaves
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.sampling import slot_of
from annspark.core.vectors import take_rows
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, elements, gathered, numbers
from annspark.spark.block import block_lists
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
    TARGET,
    VISITS,
)


def join_partitions(
    shipped: DataFrame, plan: Plan, merge_in: int, wire: Wire, coordinates: Coordinates, k: int
) -> DataFrame:
    """Return what every partition knows of the nearest neighbors of the vectors it saw, in blocks of lists.

    shipped  : target, ids, hashes, the columns of wire, homes, visits, n_visits
    merge_in : partitions the lists will be merged in
    returns  : target (key of the merge's partition), ids, neighbor_ids (array, user after user, nearest first),
               distances, counts; a list for every resident, and for every guest that met anybody; pairs and max_rows
               (of the partition) stand in its first row, 0 elsewhere
    """
    schema = T.StructType(
        [
            T.StructField(TARGET, T.IntegerType()),
            shipped.schema[IDS],
            T.StructField(NEIGHBOR_IDS, shipped.schema[IDS].dataType),
            T.StructField(DISTANCES, T.BinaryType()),
            T.StructField(COUNTS, T.BinaryType()),
            T.StructField(PAIRS, T.LongType()),
            T.StructField(MAX_ROWS, T.LongType()),
        ]
    )
    keys = partition_keys(merge_in)
    gathered = shipped.repartition(plan.n_partitions, TARGET)
    return gathered.mapInArrow(_joiner(keys, wire, coordinates, k), schema)


def _joiner(keys: np.ndarray, wire: Wire, coordinates: Coordinates, k: int) -> Mapper:
    def join(batches: Batches) -> Batches:
        # A leaf's residents and visitors may arrive in any batch, so the partition is gathered first; the plan keeps
        # partitions to a size that fits.
        shipped = gathered(batches)
        if shipped is None:
            return
        ids = elements(shipped[IDS])
        order = pc.sort_indices(ids)
        by_id = order.to_numpy()
        ids = ids.take(order)
        hashes = numbers(shipped[HASHES], np.int64)[by_id]
        home = numbers(shipped[HOMES], np.int32)[by_id]
        place = np.empty(len(by_id), np.int64)
        place[by_id] = np.arange(len(by_id))
        visits = Visits(np.repeat(place, numbers(shipped[N_VISITS], np.int32)), numbers(shipped[VISITS], np.int32))
        vectors = take_rows(wire.read(shipped), by_id)
        del shipped
        joined = join_leaves(vectors, home, visits, k, coordinates.metric)
        distances = coordinates.published(joined.distances)
        slot = slot_of(hashes, len(keys))
        told = np.flatnonzero((home >= 0) | (joined.neighbors[:, 0] >= 0))
        told = told[np.argsort(slot[told], kind="stable")]
        for start in range(0, len(told), OUT_ROWS):
            rows = told[start : start + OUT_ROWS]
            lists = block_lists(slot[rows], keys, ids, rows, joined.neighbors[rows], distances[rows])
            once = np.zeros(len(lists[0]), np.int64)
            once[0] = start == 0
            columns = [*lists, pa.array(once * joined.pairs), pa.array(once * joined.max_rows)]
            names = [TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS, PAIRS, MAX_ROWS]
            yield pa.RecordBatch.from_arrays(columns, names)

    return join
