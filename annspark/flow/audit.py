"""Audit: compare the finished table with the exact neighbors of a seeded sample of users."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.recall import Recall, measure_recall, recall_by_user
from annspark.flow.arrow import collect
from annspark.flow.block import id_type, seeded_hash
from annspark.flow.cluster import start_beside
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.flow.shape import distances_of, neighbor_ids_of
from annspark.report import Spread
from annspark.tables import DISTANCE, NEIGHBOR_ID, RANK, USER_ID, quoted

_TIMES = "times"


def audit_neighbors(
    table: DataFrame, sample: Sample, radius: np.ndarray, users: Users, settings: Settings
) -> tuple[Recall, tuple[Spread, ...]]:
    """Return recall@k of the table with its interval, and the distances of its neighbors by rank.

    table  : the finished table, of either shape
    sample : the users to look at, those with the smallest hashes
    radius : float32 (n_sample,), distance of their exact k-th neighbors; k is at most the number of other users
    users  : what the table was made from
    """
    k = min(settings.k, users.rows - 1)
    if k == 0:  # a single user has nothing to miss
        return measure_recall(np.ones(len(sample.ids)), k), ()
    # The table may bring ids of another type than the input's, which would have other hashes.
    kind, last = id_type(users.table), int(sample.hashes[-1])
    met = neighbor_ids_of(table, settings).select(F.col(NEIGHBOR_ID).cast(kind))
    counted = start_beside(table.sparkSession, count_popularity, met, sample, settings.seed)
    # The few users first, their neighbors' rows afterwards: the other order makes k rows of every user.
    few = table.where(seeded_hash(F.col(quoted(settings.id_col)).cast(kind), settings.seed) <= last)
    rows = collect(distances_of(few, settings))
    query = pc.index_in(rows[USER_ID], pc.cast(sample.ids, rows[USER_ID].type)).to_numpy()
    rank, distance = rows[RANK].to_numpy(), rows[DISTANCE].to_numpy()
    listed = rank <= k
    found = np.full((len(sample.ids), k), np.inf, np.float32)
    found[query[listed], rank[listed] - 1] = distance[listed]
    return measure_recall(recall_by_user(found, radius, k), k, counted.result()), spreads_of(found)


def count_popularity(met: DataFrame, sample: Sample, seed: int) -> np.ndarray:
    """Return how often each sampled user is somebody's neighbor: int64 (n_sample,).

    met : neighbor_id, of the type of the sample's ids, a row for every neighbor of everybody
    """
    few = met.where(seeded_hash(F.col(NEIGHBOR_ID), seed) <= int(sample.hashes[-1]))
    # Counted in Python, batch by batch: an aggregation would have Spark compile and shuffle for a second.
    schema = T.StructType([met.schema[NEIGHBOR_ID], T.StructField(_TIMES, T.LongType())])
    counted = collect(few.mapInArrow(_count, schema))
    place = pc.fill_null(pc.index_in(counted[NEIGHBOR_ID], sample.ids), -1).to_numpy()
    popularity = np.zeros(len(sample.ids), np.int64)
    np.add.at(popularity, place[place >= 0], counted[_TIMES].to_numpy()[place >= 0])
    return popularity


def _count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counted = batch.column(0).value_counts()
        yield pa.RecordBatch.from_arrays(counted.flatten(), [NEIGHBOR_ID, _TIMES])


def spreads_of(found: np.ndarray) -> tuple[Spread, ...]:
    """Return how distances spread at each rank: float32 (n_users, k), inf where there is no neighbor."""
    spreads = []
    for i, distances in enumerate(found.T):
        known = distances[np.isfinite(distances)]
        if len(known):
            spreads.append(Spread(i + 1, *(round(float(q), 6) for q in np.quantile(known, (0.05, 0.5, 0.95)))))
    return tuple(spreads)
