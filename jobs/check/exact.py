"""Exact distances by definition, in float64, by SciPy and never by annspark's own code."""

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from check.rows import Rows

NAMES = {"manhattan": "cityblock", "hamming": "hamming", "cosine": "cosine", "euclidean": "euclidean"}
AT_ONCE = 1 << 25  # distances, or numbers made float64
# Distances computed in two ways differ by rounding: this much counts as a tie.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


def distances(rows: Rows, asked: np.ndarray, metric: str) -> np.ndarray:
    """Return the distances of the asked rows to all: float64 (n_asked, n), minus the product for inner_product."""
    if not isinstance(rows, np.ndarray):
        return _sparse_distances(rows, asked, metric)
    mine, step = rows[asked].astype(np.float64), max(1, AT_ONCE // rows.shape[1])
    return np.hstack([_dense(mine, rows[i : i + step].astype(np.float64), metric) for i in range(0, len(rows), step)])


def _dense(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    if metric == "inner_product":
        return -(a @ b.T)
    return cdist(a, b, NAMES[metric]) * (a.shape[1] if metric == "hamming" else 1)  # bits that differ, not their share


def _sparse_distances(rows: csr_array, asked: np.ndarray, metric: str) -> np.ndarray:
    wide = rows.astype(np.float64)
    if metric == "jaccard":
        wide.data[:] = wide.data != 0
    products = (wide[asked] @ wide.T).toarray()
    if metric == "inner_product":
        return -products
    squares = wide.power(2).sum(axis=1)
    if metric == "cosine":
        return 1 - products / np.sqrt(squares[asked][:, None] * squares)
    if metric == "euclidean":
        return np.sqrt(np.maximum(squares[asked][:, None] + squares - 2 * products, 0))
    union = squares[asked][:, None] + squares - products
    return np.where(union > 0, 1 - products / np.maximum(union, 1), 0)  # two empty sets are the same


def score(rows: Rows, metric: str, asked: np.ndarray, near: np.ndarray, told: np.ndarray) -> tuple[float, float]:
    """Return the recall of some users' neighbors, and the largest error of what was told of their distances.

    A neighbor no further than the exact k-th counts, by the distance computed here.

    asked : row numbers (n_asked,)
    near  : the row numbers of their neighbors (n_asked, k), all different and none their own
    told  : the distances (n_asked, k) that the table has, minus the product for inner_product
    """
    k, hits, error = near.shape[1], 0, 0.0
    step = max(1, AT_ONCE // rows.shape[0])
    for start in range(0, len(asked), step):
        some = slice(start, start + step)
        far = distances(rows, asked[some], metric)
        found = np.take_along_axis(far, near[some], axis=1)
        far[np.arange(len(far)), asked[some]] = np.inf
        limit = np.partition(far, k - 1, axis=1)[:, k - 1 : k]
        hits += int((found <= limit + np.abs(limit) * RELATIVE + ABSOLUTE).sum())
        error = max(error, float((np.abs(told[some] - found) / np.maximum(1, np.abs(found))).max()))
    return hits / near.size, error
