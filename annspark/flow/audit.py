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
from annspark.core.vectors import Vectors, groups_of, plain
from annspark.flow.exact import vectors_of
from annspark.flow.groups import sizes_of_groups
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.output.layout import Layout, lists_in, neighbor_ids_in
from annspark.settings import Settings
from annspark.spark.arrow import Batches, collect, elements
from annspark.spark.block import id_type, seeded_hash
from annspark.spark.cluster import start_beside
from annspark.tables import DISTANCE, NEIGHBOR_ID, USER_ID, quoted

_TIMES, _HASHES = "times", "hashes"
_FLOAT = 2.0**-24  # relative rounding error of float32


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    recall    : recall@k of the sampled users
    distances : quantiles of their neighbors' distances, by rank
    precision : the errors that rounding causes
    """

    recall: Recall
    distances: tuple[Spread, ...]
    precision: Precision


def audit_neighbors(
    table: DataFrame,
    layout: Layout,
    sample: Sample,
    nearest: Nearest,
    users: Users,
    settings: Settings,
    queries: Users | None = None,
) -> Audit:
    """Compare the table's neighbors of sampled users with their exact neighbors.

    table   : the finished table, in the given layout
    sample  : the sampled users
    nearest : their exact neighbors, min(k, number of other users) of each, fewer where pairs are excluded
    users   : the input that the table was made from
    queries : the users whose neighbors are in the table, where those are of another table than their neighbors
    """
    k, coordinates = nearest.distances.shape[1], users.coordinates
    kind_of_numbers = "float64" if coordinates.double else "float32"
    if k == 0:  # a single user has no neighbors, so none can be missed
        return Audit(measure_recall(np.ones(len(sample.ids)), k), (), Precision(kind_of_numbers, 0.0, 0.0))
    user, neighbor = id_type((queries or users).table), id_type(users.table)
    counting = None
    if queries is None:
        neighbor_ids = neighbor_ids_in(table, layout).select(F.col(NEIGHBOR_ID).cast(neighbor))
        counting = start_beside(table.sparkSession, count_popularity, neighbor_ids, sample, settings.seed)
    published, neighbors = _published(table, layout, sample, (user, neighbor), settings.seed, k)
    radius, whole = nearest.radius, coordinates.for_exact_search(sample.own)
    limit = limit_of(radius, sample, users)
    unclear = coordinates.join_limit(sample.own, radius)
    true = _measured(published, neighbors, nearest, unclear, whole, users)
    wanted = np.isfinite(nearest.distances).sum(axis=1)  # fewer than k where pairs are excluded
    by_user = recall_by_user(true, limit, wanted)
    lost = float((recall_by_user(true, np.maximum(limit, unclear), wanted) - by_user).mean())
    noise = np.where(np.isfinite(radius), limit, 0) - np.where(np.isfinite(radius), radius, 0)
    precision = Precision(kind_of_numbers, _largest_error(published, true, noise, settings.metric), lost)
    group, groups = groups_of(sample.own), users.groups
    sizes = sizes_of_groups(groups, group) if groups is not None and group is not None else None
    recall = measure_recall(by_user, k, counting.result() if counting else None, sizes)
    return Audit(recall, spreads_of(published), precision)


def _published(
    table: DataFrame, layout: Layout, sample: Sample, kinds: tuple[T.DataType, T.DataType], seed: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first k neighbors that the table has for each of n sampled users.

    kinds   : types of the ids of users and of neighbors in the staged input.  Those of the table may have other types,
              and then have other hashes before they are cast
    returns : float64 (n, k) distances and int64 (n, k) hashes of ids; inf and 0 where there is no neighbor
    """
    # Users are filtered before their lists are unpacked: the other order would make k rows of every user.
    last = int(sample.hashes.max())
    sampled = table.where(seeded_hash(F.col(quoted(layout.id_col)).cast(kinds[0]), seed) <= last)
    hashed = F.transform(NEIGHBOR_ID, lambda neighbor: seeded_hash(neighbor.cast(kinds[1]), seed)).alias(_HASHES)
    rows = collect(lists_in(sampled, layout).select(USER_ID, DISTANCE, hashed))
    query = pc.index_in(rows[USER_ID], pc.cast(sample.ids, rows[USER_ID].type))
    rows, query = rows.filter(query.is_valid()), query.drop_null().to_numpy()
    count = pc.list_value_length(rows[DISTANCE]).to_numpy().astype(np.int64)
    query, rank = np.repeat(query, count), places_in_groups(count)
    distance, hashes = (elements(rows[name]).to_numpy() for name in (DISTANCE, _HASHES))
    first = rank < k
    cell = query[first], rank[first]
    distances = np.full((len(sample.ids), k), np.inf)
    neighbors = np.zeros((len(sample.ids), k), np.int64)
    distances[cell], neighbors[cell] = distance[first], hashes[first]
    return distances, neighbors


def limit_of(radius: np.ndarray, sample: Sample, users: Users) -> np.ndarray:
    """Return the largest distances that count as ties with the exact k-th neighbors of sampled users: float64 (n,).

    radius : float64 (n,), distances of the exact k-th neighbors
    """
    coordinates = users.coordinates
    sizes = coordinates.in_input_units(sizes_of(coordinates.for_exact_search(sample.own), coordinates.metric))
    return tie_limit(radius, sizes, coordinates.metric, sparse=users.wire.sparse)


def noise_of(sample: Sample, users: Users) -> np.ndarray:
    """Return the largest distances that rounding may make of 0, for sampled users: float64 (n,)."""
    return limit_of(np.zeros(len(sample.ids)), sample, users)


def _measured(
    published: np.ndarray, neighbors: np.ndarray, nearest: Nearest, unclear: np.ndarray, whole: Vectors, users: Users
) -> np.ndarray:
    """Return the true distances of published neighbors, computed in float64 from the input's numbers: float64 (n, k).

    The distances of exact neighbors are known.  Another neighbor is measured anew, from vectors fetched for this, where
    its published distance is at most `unclear`: rounding in the join may have made it look as near as an exact one.
    All others are surely farther than the exact neighbors, and keep their published distance.

    published : float64 (n, k), inf where there is no neighbor
    neighbors : int64 (n, k), hashes of their ids
    unclear   : float64 (n,), see Coordinates.join_limit
    whole     : vectors of the n sampled users
    """
    n, row = len(published), np.arange(len(published))[:, None]
    codes, code = np.unique(np.concatenate([nearest.hashes, neighbors], axis=1), return_inverse=True)
    code = code.reshape(n, -1) + row * len(codes)  # one code per (user, hash of a neighbor)
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
    """Return the distances of n pairs of a sampled user and another user: float64 (n,), inf for an unknown hash.

    whole  : vectors of the sampled users, float64
    query  : int (n,), the row of whole of each pair
    hashes : int64 (n,), the hash of the other user's id
    """
    coordinates = users.coordinates
    found, vectors = vectors_of(users, hashes)
    if len(found) == 0:
        return np.full(len(query), np.inf)
    row = np.searchsorted(found, hashes).clip(max=len(found) - 1)
    whole, vectors = plain(whole), plain(coordinates.for_exact_search(vectors))
    raw = measure_for(coordinates.metric, whole).exact(whole, query, vectors, row)
    distances = coordinates.in_input_units(METRICS[coordinates.metric].from_raw(raw))
    return np.where(found[row] == hashes, distances, np.inf)


def _largest_error(published: np.ndarray, true: np.ndarray, noise: np.ndarray, metric: str) -> float:
    """Return the largest relative error of the published distances.

    The error is relative to the true distance; for inner products, which may be near 0, to the largest of the user's
    inner products if that is larger.

    noise : float64 (n,), rounding errors of true distances; distances below noise / 2^-24 are left out
    """
    size = np.abs(true)
    if METRICS[metric].largest:
        size = np.maximum(size, np.abs(np.where(np.isfinite(true), true, 0)).max(axis=1, keepdims=True))
    clear = np.isfinite(true) & (size > noise[:, None] / _FLOAT)
    return float(f"{(np.abs(published[clear] - true[clear]) / size[clear]).max(initial=0):.2g}")


def count_popularity(neighbor_ids: DataFrame, sample: Sample, seed: int) -> np.ndarray:
    """Return in how many users' lists each sampled user stands: int64 (n_sample,).

    neighbor_ids : neighbor_id, of the type of the sample's ids, a row for every neighbor of every user
    """
    sampled = neighbor_ids.where(seeded_hash(F.col(NEIGHBOR_ID), seed) <= int(sample.hashes.max()))
    # Counted in Python, batch by batch: for an aggregation Spark would compile and shuffle for a second.
    schema = T.StructType([neighbor_ids.schema[NEIGHBOR_ID], T.StructField(_TIMES, T.LongType())])
    counted = collect(sampled.mapInArrow(_count, schema))
    place = pc.fill_null(pc.index_in(counted[NEIGHBOR_ID], sample.ids), -1).to_numpy()
    popularity = np.zeros(len(sample.ids), np.int64)
    np.add.at(popularity, place[place >= 0], counted[_TIMES].to_numpy()[place >= 0])
    return popularity


def _count(batches: Batches) -> Batches:
    for batch in batches:
        counted = batch.column(0).value_counts()
        yield pa.RecordBatch.from_arrays(counted.flatten(), [NEIGHBOR_ID, _TIMES])


def spreads_of(distances: np.ndarray) -> tuple[Spread, ...]:
    """Return the quantiles of distances at each rank.

    distances : float64 (n_users, k), inf where there is no neighbor
    """
    spreads = []
    for i, at_rank in enumerate(distances.T):
        known = at_rank[np.isfinite(at_rank)]
        if len(known):
            p5, median, p95 = (float(f"{q:.6g}") for q in np.quantile(known, (0.05, 0.5, 0.95)))
            spreads.append(Spread(rank=i + 1, p5=p5, median=median, p95=p95))
    return tuple(spreads)
