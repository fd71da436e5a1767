"""The first rows: some hundred rows that all rows are compared with, to fill their lists with unrelated rows.

Sparse rows that share no column are unrelated.  Under cosine, jaccard and inner product all unrelated rows are equally
far, so that the nearest are the first by id.  Under euclidean distance |x - y|^2 = |x|^2 + |y|^2, so that the nearest
are the shortest.  So the order of unrelated rows is the same for every row, and the first few hundred in that order
are enough for all lists.  Comparing all rows with them takes time in proportion to the number of rows.

Where neighbors are looked for within groups, each large group has first rows of its own.  The join compares all rows of
a small group.
"""

import numpy as np

from annspark.core.arrays import distinct
from annspark.core.distance import SparseProducts, measure_for
from annspark.core.excluded import Pairs
from annspark.core.metric import METRICS
from annspark.core.packing import EMPTY, pack, unpack
from annspark.core.vectors import (
    Grouped,
    Vectors,
    is_sparse,
    len_of,
    plain,
    renumbered,
    slice_rows,
    squared_lengths,
    take_rows,
)

# There are max(_AT_LEAST, 2 k + _MORE) first rows.  More than k, since a row may be related to some of them.
_AT_LEAST, _MORE = 200, 100
_PAIRS = 1 << 19  # distances in flight, of 8 bytes and several times over


def count_first_rows(k: int) -> int:
    """Return how many first rows there are."""
    return max(_AT_LEAST, 2 * k + _MORE)


def ordering_lengths(rows: Vectors, metric: str) -> np.ndarray:
    """Return what rows are ordered by, before their ids: float64 (n,).

    The squared lengths of sparse rows under a metric by which longer unrelated rows are farther, else 0.
    """
    by_length = is_sparse(rows) and np.isinf(METRICS[metric].unrelated)
    return squared_lengths(plain(rows)) if by_length else np.zeros(len_of(rows))


def nearest_first_rows(
    rows: Vectors, first: Vectors, own: np.ndarray, k: int, metric: str, excluded: Pairs | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of the first rows for every row, with the same bits of distances as the join.

    rows    : n, prepared
    first   : m, of the same kind, in the order of their ids
    own     : int (n,), the row's own place among the first rows, -1 where it is none of them
    excluded : pairs of a row and a first row, which the row must not be given
    returns : int64 (n, k), places among the first rows, by (distance, place), -1 where there are fewer; float32 (n, k),
              distances, inf where there are fewer
    """
    n, m = len_of(rows), len_of(first)
    neighbors, distances = np.full((n, k), -1), np.full((n, k), np.inf, np.float32)
    if isinstance(rows, Grouped):
        for name in np.intersect1d(rows.group, first.group):
            some, among = np.flatnonzero(rows.group == name), np.flatnonzero(first.group == name)
            place = np.full(m + 1, -1)
            place[among] = np.arange(len(among))
            pairs = excluded.between(some, among) if excluded is not None else None
            ends = take_rows(rows.vectors, some), take_rows(first.vectors, among)
            found, distances[some] = nearest_first_rows(*ends, place[own[some]], k, metric, pairs)
            neighbors[some] = np.where(found >= 0, among[found], -1)
        return neighbors, distances
    step = max(1, _PAIRS // max(1, m))
    for start in range(0, n, step):
        some, mine = slice_rows(rows, start, start + step), own[start : start + step]
        keys = pack(METRICS[metric].from_raw(_all_raw(some, first, metric)), np.arange(m))
        itself = np.flatnonzero(mine >= 0)
        keys[itself, mine[itself]] = EMPTY
        if excluded is not None:
            keys[excluded.of_rows(np.arange(start, start + len(keys)))] = EMPTY
        if k < m:
            keys = np.partition(keys, k - 1, axis=1)[:, :k]
        keys.sort(axis=1)
        here = slice(start, start + len(keys))
        distances[here, : keys.shape[1]], neighbors[here, : keys.shape[1]] = unpack(keys)
    return neighbors, distances


def _all_raw(rows: Vectors, first: Vectors, metric: str) -> np.ndarray:
    """Return all raw distances: float32 (n, m)."""
    n, m = len_of(rows), len_of(first)
    if not is_sparse(rows):
        one, other = np.divmod(np.arange(n * m), max(1, m))
        return measure_for(metric, rows).exact(rows, one, first, other).astype(np.float32, copy=False).reshape(n, m)
    columns = distinct(first.indices)
    left, right = (renumbered(part, columns).astype(np.float64) for part in (rows, first))
    products = (left @ right.T.tocsr()).toarray()
    raw = SparseProducts(metric).from_products(squared_lengths(rows)[:, None], squared_lengths(first), products)
    return raw.astype(np.float32)


def expected_products(sample: Vectors, rows: int, queries: int) -> float:
    """Return the number of products of two numbers that it takes to multiply queries and rows like the sampled ones.

    rows, queries : how many there are of either
    """
    _, counts = np.unique(plain(sample).indices, return_counts=True)
    share = counts / max(1, len_of(sample))
    return float((share**2).sum()) * rows * queries
