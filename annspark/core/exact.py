"""Brute force in blocks: the exact answer every approximate one is judged by."""

import numpy as np

from annspark.core.metric import to_distance
from annspark.core.nearest import BOUND_SLACK, bounding_columns, group_bound, places, squared_distances

_TILE = 1 << 20  # distances of one product: 4 MB


def nearest_distances(queries: np.ndarray, vectors: np.ndarray, m: int, metric: str) -> np.ndarray:
    """Return the m smallest distances of each query to the vectors, ascending; a query's own row counts too.

    queries : float32 (n_queries, dim), prepared
    vectors : float32 (n, dim), prepared
    returns : float32 (n_queries, m), by differences; inf where there are fewer vectors
    """
    out = np.full((len(queries), m), np.inf, np.float32)
    if len(vectors) == 0:
        return out
    # Around a centre of the bulk the products keep their digits; the median, as one outlier moves a mean far.
    centre = np.median(vectors[:: max(1, len(vectors) // 256)], axis=0)
    right = bounding_columns(vectors - centre, right=True)
    left = bounding_columns(queries - centre, right=False)
    step = max(16, _TILE // len(vectors))
    for start in range(0, len(queries), step):
        asked = left[start : start + step]
        block = asked @ right.T
        bound = np.maximum(group_bound(block, m), 0) + 2 * BOUND_SLACK * (asked[:, -2] + right[:, -1].max())
        row, column = np.nonzero(block <= bound[:, None])
        squared = squared_distances(queries, start + row, vectors, column)
        count = np.bincount(row, minlength=len(block))
        slot = places(count)
        exact = np.full((len(block), max(count.max(), m)), np.inf, np.float32)
        exact[row, slot] = to_distance(squared, metric)
        exact.partition(m - 1, axis=1)
        out[start : start + len(block)] = np.sort(exact[:, :m], axis=1)
    return out


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
