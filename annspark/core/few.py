"""Few: the first rows of all, which everybody meets where rows that share nothing come in one order for all.

Sparse rows that share no column are equally far under cosine, jaccard and the inner product, so that of those a row
wants the first by id; under euclidean they are the farther the longer they are, |x|^2 + |y|^2, so that it wants the
shortest of all.  Either way some hundred rows serve everybody, and meeting them costs time in proportion to the rows.
"""

import numpy as np

from annspark.core.distance import SparseProducts, measure_for
from annspark.core.metric import METRICS
from annspark.core.topk import EMPTY, pack, unpack
from annspark.core.vectors import Vectors, is_sparse, len_of, renumbered, slice_rows, squared_lengths

# Rows, and rows beyond twice the neighbors wanted: who shares something with some of them needs others.
_AT_LEAST, _MORE = 200, 100
_PAIRS = 1 << 19  # distances in flight, of 8 bytes and several times over


def count_few(k: int) -> int:
    """Return how many rows everybody is to meet."""
    return max(_AT_LEAST, 2 * k + _MORE)


def order_lengths(rows: Vectors, metric: str) -> np.ndarray:
    """Return what rows are ordered by before their ids: float64 (n,), squared lengths where those tell, else 0."""
    by_length = is_sparse(rows) and np.isinf(METRICS[metric].unrelated)
    return squared_lengths(rows) if by_length else np.zeros(len_of(rows))


def nearest_of_few(rows: Vectors, few: Vectors, own: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of a few for every row, with the very distances the join gives.

    rows, few : n and m of one kind, prepared; the few in the order of their ids
    own       : int (n,), which of the few a row itself is, -1 for none
    returns   : int64 (n, k), places among the few, by (distance, place), and float32 (n, k); -1 and inf for none
    """
    n, m = len_of(rows), len_of(few)
    neighbors, distances = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    step = max(1, _PAIRS // max(1, m))
    for start in range(0, n, step):
        some, mine = slice_rows(rows, start, start + step), own[start : start + step]
        keys = pack(METRICS[metric].from_raw(_raw(some, few, metric)), np.arange(m))
        itself = np.flatnonzero(mine >= 0)
        keys[itself, mine[itself]] = EMPTY
        if k < m:
            keys = np.partition(keys, k - 1, axis=1)[:, :k]
        keys.sort(axis=1)
        here = slice(start, start + len(keys))
        distances[here, : keys.shape[1]], neighbors[here, : keys.shape[1]] = unpack(keys)
    return neighbors, distances


def _raw(rows: Vectors, few: Vectors, metric: str) -> np.ndarray:
    """Return all raw distances: float32 (n, m)."""
    n, m = len_of(rows), len_of(few)
    if not is_sparse(rows):
        one, other = np.divmod(np.arange(n * m), max(1, m))
        return measure_for(metric, rows).exact(rows, one, few, other).astype(np.float32, copy=False).reshape(n, m)
    columns = np.unique(few.indices)
    left, right = (renumbered(part, columns).astype(np.float64) for part in (rows, few))
    products = (left @ right.T.tocsr()).toarray()
    raw = SparseProducts(metric).from_products(squared_lengths(rows)[:, None], squared_lengths(few), products)
    return raw.astype(np.float32)


def expected_products(sample: Vectors, rows: int, queries: int) -> float:
    """Return how many products of two numbers so many queries and rows, like the sampled ones, have to be made of."""
    _, counts = np.unique(sample.indices, return_counts=True)
    share = counts / max(1, len_of(sample))
    return float((share**2).sum()) * rows * queries
