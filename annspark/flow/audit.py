"""Audit: compare the finished table with the exact neighbors of a seeded sample of users."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import places_in_groups
from annspark.core.distance import measure_for
from annspark.core.metric import METRICS
from annspark.core.nearest_lists import Nearest
from annspark.core.recall import Precision, Recall, Spread, measure_recall, recall_by_user, sizes_of, tie_limit
from annspark.core.vectors import Vectors
from annspark.flow.exact import vectors_of
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.output.layout import Layout, lists_in, neighbor_ids_in
from annspark.settings import Settings
from annspark.spark.arrow import Batches, collect, elements
from annspark.spark.block import id_type, seeded_hash
from annspark.spark.cluster import start_beside
from annspark.tables import DISTANCE, NEIGHBOR_ID, USER_ID, quoted

_TIMES, _HASHES = "times", "hashes"
_FLOAT = 2.0**-24  # share of a number that float32 cannot tell


@dataclass(frozen=True)
class Audit:
    """What an audit says of a table.

    recall    : of the sampled users
    distances : how the distances of their neighbors spread, by rank
    precision : what rounding takes
    """

    recall: Recall
    distances: tuple[Spread, ...]
    precision: Precision


def audit_neighbors(
    table: DataFrame, layout: Layout, sample: Sample, nearest: Nearest, users: Users, settings: Settings
) -> Audit:
    """Compare what the table has for some users with their exact neighbors.

    table   : the finished table, laid out so
    sample  : the users it is compared for
    nearest : their exact neighbors; k is at most the number of other users
    users   : what the table was made from
    """
    k, coordinates = min(settings.k, users.rows - 1), users.coordinates
    kind_of_numbers = "float64" if coordinates.double else "float32"
    if k == 0:  # a single user has nothing to miss
        return Audit(measure_recall(np.ones(len(sample.ids)), k), (), Precision(kind_of_numbers, 0.0, 0.0))
    # The table may bring ids of another type than the input's, which would have other hashes.
    kind, last = id_type(users.table), int(sample.hashes.max())
    met = neighbor_ids_in(table, layout).select(F.col(NEIGHBOR_ID).cast(kind))
    counted = start_beside(table.sparkSession, count_popularity, met, sample, settings.seed)
    # The few users first, their neighbors' rows afterwards: the other order makes k rows of every user.
    few = table.where(seeded_hash(F.col(quoted(layout.id_col)).cast(kind), settings.seed) <= last)
    hashed = F.transform(NEIGHBOR_ID, lambda one: seeded_hash(one.cast(kind), settings.seed)).alias(_HASHES)
    rows = collect(lists_in(few, layout).select(USER_ID, DISTANCE, hashed))
    query = pc.index_in(rows[USER_ID], pc.cast(sample.ids, rows[USER_ID].type))
    rows, query = rows.filter(query.is_valid()), query.drop_null().to_numpy()
    count = pc.list_value_length(rows[DISTANCE]).to_numpy().astype(np.int64)
    query, rank = np.repeat(query, count), places_in_groups(count)
    distance, hashes = (elements(rows[name]).to_numpy() for name in (DISTANCE, _HASHES))
    first = rank < k
    at = query[first], rank[first]
    published = np.full((len(sample.ids), k), np.inf)
    neighbors = np.zeros((len(sample.ids), k), np.int64)
    published[at], neighbors[at] = distance[first], hashes[first]

    radius, whole = nearest.radius, coordinates.whole(sample.own)
    limit = limit_of(radius, sample, users)
    unclear = coordinates.join_limit(sample.own, radius)
    true = _measured(published, neighbors, nearest, unclear, whole, users)
    by_user = recall_by_user(true, limit, k)
    lost = float((recall_by_user(true, np.maximum(limit, unclear), k) - by_user).mean())
    precision = Precision(kind_of_numbers, _largest_error(published, true, limit - radius, settings.metric), lost)
    return Audit(measure_recall(by_user, k, counted.result()), spreads_of(published), precision)


def limit_of(radius: np.ndarray, sample: Sample, users: Users) -> np.ndarray:
    """Return the largest distances that are as far as the exact k-th neighbors of sampled users: float64 (n,)."""
    coordinates = users.coordinates
    sizes = coordinates.published(sizes_of(coordinates.whole(sample.own), coordinates.metric))
    return tie_limit(radius, sizes, coordinates.metric, sparse=users.wire.sparse)


def noise_of(sample: Sample, users: Users) -> np.ndarray:
    """Return the largest distances that may as well be 0: float64 (n,)."""
    return limit_of(np.zeros(len(sample.ids)), sample, users)


def _measured(
    published: np.ndarray, neighbors: np.ndarray, nearest: Nearest, unclear: np.ndarray, whole: Vectors, users: Users
) -> np.ndarray:
    """Return the distances of neighbors in float64, between the numbers of the input: float64 (n, k).

    Those of the exact neighbors are known.  Of others, those that the join may take for as near are measured, from
    vectors fetched for it; the rest are farther, and stay as published.

    published : float64 (n, k), inf where there is no neighbor
    neighbors : int64 (n, k), hashes
    unclear   : float64 (n,), see Coordinates.join_limit
    whole     : n vectors
    """
    n, row = len(published), np.arange(len(published))[:, None]
    codes, code = np.unique(np.concatenate([nearest.hashes, neighbors], axis=1), return_inverse=True)
    code = code.reshape(n, -1) + row * len(codes)  # a hash and whose neighbor it is
    known, wanted = code[:, : nearest.hashes.shape[1]].ravel(), code[:, nearest.hashes.shape[1] :].ravel()
    order = np.argsort(known, kind="stable")
    place = order[np.searchsorted(known[order], wanted).clip(max=len(known) - 1)]
    exact = (known[place] == wanted).reshape(n, -1) & np.isfinite(published)
    true = np.where(exact, nearest.distances.ravel()[place].reshape(n, -1), published)
    query, rank = np.nonzero(~exact & np.isfinite(published) & (published <= unclear[:, None]))
    if len(query):
        true[query, rank] = measure_pairs(users, whole, query, neighbors[query, rank])
    return true


def measure_pairs(users: Users, whole: Vectors, query: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return the distances between sampled users and others in float64, inf where there is no such other.

    whole  : vectors of the sampled users, float64
    query  : int (n,), which of them
    hashes : int64 (n,), of the other's id
    """
    coordinates = users.coordinates
    found, vectors = vectors_of(users, hashes)
    if len(found) == 0:
        return np.full(len(query), np.inf)
    row = np.searchsorted(found, hashes).clip(max=len(found) - 1)
    raw = measure_for(coordinates.metric, whole).exact(whole, query, coordinates.whole(vectors), row)
    distances = coordinates.published(METRICS[coordinates.metric].from_raw(raw))
    return np.where(found[row] == hashes, distances, np.inf)


def _largest_error(published: np.ndarray, true: np.ndarray, noise: np.ndarray, metric: str) -> float:
    """Return the largest error of the published distances, as a share: of the distance, or of the k-th inner product.

    noise : float64 (n,), what float64 loses of distances
    """
    size = np.abs(true)
    if METRICS[metric].largest:
        size = np.maximum(size, np.abs(np.where(np.isfinite(true), true, 0)).max(axis=1, keepdims=True))
    clear = np.isfinite(true) & (size > noise[:, None] / _FLOAT)
    return float(f"{(np.abs(published[clear] - true[clear]) / size[clear]).max(initial=0):.2g}")


def count_popularity(met: DataFrame, sample: Sample, seed: int) -> np.ndarray:
    """Return how often each sampled user is somebody's neighbor: int64 (n_sample,).

    met : neighbor_id, of the type of the sample's ids, a row for every neighbor of everybody
    """
    few = met.where(seeded_hash(F.col(NEIGHBOR_ID), seed) <= int(sample.hashes.max()))
    # Counted in Python, batch by batch: an aggregation would have Spark compile and shuffle for a second.
    schema = T.StructType([met.schema[NEIGHBOR_ID], T.StructField(_TIMES, T.LongType())])
    counted = collect(few.mapInArrow(_count, schema))
    place = pc.fill_null(pc.index_in(counted[NEIGHBOR_ID], sample.ids), -1).to_numpy()
    popularity = np.zeros(len(sample.ids), np.int64)
    np.add.at(popularity, place[place >= 0], counted[_TIMES].to_numpy()[place >= 0])
    return popularity


def _count(batches: Batches) -> Batches:
    for batch in batches:
        counted = batch.column(0).value_counts()
        yield pa.RecordBatch.from_arrays(counted.flatten(), [NEIGHBOR_ID, _TIMES])


def spreads_of(found: np.ndarray) -> tuple[Spread, ...]:
    """Return how distances spread at each rank: (n_users, k), inf where there is no neighbor."""
    spreads = []
    for i, distances in enumerate(found.T):
        known = distances[np.isfinite(distances)]
        if len(known):
            p5, median, p95 = (float(f"{q:.6g}") for q in np.quantile(known, (0.05, 0.5, 0.95)))
            spreads.append(Spread(rank=i + 1, p5=p5, median=median, p95=p95))
    return tuple(spreads)
