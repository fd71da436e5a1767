"""Merge: each user's k nearest over all partitions that knew the user, each neighbor once."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.topk import EMPTY, merge_lists, pack, unpack
from annspark.flow.arrow import OUT_ROWS, elements, numbers, ranks_of_ids, to_lists
from annspark.flow.block import id_type
from annspark.tables import COUNTS, DISTANCE, DISTANCES, IDS, NEIGHBOR_ID, NEIGHBOR_IDS, NEIGHBORS, TARGET, USER_ID


def merge_neighbors(candidates: DataFrame, n_partitions: int, k: int) -> DataFrame:
    """Return one row per user.

    candidates : target, ids, neighbor_ids, distances, counts
    returns    : user_id, neighbors array<struct<neighbor_id, distance>>, ordered by (distance, neighbor_id)
    """
    user = id_type(candidates)
    neighbor = T.StructType([T.StructField(NEIGHBOR_ID, user), T.StructField(DISTANCE, T.FloatType())])
    schema = T.StructType([T.StructField(USER_ID, user), T.StructField(NEIGHBORS, T.ArrayType(neighbor))])
    by_user = candidates.select(TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS).repartition(n_partitions, TARGET)
    return by_user.mapInArrow(_merger(k), schema)


def _merger(k: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def merge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        lists = pa.Table.from_batches(received)
        counts, distances = numbers(lists[COUNTS], np.int32), numbers(lists[DISTANCES], np.float32)
        ids, (owner, neighbor) = ranks_of_ids(elements(lists[IDS]), elements(lists[NEIGHBOR_IDS]))
        keys = np.full((len(counts), k), EMPTY)
        keys[np.arange(k) < counts[:, None]] = pack(distances, neighbor)
        del received, lists, distances, neighbor
        owners, best = merge_lists(owner, keys, k)
        for start in range(0, len(owners), OUT_ROWS):
            nearest, ranks = unpack(best[start : start + OUT_ROWS])
            met = ranks >= 0
            pairs = pa.StructArray.from_arrays(
                [ids.take(pa.array(ranks[met])), pa.array(nearest[met])], [NEIGHBOR_ID, DISTANCE]
            )
            users = ids.take(pa.array(owners[start : start + OUT_ROWS]))
            yield pa.RecordBatch.from_arrays([users, to_lists(pairs, met.sum(axis=1))], [USER_ID, NEIGHBORS])

    return merge
