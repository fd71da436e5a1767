"""Small worlds of leaves and visitors, and the answers brute force gives in them."""

import numpy as np

from annspark.core.join import Joined, join_leaves
from annspark.core.metric import METRICS
from annspark.core.routes import visits_of

DENSE = [metric for metric in METRICS if metric != "jaccard"]  # metrics of dense vectors


def exact_neighbors(vectors: np.ndarray, rows: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact k nearest other rows of some rows, one row at a time: slow, short, obviously right.

    vectors : float32 (n, dim), prepared; not for jaccard
    rows    : int (m,), the rows whose neighbors are asked for
    returns : neighbors int64 (m, k) ordered by (distance, row), -1 where fewer exist; distances float32 (m, k), inf
    """
    neighbors = np.full((len(rows), k), -1, np.int64)
    distances = np.full((len(rows), k), np.inf, np.float32)
    for i, row in enumerate(rows):
        difference = vectors - vectors[row]
        if metric == "inner_product":
            raw = -2 * np.einsum("ij,j->i", vectors, vectors[row])
        elif metric == "manhattan":
            raw = np.abs(difference).sum(axis=1)
        elif metric in ("cosine", "euclidean", "hamming"):
            raw = np.einsum("ij,ij->i", difference, difference)
        else:
            raise ValueError(metric)
        distance = METRICS[metric].from_raw(raw)
        distance[row] = np.inf
        nearest = np.argsort(distance, kind="stable")[: min(k, len(vectors) - 1)]
        neighbors[i, : len(nearest)], distances[i, : len(nearest)] = nearest, distance[nearest]
    return neighbors, distances


def all_raw(left: np.ndarray, right: np.ndarray, metric: str) -> np.ndarray:
    """Return all raw distances, by the definition: float32 (n_left, n_right)."""
    if metric == "inner_product":
        return -2 * np.einsum("ik,jk->ij", left, right)
    difference = left[:, None] - right
    if metric == "manhattan":
        return np.abs(difference).sum(axis=2)
    return np.einsum("ijk,ijk->ij", difference, difference)


def join_one_leaf(vectors: np.ndarray, k: int, metric: str = "euclidean") -> Joined:
    """Join vectors that all have one home leaf and visit no other."""
    n = len(vectors)
    return join_leaves(vectors, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), k, metric)


def assert_exact(joined: Joined, vectors: np.ndarray, k: int, metric: str = "euclidean") -> None:
    """Check that all rows were compared with each other and kept the k nearest, by (distance, row)."""
    neighbors, distances = exact_neighbors(vectors, np.arange(len(vectors)), k, metric)
    np.testing.assert_array_equal(joined.neighbors, neighbors)
    np.testing.assert_allclose(joined.distances, distances, rtol=1e-6)


def random_visits(rng: np.random.Generator, home: np.ndarray, n_leaves: int, width: int) -> np.ndarray:
    """Return, for every vector, up to width different leaves that are not its home, then -1."""
    visits = np.full((len(home), width), -1, np.int32)
    for row, own in enumerate(home):
        others = rng.permutation(np.setdiff1d(np.arange(n_leaves), own))[: rng.integers(width + 1)]
        visits[row, : len(others)] = others
    return visits


def alike(vectors: np.ndarray, home: np.ndarray, visits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give equal vectors equal homes and visits, as routing does."""
    _, first, group = np.unique(vectors, axis=0, return_index=True, return_inverse=True)
    same = first[group.ravel()]
    return home[same], visits[same]


def compared_pairs(home: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Return bool (n, n): True where one of the two has, or visits, the home of the other."""
    goes_to_home_of = (home[:, None] == home) | (visits[:, :, None] == home).any(axis=1)
    goes_to_home_of &= home >= 0
    compared = goes_to_home_of | goes_to_home_of.T
    np.fill_diagonal(compared, False)
    return compared


def nearest_of(distances: np.ndarray, compared: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest by (distance, row) among the compared pairs, given all distances: float32 (n, n)."""
    n = len(distances)
    far = np.where(compared, distances, np.inf).astype(np.float32)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(far, order, axis=1)
    neighbors, nearest = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    neighbors[:, : order.shape[1]] = np.where(np.isfinite(found), order, -1)
    nearest[:, : order.shape[1]] = found
    return neighbors, nearest


def nearest_compared(
    vectors: np.ndarray, compared: np.ndarray, k: int, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest by (distance, row) among the compared pairs: neighbors with -1, distances with inf."""
    n = len(vectors)
    order, distance = exact_neighbors(vectors, np.arange(n), max(n - 1, 1), metric)
    neighbors, distances = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    for row in range(n):
        among = (order[row] >= 0) & compared[row, order[row]]
        count = min(k, among.sum())
        neighbors[row, :count], distances[row, :count] = order[row, among][:count], distance[row, among][:count]
    return neighbors, distances
