"""Brute force in blocks: the exact answer every approximate one is judged by."""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.nearest import few_at_most, places
from annspark.core.rows import Vectors, len_of, surplus_twins, take_rows
from annspark.core.score import kernel_for, middle_of

_TILE = 1 << 18  # bounds of one product: 1 MB, so that they are still in the second-level cache when compared
_FIRST = 32  # vectors met first, of which every distance is taken
_STRETCH = 4096  # most vectors between two updates of the bars


@dataclass(frozen=True)
class Nearest:
    """The nearest vectors of each query so far, in the order of (distance, hash), whatever order they were met in.

    Of more than m that are one and the same vector any m may be kept.

    distances : float32 (n_queries, m), exact, inf where fewer were met; a query's own row counts too
    hashes    : int64 (n_queries, m), of the vectors' ids; 0 where fewer were met
    """

    distances: np.ndarray
    hashes: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        """The distance of the last, 0 where nobody is asked for: float32 (n_queries,)."""
        return self.distances[:, -1] if self.distances.shape[1] else np.zeros(len(self.distances), np.float32)


def nobody_met(n_queries: int, m: int) -> Nearest:
    """Return what is known before the first vector."""
    return Nearest(np.full((n_queries, m), np.inf, np.float32), np.zeros((n_queries, m), np.int64))


def meet(queries: Vectors, vectors: Vectors, hashes: np.ndarray, best: Nearest, metric: str) -> Nearest:
    """Return the nearest of each query among some more vectors and those met before.

    A vector has to beat its query's bar, the largest distance kept so far.  Few do once some thousands have been met,
    so that a call costs little more than its matrix products.

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
    most = kernel_for(metric, vectors).most
    parts = []
    for start in range(0, n_queries, most):
        some = np.arange(start, min(start + most, n_queries))
        mine = Nearest(best.distances[some], best.hashes[some])
        parts.append(_meet(take_rows(queries, some), vectors, hashes, mine, metric))
    return (
        parts[0]
        if len(parts) == 1
        else Nearest(
            np.concatenate([part.distances for part in parts]), np.concatenate([part.hashes for part in parts])
        )
    )


def _meet(queries: Vectors, vectors: Vectors, hashes: np.ndarray, best: Nearest, metric: str) -> Nearest:
    """Do so for few enough queries to be on one side of a tile, and no more equal vectors than are asked for."""
    n, n_queries = len_of(vectors), len_of(queries)
    kernel, facts = kernel_for(metric, vectors), METRICS[metric]
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
            distance = facts.from_raw(kernel.exact(queries, query, vectors, row))
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
