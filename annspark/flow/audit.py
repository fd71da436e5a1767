"""Audit: compare the finished table with the exact neighbors of a seeded sample of users."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.exact import nearest_distances
from annspark.core.recall import Recall, recall_by_user, recall_interval
from annspark.flow.arrow import collect, numbers, to_binary
from annspark.flow.block import id_type, seeded_hash
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.flow.shape import distances_of
from annspark.tables import DISTANCE, RANK, USER_ID, VECTORS, quoted

_NEAREST = "nearest"


def audit_neighbors(table: DataFrame, sample: Sample, users: Users, settings: Settings) -> Recall:
    """Return recall@k of the table with its interval; k is at most the number of other users.

    table  : the finished table, of either shape
    sample : the users to look at, those with the smallest hashes
    users  : what the table was made from
    """
    k = min(settings.k, users.rows - 1)
    if k == 0:  # a single user has nothing to miss
        return recall_interval(np.ones(len(sample.ids)), k)
    radius = exact_radius(users.table, sample.vectors, k, settings.metric)
    # The table may bring ids of another type than the input's, which would have other hashes.
    user_id = F.col(quoted(settings.id_col)).cast(id_type(users.table))
    drawn = seeded_hash(user_id, settings.seed) <= int(sample.hashes[-1])
    # The few users first, their neighbors' rows afterwards: the other order makes k rows of every user.
    rows = collect(distances_of(table.where(drawn), settings))
    query = pc.index_in(rows[USER_ID], pc.cast(sample.ids, rows[USER_ID].type)).to_numpy()
    rank, distance = rows[RANK].to_numpy(), rows[DISTANCE].to_numpy()
    found = np.full((len(sample.ids), k), np.inf, np.float32)
    found[query[rank <= k], rank[rank <= k] - 1] = distance[rank <= k]
    return recall_interval(recall_by_user(found, radius, k), k)


def exact_radius(vectors: DataFrame, queries: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Return the distance of each query's exact k-th neighbor: float32 (n_queries,).

    One pass over the vectors.  Every query is itself a row of vectors, so its smallest distance is its own, 0; only
    distances are wanted, so leaving out one 0 is leaving out the query, whatever twins it has.
    """
    schema = T.StructType([T.StructField(_NEAREST, T.BinaryType())])
    parts = collect(vectors.select(VECTORS).mapInArrow(_searcher(queries, k + 1, metric), schema))[_NEAREST]
    nearest = numbers(parts, np.float32).reshape(-1, len(queries), k + 1)
    return np.sort(nearest.transpose(1, 0, 2).reshape(len(queries), -1), axis=1)[:, k]


def _searcher(
    queries: np.ndarray, m: int, metric: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        best = np.full((len(queries), m), np.inf, np.float32)
        for batch in batches:
            vectors = numbers(batch.column(0), np.float32).reshape(-1, queries.shape[1])
            best = nearest_distances(queries, vectors, best, metric)
        yield pa.RecordBatch.from_arrays([to_binary(best, np.array([best.size]))], [_NEAREST])

    return search
