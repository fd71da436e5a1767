"""Join: every leaf of a partition, with the vectors that visit it."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.join import join_leaves
from annspark.core.plan import Plan
from annspark.flow.arrow import OUT_ROWS, ints_from_binary, to_lists, vectors_from_binary
from annspark.tables import DISTANCES, HOME, IDS, MAX_ROWS, PAIRS, TARGET, USER_ID, VECTOR, VISITS


def join_partitions(shipped: DataFrame, plan: Plan, dim: int, settings: Settings) -> DataFrame:
    """Return what every partition knows of the nearest neighbors of the vectors it saw.

    shipped : target, user_id, vector, home, visits
    returns : user_id, ids (array), distances (array<float>), nearest first; a row per resident, and per guest that
              met anybody; pairs and max_rows (of the partition) stand in its first row, 0 elsewhere
    """
    id_type = shipped.schema[USER_ID].dataType
    schema = T.StructType(
        [
            T.StructField(USER_ID, id_type),
            T.StructField(IDS, T.ArrayType(id_type)),
            T.StructField(DISTANCES, T.ArrayType(T.FloatType())),
            T.StructField(PAIRS, T.LongType()),
            T.StructField(MAX_ROWS, T.LongType()),
        ]
    )
    return shipped.repartition(plan.n_partitions, TARGET).mapInArrow(_joiner(dim, settings.k, settings.metric), schema)


def _joiner(dim: int, k: int, metric: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def join(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # A leaf's residents and visitors may arrive in any batch, so the partition is gathered first; the plan keeps
        # partitions to a size that fits.
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        shipped = pa.Table.from_batches(received)
        del received
        order = pc.sort_indices(shipped[USER_ID])
        ids = shipped[USER_ID].take(order).combine_chunks()
        by_id = order.to_numpy()
        home = shipped[HOME].to_numpy()[by_id]
        width = max(1, pc.max(pc.binary_length(shipped[VISITS])).as_py() // 4)
        visits = ints_from_binary(shipped[VISITS], width)[by_id]
        vectors = vectors_from_binary(shipped[VECTOR], dim)[by_id]
        del shipped
        joined = join_leaves(vectors, home, visits, k, metric)
        told = np.flatnonzero((home >= 0) | (joined.neighbors[:, 0] >= 0))
        for start in range(0, len(told), OUT_ROWS):
            rows = told[start : start + OUT_ROWS]
            met = joined.neighbors[rows] >= 0
            lengths = met.sum(axis=1)
            first = np.zeros(len(rows), np.int64)
            first[0] = start == 0
            columns = [
                ids.take(pa.array(rows)),
                to_lists(ids.take(pa.array(joined.neighbors[rows][met])), lengths),
                to_lists(pa.array(joined.distances[rows][met]), lengths),
                pa.array(first * joined.pairs),
                pa.array(first * joined.max_rows),
            ]
            yield pa.RecordBatch.from_arrays(columns, [USER_ID, IDS, DISTANCES, PAIRS, MAX_ROWS])

    return join
