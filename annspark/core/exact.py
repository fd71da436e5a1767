"""Brute force in blocks: the exact answer every approximate one is judged by."""

import numpy as np

from annspark.core.metric import squared_limit, to_distance
from annspark.core.nearest import bounding_columns, few_at_most, places, squared_distances

_TILE = 1 << 18  # bounds of one product: 1 MB, so that they are still in the second-level cache when compared
_FIRST = 32  # vectors met first, of which every distance is taken
_STRETCH = 4096  # most vectors between two updates of the bars


def nearest_distances(queries: np.ndarray, vectors: np.ndarray, best: np.ndarray, metric: str) -> np.ndarray:
    """Return the smallest distances of each query to the vectors and to those met before.

    A vector has to beat its query's bar, the largest distance kept so far.  Few do once some thousands have been met,
    so that a call costs little more than its matrix products; start from inf, and keep what is returned for the next.

    queries : float32 (n_queries, dim), prepared
    vectors : float32 (n, dim), prepared
    best    : float32 (n_queries, m), ascending, inf where fewer were met; not changed
    returns : float32 (n_queries, m), ascending, by differences; a query's own row counts too
    """
    if len(vectors) == 0 or len(queries) == 0:
        return best
    # Around a centre of the bulk the products keep their digits; the median, as one outlier moves a mean far.
    centre = np.median(vectors[:: max(1, len(vectors) // 256)], axis=0)
    right = np.ascontiguousarray(bounding_columns(queries - centre, right=True).T)
    step = 16 * max(1, _TILE // len(queries) // 16)  # a multiple of 16 is what few_at_most likes
    scratch = np.empty((step, len(queries)), np.float32)
    # Bars fall fast at first: a stretch is as long as all before it, so that a query keeps few of each.
    stretch = _FIRST if np.isinf(best[:, -1]).any() else _STRETCH
    end = 0
    while end < len(vectors):
        start, end = end, min(end + stretch, len(vectors))
        stretch = min(2 * stretch, _STRETCH)
        # Nothing is nearer than 0: twins in any number cost nothing.
        limit = np.where(best[:, -1] > 0, squared_limit(best[:, -1], metric), -np.inf).astype(np.float32)
        rows, asked = [], []
        for first in range(start, end, step):
            left = bounding_columns(vectors[first : min(first + step, end)] - centre, right=False)
            row, query, _ = few_at_most(np.matmul(left, right, out=scratch[: len(left)]), limit)
            rows.append(first + row)
            asked.append(query)
        row, query = np.concatenate(rows), np.concatenate(asked)
        if len(row):
            best = _merge(best, query, to_distance(squared_distances(queries, query, vectors, row), metric))
    return best


def _merge(best: np.ndarray, query: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Return best with more distances in it: int (n,), the queries; float32 (n,), their distances."""
    order = np.argsort(query, kind="stable")
    touched, count = np.unique(query, return_counts=True)
    more = np.full((len(touched), count.max()), np.inf, np.float32)
    more[np.repeat(np.arange(len(touched)), count), places(count)] = distance[order]
    merged = best.copy()
    merged[touched] = np.sort(np.concatenate([best[touched], more], axis=1), axis=1)[:, : best.shape[1]]
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
