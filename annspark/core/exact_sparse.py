"""Brute force among sparse rows: a product of sparse matrices for related pairs, and one order for unrelated ones.

Two rows are related if their product is not 0.  A product of sparse matrices takes time for each column that a pair
shares, and none for pairs that share no column.  Compared with 2,000 queries:
    100,000 rows of 55 numbers     1.7 s, with the queries made dense 16 s
    120,000 rows of 2.5 numbers    0.02 s, with the queries made dense 2.5 s
All unrelated rows are equally far from a query, or under euclidean distance the farther the longer they are.  So the
unrelated rows have one order for all queries, ties by hash, and each query needs only the first few of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from annspark.core.arrays import distinct
from annspark.core.distance import SparseProducts
from annspark.core.excluded import Pairs
from annspark.core.metric import METRICS
from annspark.core.nearest_lists import Nearest, find_entering, merge_pairs, search_groups
from annspark.core.vectors import (
    Grouped,
    Vectors,
    len_of,
    owner_of,
    renumbered,
    slice_rows,
    squared_lengths,
    take_rows,
)

_PRODUCTS = 1 << 20  # products of two numbers made at once: some 100 MB with what follows from them
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # row, query and distance of pairs
_ROUNDING = 1e-6  # error of a squared distance in float32, as a share of the squared lengths
_WAITING = 4  # candidates that wait to be merged, at most, as a multiple of the neighbors in all lists


def search_sparse(
    queries: Vectors, vectors: Vectors, hashes: np.ndarray, lists: Nearest, metric: str, excluded: Pairs | None = None
) -> Nearest:
    """Compare queries with some more vectors, and return new lists of the nearest of each query.

    queries, vectors : sparse, prepared; at least one of either
    hashes           : int64 (n,), of the vectors' ids
    excluded         : pairs of a query and a vector, which the query must not be given
    """
    pairs = _Pairs(queries, vectors, metric, lists.distances.dtype, excluded)
    lists = _search_related(pairs, hashes, lists)
    for some in pairs.unrelated(hashes, lists):
        lists = _merged_lists(lists, [_entering_pairs(lists, some, hashes)], hashes)
    return lists


def search_related(
    queries: Vectors, vectors: Vectors, hashes: np.ndarray, lists: Nearest, metric: str, excluded: Pairs | None = None
) -> Nearest:
    """Do what search_sparse does for related pairs alone, those whose product is not 0; of groups, within each."""
    if isinstance(vectors, Grouped):
        return search_groups(search_related, queries, vectors, hashes, lists, metric, excluded)
    return _search_related(_Pairs(queries, vectors, metric, lists.distances.dtype, excluded), hashes, lists)


def _search_related(pairs: "_Pairs", hashes: np.ndarray, lists: Nearest) -> Nearest:
    waiting: list[_Found] = []
    for start, end in pairs.blocks():
        waiting.append(_entering_pairs(lists, pairs.related(start, end, lists.distances[:, -1]), hashes))
        if sum(len(row) for row, _, _ in waiting) > _WAITING * lists.distances.size:
            lists, waiting = _merged_lists(lists, waiting, hashes), []
    return _merged_lists(lists, waiting, hashes)


def _entering_pairs(lists: Nearest, found: _Found, hashes: np.ndarray) -> _Found:
    row, query, distance = found
    enters = find_entering(lists, query, distance, hashes.take(row))
    return row.take(enters), query.take(enters), distance.take(enters)


def _merged_lists(lists: Nearest, waiting: list[_Found], hashes: np.ndarray) -> Nearest:
    if not waiting:
        return lists
    row, query, distance = (np.concatenate(part) for part in zip(*waiting, strict=True))
    return merge_pairs(lists, query, distance, hashes.take(row)) if len(row) else lists


class _Pairs:
    """Queries and vectors, both without the columns that no query has, and the distances between them."""

    def __init__(self, queries: Vectors, vectors: Vectors, metric: str, kind: np.dtype[Any], excluded: Pairs | None):
        self.excluded = excluded
        self.kernel, self.kind = SparseProducts(metric), kind
        self.facts = METRICS[metric]
        self.from_raw, self.to_raw = self.facts.from_raw, self.facts.to_raw
        self.lengths, self.query_lengths = squared_lengths(vectors), squared_lengths(queries)
        columns = distinct(queries.indices)
        self.vectors = renumbered(vectors, columns).astype(np.float64)
        self.queries = renumbered(queries, columns).astype(np.float64)
        self.right = self.queries.T.tocsr()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Return first row and end of blocks of the vectors, for each of which few enough products are made."""
        each = np.diff(self.right.indptr).take(self.vectors.indices)
        work = np.cumsum(np.bincount(owner_of(self.vectors), each, minlength=len_of(self.vectors)))
        cut = np.searchsorted(work, np.arange(_PRODUCTS, work[-1], _PRODUCTS), side="right")
        cut = np.unique(np.concatenate([[0], cut, [len(work)]]))
        return zip(cut[:-1].tolist(), cut[1:].tolist(), strict=True)

    def related(self, start: int, end: int, bar: np.ndarray) -> _Found:
        """Return the related pairs of rows start..end whose distance may be within the query's bar.

        bar : (n_queries,), distances
        """
        products = slice_rows(self.vectors, start, end) @ self.right
        # Products are compared with a bound, since to measure all distances would take longer than the products do.
        least = self.kernel.least_product(self.query_lengths, self.to_raw(bar).astype(np.float64))
        some = np.flatnonzero((products.data >= least.take(products.indices)) & (products.data != 0))
        row = np.searchsorted(products.indptr, some, side="right") - 1 + start
        query = products.indices.take(some)
        if self.excluded is not None:
            kept = ~self.excluded.hold(query, row)
            row, query, some = row[kept], query[kept], some[kept]
        return row, query, self._distance(row, query, products.data.take(some))

    def unrelated(self, hashes: np.ndarray, lists: Nearest) -> Iterator[_Found]:
        """Yield unrelated pairs: for each query all that may get into its list."""
        empty = self.query_lengths == 0
        if not self.facts.sets:
            by_length = np.isinf(self.facts.unrelated)
            sizes = self.lengths if by_length else np.zeros(len(self.lengths))
            yield from self._first_unrelated(np.arange(len(empty)), sizes, hashes, lists, _ROUNDING if by_length else 0)
            return
        # Empty sets are nearest to each other.  From any other set all unrelated sets are equally far.
        for queries, sizes in ((empty, self.lengths > 0), (~empty, np.zeros(len(self.lengths)))):
            yield from self._first_unrelated(np.flatnonzero(queries), sizes, hashes, lists, 0)

    def _first_unrelated(
        self, queries: np.ndarray, sizes: np.ndarray, hashes: np.ndarray, lists: Nearest, rounding: float
    ) -> Iterator[_Found]:
        """Yield unrelated pairs of some queries, in the order of the rows' sizes, until the lists have all they need.

        queries  : int, the queries for which that is the order of distances
        sizes    : (n,), of the rows
        rounding : distances may be equal where sizes differ by no more than this share of both squared lengths
        """
        nearest = np.lexsort((hashes, sizes))
        bar, m = lists.distances[:, -1], lists.distances.shape[1]
        lacking = np.full(len(queries), m)
        start = 0
        while start < len(nearest):
            last, following = sizes[nearest[max(0, start - 1)]], nearest[start : start + 1]
            ties = sizes[following] < last + rounding * (self.query_lengths.take(queries) + last)
            may_enter = self._distance(following, queries) <= bar.take(queries)
            unfinished = ((lacking > 0) | ties) & may_enter
            queries, lacking = queries[unfinished], lacking[unfinished]
            if len(queries) == 0:
                return
            # Most queries are related to few rows, so that 2 m rows give them m unrelated ones.
            rows = nearest[start : start + max(start, 2 * m)]
            start += len(rows)
            right = take_rows(self.vectors, rows).T.tocsr()
            step = max(1, _PRODUCTS // len(rows))
            for first in range(0, len(queries), step):
                some = queries[first : first + step]
                query, place = np.nonzero((take_rows(self.queries, some) @ right).toarray() == 0)
                if self.excluded is not None:
                    kept = ~self.excluded.hold(some.take(query), rows.take(place))
                    query, place = query[kept], place[kept]
                lacking[first : first + step] -= np.bincount(query, minlength=len(some))
                row, query = rows.take(place), some.take(query)
                yield row, query, self._distance(row, query)

    def _distance(self, row: np.ndarray, query: np.ndarray, product: np.ndarray | float = 0.0) -> np.ndarray:
        product = np.broadcast_to(product, np.broadcast_shapes(row.shape, query.shape))
        lengths = self.lengths.take(row), self.query_lengths.take(query)
        return self.from_raw(self.kernel.from_products(*lengths, product).astype(self.kind, copy=False))
