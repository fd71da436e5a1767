"""Brute force in blocks: the exact answer every approximate one is judged by."""

import numpy as np

from annspark.core.distance import kernel_for, middle_of
from annspark.core.exact_sparse import search_sparse
from annspark.core.excluded import Pairs
from annspark.core.metric import METRICS
from annspark.core.nearest_lists import Nearest, merge_pairs, search_groups
from annspark.core.selection import few_at_most
from annspark.core.vectors import Grouped, Vectors, is_sparse, len_of, surplus_twins, take_rows

_TILE = 1 << 18  # bounds of one product: 1 MB, so that they are still in the second-level cache when compared
_FIRST = 32  # vectors compared before there are bars: every distance is measured
_STRETCH = 4096  # vectors between two updates of the bars, at most


def search_exactly(
    queries: Vectors,
    vectors: Vectors,
    hashes: np.ndarray,
    lists: Nearest,
    metric: str,
    excluded: Pairs | None = None,
) -> Nearest:
    """Compare queries with some more vectors, and return new lists of the nearest of each query.

    Distances are measured in the precision of the vectors, and kept in that of the lists.  A vector has to beat the
    query's bar, the largest distance in its list.  Few do after some thousands were compared, so that a call costs
    little more than its matrix products.

    queries  : n_queries, dense or sparse, prepared
    vectors  : n, of the same kind
    hashes   : int64 (n,), of the vectors' ids
    lists    : the nearest among the vectors compared before; not changed
    excluded : pairs of a query and a vector, which the query must not be given
    """
    n, n_queries = len_of(vectors), len_of(queries)
    if n == 0 or n_queries == 0:
        return lists
    if isinstance(vectors, Grouped):
        return search_groups(search_exactly, queries, vectors, hashes, lists, metric, excluded)
    if excluded is not None and len(excluded.row):
        # Twins of an excluded vector cannot stand for it, so they are all compared.
        return (search_sparse if is_sparse(vectors) else _search_dense)(
            queries, vectors, hashes, lists, metric, excluded
        )
    surplus, _ = surplus_twins(vectors, lists.distances.shape[1], hashes)
    if len(surplus):
        others = np.delete(np.arange(n), surplus)
        vectors, hashes = take_rows(vectors, others), hashes[others]
    return (search_sparse if is_sparse(vectors) else _search_dense)(queries, vectors, hashes, lists, metric, None)


def _search_dense(
    queries: np.ndarray,
    vectors: np.ndarray,
    hashes: np.ndarray,
    lists: Nearest,
    metric: str,
    excluded: Pairs | None,
) -> Nearest:
    """Do what search_exactly does for dense vectors, of which no more are equal than a list holds."""
    n, n_queries = len(vectors), len(queries)
    kernel, facts = kernel_for(metric, vectors.shape[1]), METRICS[metric]
    # With the median subtracted, products lose few digits.
    centre = middle_of(vectors) if facts.moves else None
    right = kernel.facing(kernel.side(queries, np.arange(n_queries), centre))
    step = 16 * max(1, _TILE // n_queries // 16)  # few_at_most is fast for a multiple of 16
    scratch = np.empty(step * n_queries, np.float32)
    # Bars fall fast at first.  A stretch is as long as all before it together, so that few of its vectors beat a bar.
    stretch = _FIRST if np.isinf(lists.distances[:, -1]).any() else _STRETCH
    end = 0
    while end < n:
        start, end = end, min(end + stretch, n)
        stretch = min(2 * stretch, _STRETCH)
        bar = lists.distances[:, -1]
        # A bar at the lowest possible distance cannot be beaten: further twins of the query cost nothing.
        limit = np.where(bar > kernel.lowest, facts.to_raw(bar), -np.inf).astype(np.float32)
        found_rows, found_queries = [], []
        for first in range(start, end, step):
            left = kernel.side(vectors, np.arange(first, min(first + step, end)), centre)
            row, query, _ = few_at_most(kernel.tile(left, right, 0, 0, scratch), limit)
            found_rows.append(first + row)
            found_queries.append(query)
        row, query = np.concatenate(found_rows), np.concatenate(found_queries)
        if excluded is not None:
            kept = np.flatnonzero(~excluded.hold(query, row))
            row, query = row.take(kept), query.take(kept)
        if len(row):
            raw = kernel.exact(queries, query, vectors, row)
            distance = facts.from_raw(raw.astype(lists.distances.dtype, copy=False))
            lists = merge_pairs(lists, query, distance, hashes[row])
    return lists
