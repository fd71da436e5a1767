"""Brute force in blocks: the exact answer every approximate one is judged by."""

import numpy as np

from annspark.core.best import Nearest, merged
from annspark.core.distance import kernel_for, middle_of
from annspark.core.exact_sparse import meet_sparse
from annspark.core.metric import METRICS
from annspark.core.nearest import few_at_most
from annspark.core.vectors import Vectors, is_sparse, len_of, surplus_twins, take_rows

_TILE = 1 << 18  # bounds of one product: 1 MB, so that they are still in the second-level cache when compared
_FIRST = 32  # vectors met first, of which every distance is taken
_STRETCH = 4096  # most vectors between two updates of the bars


def meet(queries: Vectors, vectors: Vectors, hashes: np.ndarray, best: Nearest, metric: str) -> Nearest:
    """Return the nearest of each query among some more vectors and those met before.

    Distances are measured in the precision of the vectors, and kept in that of best.  A vector has to beat its query's
    bar, the largest distance kept so far.  Few do once some thousands have been met, so that a call costs little more
    than its matrix products.

    queries : n_queries, dense or sparse, prepared
    vectors : n, of the same kind
    hashes  : int64 (n,)
    best    : not changed
    """
    n, n_queries = len_of(vectors), len_of(queries)
    if n == 0 or n_queries == 0:
        return best
    surplus, _ = surplus_twins(vectors, best.distances.shape[1], hashes)
    if len(surplus):
        kept = np.delete(np.arange(n), surplus)
        vectors, hashes = take_rows(vectors, kept), hashes[kept]
    return (meet_sparse if is_sparse(vectors) else _meet)(queries, vectors, hashes, best, metric)


def _meet(queries: np.ndarray, vectors: np.ndarray, hashes: np.ndarray, best: Nearest, metric: str) -> Nearest:
    """Do so for dense vectors, of which no more are equal than are asked for."""
    n, n_queries = len(vectors), len(queries)
    kernel, facts = kernel_for(metric, vectors.shape[1]), METRICS[metric]
    # Around a centre of the bulk the products keep their digits.
    centre = middle_of(vectors) if kernel.moves else None
    right = kernel.facing(kernel.side(queries, np.arange(n_queries), centre))
    step = 16 * max(1, _TILE // n_queries // 16)  # a multiple of 16 is what few_at_most likes
    scratch = np.empty(step * n_queries, np.float32)
    # Bars fall fast at first: a stretch is as long as all before it, so that a query keeps few of each.
    stretch = _FIRST if np.isinf(best.distances[:, -1]).any() else _STRETCH
    end = 0
    while end < n:
        start, end = end, min(end + stretch, n)
        stretch = min(2 * stretch, _STRETCH)
        bar = best.distances[:, -1]
        # Nothing is nearer than the lowest there is: twins in any number cost nothing.
        limit = np.where(bar > kernel.lowest, facts.to_raw(bar), -np.inf).astype(np.float32)
        rows, asked = [], []
        for first in range(start, end, step):
            left = kernel.side(vectors, np.arange(first, min(first + step, end)), centre)
            row, query, _ = few_at_most(kernel.tile(left, right, 0, 0, scratch), limit)
            rows.append(first + row)
            asked.append(query)
        row, query = np.concatenate(rows), np.concatenate(asked)
        if len(row):
            raw = kernel.exact(queries, query, vectors, row)
            distance = facts.from_raw(raw.astype(best.distances.dtype, copy=False))
            best = merged(best, query, distance, hashes[row])
    return best


def exact_neighbors(vectors: np.ndarray, rows: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact k nearest other rows of some rows, pair by pair: slow, short, obviously right.

    vectors : float32 (n, dim), prepared; not for jaccard
    rows    : int (m,), the rows to answer for
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
        else:
            raw = np.einsum("ij,ij->i", difference, difference)
        distance = METRICS[metric].from_raw(raw)
        distance[row] = np.inf
        nearest = np.argsort(distance, kind="stable")[: min(k, len(vectors) - 1)]
        neighbors[i, : len(nearest)], distances[i, : len(nearest)] = nearest, distance[nearest]
    return neighbors, distances
