"""Audit: compare the finished table with the exact neighbors of a seeded sample of users."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.exact import nearest_distances
from annspark.core.recall import Recall, recall_by_user, recall_interval
from annspark.flow.arrow import collect, to_binary, vectors_from_binary
from annspark.flow.read import Users
from annspark.flow.sample import sample_vectors
from annspark.tables import DISTANCE, RANK, USER_ID

_QUERY, _NEAREST = "query", "nearest"


def audit_neighbors(neighbors: DataFrame, users: Users, settings: Settings) -> Recall:
    """Return recall@k of the table with its interval; k is at most the number of other users.

    neighbors : user_id, rank, neighbor_id, distance
    users     : what the table was made from
    """
    k = min(settings.k, users.rows - 1)
    sampled, queries = sample_vectors(users, settings.audit_users, seed=settings.seed, purpose="audit")
    if k == 0:  # a single user has nothing to miss
        return recall_interval(np.ones(len(sampled)), k)
    radius = exact_radius(users.table, queries, k, settings.metric)
    chosen = neighbors.sparkSession.createDataFrame(
        [(user, i) for i, user in enumerate(sampled.to_pylist())],
        T.StructType([neighbors.schema[USER_ID], T.StructField(_QUERY, T.IntegerType())]),
    )
    rows = collect(neighbors.join(F.broadcast(chosen), USER_ID).select(_QUERY, RANK, DISTANCE))
    found = np.full((len(sampled), k), np.inf, np.float32)
    query, rank, distance = (rows[name].to_numpy() for name in (_QUERY, RANK, DISTANCE))
    found[query[rank <= k], rank[rank <= k] - 1] = distance[rank <= k]
    return recall_interval(recall_by_user(found, radius, k), k)


def exact_radius(vectors: DataFrame, queries: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Return the distance of each query's exact k-th neighbor: float32 (n_queries,).

    One pass over the vectors.  Every query is itself a row of vectors, so its smallest distance is its own, 0; only
    distances are wanted, so leaving out one 0 is leaving out the query, whatever twins it has.
    """
    schema = T.StructType([T.StructField(_NEAREST, T.BinaryType())])
    parts = collect(vectors.mapInArrow(_searcher(queries, k + 1, metric), schema))[_NEAREST]
    nearest = vectors_from_binary(parts, len(queries) * (k + 1)).reshape(-1, len(queries), k + 1)
    return np.sort(nearest.transpose(1, 0, 2).reshape(len(queries), -1), axis=1)[:, k]


def _searcher(
    queries: np.ndarray, m: int, metric: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        best = np.full((len(queries), m), np.inf, np.float32)
        for batch in batches:
            vectors = vectors_from_binary(batch.column(1), queries.shape[1])
            more = nearest_distances(queries, vectors, m, metric)
            best = np.sort(np.concatenate([best, more], axis=1), axis=1)[:, :m]
        yield pa.RecordBatch.from_arrays([to_binary(best, np.array([best.size]))], [_NEAREST])

    return search
