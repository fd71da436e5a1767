"""Merge: each user's k nearest over all partitions that knew the user, each neighbor once."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.topk import merge_lists, pack, unpack
from annspark.flow.arrow import OUT_ROWS, ranks_of_ids, to_lists
from annspark.tables import DISTANCE, DISTANCES, IDS, NEIGHBOR_ID, NEIGHBORS, USER_ID


def merge_neighbors(candidates: DataFrame, n_partitions: int, k: int) -> DataFrame:
    """Return one row per user.

    candidates : user_id, ids, distances
    returns    : user_id, neighbors array<struct<neighbor_id, distance>>, ordered by (distance, neighbor_id)
    """
    id_type = candidates.schema[USER_ID].dataType
    neighbor = T.StructType([T.StructField(NEIGHBOR_ID, id_type), T.StructField(DISTANCE, T.FloatType())])
    schema = T.StructType([T.StructField(USER_ID, id_type), T.StructField(NEIGHBORS, T.ArrayType(neighbor))])
    by_user = candidates.select(USER_ID, IDS, DISTANCES).repartition(n_partitions, USER_ID)
    return by_user.mapInArrow(_merger(k), schema)


def _merger(k: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def merge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        lists = pa.Table.from_batches(received)
        lengths = np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in lists[IDS].chunks])
        flat_ids = pa.chunked_array([chunk.flatten() for chunk in lists[IDS].chunks])
        distances = np.concatenate([chunk.flatten().to_numpy() for chunk in lists[DISTANCES].chunks])
        ids, (owner, neighbor) = ranks_of_ids(lists[USER_ID], flat_ids)
        keys = np.full((len(lengths), k), np.iinfo(np.uint64).max, np.uint64)
        keys[np.arange(k) < lengths[:, None]] = pack(distances, neighbor)
        del lists, flat_ids, distances, neighbor
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
