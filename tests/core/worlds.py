"""Small worlds of leaves and visitors, and the answers brute force gives in them."""

import numpy as np

from annspark.core.exact import exact_neighbors
from annspark.core.join_dense import Joined, join_leaves
from annspark.core.metric import METRICS
from annspark.core.routes import visits_of

DENSE = [metric for metric in METRICS if metric != "jaccard"]  # metrics of dense vectors


def all_raw(left: np.ndarray, right: np.ndarray, metric: str) -> np.ndarray:
    """Return all raw distances, by the definition: float32 (n_left, n_right)."""
    if metric == "inner_product":
        return -2 * np.einsum("ik,jk->ij", left, right)
    difference = left[:, None] - right
    if metric == "manhattan":
        return np.abs(difference).sum(axis=2)
    return np.einsum("ijk,ijk->ij", difference, difference)


def join_one_leaf(vectors: np.ndarray, k: int, metric: str = "euclidean") -> Joined:
    """Join vectors that all live in one leaf and visit none."""
    n = len(vectors)
    return join_leaves(vectors, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), k, metric)


def assert_exact(joined: Joined, vectors: np.ndarray, k: int, metric: str = "euclidean") -> None:
    """Check that everybody has met everybody and kept the k nearest in the order of (distance, row)."""
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


def who_meets(home: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Return bool (n, n): true where one of the two lives in, or visits, the home of the other."""
    goes_to_home_of = (home[:, None] == home) | (visits[:, :, None] == home).any(axis=1)
    goes_to_home_of &= home >= 0
    meets = goes_to_home_of | goes_to_home_of.T
    np.fill_diagonal(meets, False)
    return meets


def nearest_of(distances: np.ndarray, meets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest by (distance, row) among those each row meets, from all distances: float32 (n, n)."""
    n = len(distances)
    far = np.where(meets, distances, np.inf).astype(np.float32)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(far, order, axis=1)
    neighbors, nearest = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    neighbors[:, : order.shape[1]] = np.where(np.isfinite(found), order, -1)
    nearest[:, : order.shape[1]] = found
    return neighbors, nearest


def nearest_of_those_met(
    vectors: np.ndarray, meets: np.ndarray, k: int, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest by (distance, row) among those each row meets: neighbors with -1, distances with inf."""
    n = len(vectors)
    order, distance = exact_neighbors(vectors, np.arange(n), max(n - 1, 1), metric)
    neighbors, distances = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    for row in range(n):
        met = (order[row] >= 0) & meets[row, order[row]]
        count = min(k, met.sum())
        neighbors[row, :count], distances[row, :count] = order[row, met][:count], distance[row, met][:count]
    return neighbors, distances
