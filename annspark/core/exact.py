"""Brute force in blocks: the exact answer every approximate one is judged by."""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import squared_limit, to_distance
from annspark.core.nearest import bounding_columns, few_at_most, places, squared_distances

_TILE = 1 << 18  # bounds of one product: 1 MB, so that they are still in the second-level cache when compared
_FIRST = 32  # vectors met first, of which every distance is taken
_STRETCH = 4096  # most vectors between two updates of the bars


@dataclass(frozen=True)
class Nearest:
    """The nearest vectors of each query so far, in the order of (distance, hash), whatever order they were met in.

    Of more than m at distance 0 any are kept: they are one and the same vector.

    distances : float32 (n_queries, m), by differences, inf where fewer were met; a query's own row counts too
    hashes    : int64 (n_queries, m), of the vectors' ids; 0 where fewer were met
    """

    distances: np.ndarray
    hashes: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        """The distance of the last, 0 where nobody is asked for: float32 (n_queries,)."""
        return self.distances.max(axis=1, initial=0)


def nobody_met(n_queries: int, m: int) -> Nearest:
    """Return what is known before the first vector."""
    return Nearest(np.full((n_queries, m), np.inf, np.float32), np.zeros((n_queries, m), np.int64))


def meet(queries: np.ndarray, vectors: np.ndarray, hashes: np.ndarray, best: Nearest, metric: str) -> Nearest:
    """Return the nearest of each query among some more vectors and those met before.

    A vector has to beat its query's bar, the largest distance kept so far.  Few do once some thousands have been met,
    so that a call costs little more than its matrix products.

    queries : float32 (n_queries, dim), prepared
    vectors : float32 (n, dim), prepared
    hashes  : int64 (n,)
    best    : not changed
    """
    if len(vectors) == 0 or len(queries) == 0:
        return best
    # Around a centre of the bulk the products keep their digits; the median, as one outlier moves a mean far.
    centre = np.median(vectors[:: max(1, len(vectors) // 256)], axis=0)
    right = np.ascontiguousarray(bounding_columns(queries - centre, right=True).T)
    step = 16 * max(1, _TILE // len(queries) // 16)  # a multiple of 16 is what few_at_most likes
    scratch = np.empty((step, len(queries)), np.float32)
    # Bars fall fast at first: a stretch is as long as all before it, so that a query keeps few of each.
    stretch = _FIRST if np.isinf(best.distances[:, -1]).any() else _STRETCH
    end = 0
    while end < len(vectors):
        start, end = end, min(end + stretch, len(vectors))
        stretch = min(2 * stretch, _STRETCH)
        bar = best.distances[:, -1]
        # Nothing is nearer than 0: twins in any number cost nothing.
        limit = np.where(bar > 0, squared_limit(bar, metric), -np.inf).astype(np.float32)
        rows, asked = [], []
        for first in range(start, end, step):
            left = bounding_columns(vectors[first : min(first + step, end)] - centre, right=False)
            row, query, _ = few_at_most(np.matmul(left, right, out=scratch[: len(left)]), limit)
            rows.append(first + row)
            asked.append(query)
        row, query = np.concatenate(rows), np.concatenate(asked)
        if len(row):
            distance = to_distance(squared_distances(queries, query, vectors, row), metric)
            best = _merge(best, query, distance, hashes[row])
    return best


def _merge(best: Nearest, query: np.ndarray, distance: np.ndarray, hashes: np.ndarray) -> Nearest:
    """Return best with more vectors in it: int (n,), the queries; their distances and hashes."""
    order = np.argsort(query, kind="stable")
    touched, count = np.unique(query, return_counts=True)
    m = best.distances.shape[1]
    at = np.repeat(np.arange(len(touched)), count), m + places(count)
    far = np.full((len(touched), m + count.max()), np.inf, np.float32)
    who = np.zeros(far.shape, np.int64)
    far[:, :m], who[:, :m] = best.distances[touched], best.hashes[touched]
    far[at], who[at] = distance[order], hashes[order]
    first = np.lexsort((who, far), axis=1)[:, :m]
    merged = Nearest(best.distances.copy(), best.hashes.copy())
    merged.distances[touched] = np.take_along_axis(far, first, axis=1)
    merged.hashes[touched] = np.take_along_axis(who, first, axis=1)
    return merged


def exact_neighbors(vectors: np.ndarray, rows: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact k nearest other rows of some rows, by differences alone: slow, short, obviously right.

    vectors : float32 (n, dim), prepared
    rows    : int (m,), the rows to answer for
    returns : neighbors int64 (m, k) ordered by (distance, row), -1 where fewer exist; distances float32 (m, k), inf
    """
    neighbors = np.full((len(rows), k), -1, np.int64)
    distances = np.full((len(rows), k), np.inf, np.float32)
    for i, row in enumerate(rows):
        difference = vectors - vectors[row]
        distance = to_distance(np.einsum("ij,ij->i", difference, difference), metric)
        distance[row] = np.inf
        nearest = np.argsort(distance, kind="stable")[: min(k, len(vectors) - 1)]
        neighbors[i, : len(nearest)], distances[i, : len(nearest)] = nearest, distance[nearest]
    return neighbors, distances
