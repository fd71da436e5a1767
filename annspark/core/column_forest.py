"""The forest of sparse rows.  Each column has a leaf; the home of a row is the leaf of its most important column.

Rows near each other share a column that matters to one of them.  In the first tree the home of a row is the leaf of its
most important column, in the second tree that of its second column, and so on.  A row visits the leaves of its other
columns, the more important ones first.

No centres are needed, and few pairs are compared.  Recall, by pairs compared a row, against that of leaves around the
centres of a learned projection to 128 numbers:
    word x subreddit counts    0.976 by 1,000    centres: 0.935 by 15,000
    tf-idf of titles           0.987 by 1,160    centres: 0.42 by 11,000
Source: all-pairs search by inverted lists of the heaviest columns (Bayardo, Ma, Srikant 2007, WWW, "Scaling up all
pairs similarity search").

The largest inner products are mostly with the longest rows, whichever columns they share: of word counts, 96 % are with
100 rows of 100,000.  So under the inner product the longest rows are hubs, which visit every leaf and thus are compared
with all rows.  There are as many hubs as the limits below allow.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from annspark.core.arrays import places_in_groups
from annspark.core.metric import METRICS
from annspark.core.packing import low_bits
from annspark.core.routes import SAME_LEAF, Routes, within_reaches
from annspark.core.vectors import Vectors, len_of, owner_of, squared_lengths

_RARITY = 0.25  # importance is frequency ** -_RARITY: rarer columns make smaller leaves
_RECURS = 3  # columns that fewer rows have come after all other columns of a row: they bring few rows together
_MOST = 8  # a row may go to this many times the mean number of leaves, at most
_HUBS = 2_000  # hubs, at most
_HUB_SHARE = 0.1  # share of all rows that are hubs, at most
_HUB_PAIRS = 500  # hubs that share a column with a row, at most, on average
_HUB_PRODUCTS = 5_000  # products of two numbers that hubs cost a row, at most, on average


@dataclass(frozen=True)
class ColumnForest:
    """Trees of leaves, each leaf of one column or of several; all trees have the same leaves.

    columns    : int32 (n_known,), ascending, the known columns: those of the sample; each has a leaf of its own
    importance : float32 (n_known,); a number x in a column is worth |x| * importance
    unknown    : importance of all other columns
    n_shared   : number of leaves that all other columns share, by a hash
    homes      : for each tree the place, from 0, of the home among the leaves of a row, the most worth first
    longest    : squared length of the longest row that is no hub; inf where no row is one
    """

    columns: np.ndarray
    importance: np.ndarray
    unknown: float
    n_shared: int
    homes: tuple[int, ...]
    longest: float = np.inf

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of leaves of each tree: of known columns, shared ones, and one for rows without numbers."""
        return (len(self.columns) + self.n_shared + 1,) * len(self.homes)

    @property
    def shared_leaves(self) -> range:
        """None: there are no groups."""
        return range(0)

    @property
    def gains_by_trees(self) -> bool:
        """True: a tree of homes by the next column finds neighbors that visits by more columns do not."""
        return True

    def find_routes(self, rows: Vectors, probes: float) -> list[Routes]:
        """Return for each tree the home of every row, and the leaves it may visit, see Forest.

        A row has no home in a tree if it has too few columns.  The margin of a leaf is 1 - worth / (worth of the row's
        first leaf).
        """
        by_worth, hubs = self._by_worth(rows), self.are_hubs(rows)
        near = np.flatnonzero(by_worth.place < self.most_leaves(probes))
        row, leaf, margin, place = (
            part[near] for part in (by_worth.owner, by_worth.leaf, by_worth.margin, by_worth.place)
        )
        routes = []
        for home in self.homes:
            at_home = place == home
            margins = np.where(at_home, np.float32(0), margin)
            of_all = Routes(n_rows=len(hubs), row=row, leaf=leaf, margin=margins, home=at_home)
            routes.append(of_all.take(at_home | ~hubs[row]) if hubs.any() else of_all)
        return routes

    def find_reached(self, rows: Vectors, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the home of every row and the leaves within reach, see Forest."""
        return within_reaches(self.find_routes(rows, probes), reach)

    def find_query_reached(self, queries: Vectors, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the leaves that queries go to, see Forest."""
        return within_reaches(self.find_query_routes(queries, probes), reach)

    def find_query_routes(self, queries: Vectors, probes: float) -> list[Routes]:
        """Return for each tree the leaves that queries may go to, see Forest: in all trees the same ones."""
        by_worth = self._by_worth(queries)
        near = np.flatnonzero(by_worth.place < self.most_leaves(probes))
        row, leaf, margin, place = (
            part[near] for part in (by_worth.owner, by_worth.leaf, by_worth.margin, by_worth.place)
        )
        return [Routes(n_rows=by_worth.n_rows, row=row, leaf=leaf, margin=margin, home=place == 0)] * len(self.homes)

    def find_query_distances(
        self, queries: Vectors, i: np.ndarray, rows: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return leaves_nearer and margins of queries[i] and the homes of rows[j], see Forest.

        A margin is inf where a query lacks the column that the row is at home in.
        """
        leaves_nearer = np.full((len(i), len(self.homes)), np.iinfo(np.int32).max, np.int32)
        margins = np.full(leaves_nearer.shape, np.inf, np.float32)
        asking, others = self._by_worth(queries), self._by_worth(rows)
        for tree, home in enumerate(self.homes):
            found, at = asking.find(i, others.leaf_at(home)[j])
            place = asking.place[at]
            leaves_nearer[found, tree] = place
            margins[found, tree] = np.where(place == 0, np.float32(SAME_LEAF), asking.margin[at])
        hubs = self.are_hubs(rows)[j]
        leaves_nearer[hubs], margins[hubs] = 0, SAME_LEAF
        return leaves_nearer, margins

    def find_home_distances(
        self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return leaves_nearer and margins of left[i] and right[j], see Forest.

        A margin is inf where a row lacks the column that the other is at home in.
        """
        leaves_nearer = np.full((len(i), 2 * len(self.homes)), np.iinfo(np.int32).max, np.int32)
        margins = np.full(leaves_nearer.shape, np.inf, np.float32)
        # The leaves of a row are sorted once, however many pairs it is in: a long row may be a neighbor of all others.
        ends = [(self._by_worth(rows), pair) for rows, pair in ((left, i), (right, j))]
        for tree, home in enumerate(self.homes):
            homes = [by_worth.leaf_at(home)[pair] for by_worth, pair in ends]
            for way, ((by_worth, pair), other_home) in enumerate(zip(ends, homes[::-1], strict=True)):
                found, at = by_worth.find(pair, other_home)
                leaves_nearer[found, 2 * tree + way] = by_worth.place[at]
                margins[found, 2 * tree + way] = by_worth.margin[at]
            together = np.flatnonzero((homes[0] == homes[1]) & (homes[0] >= 0))
            leaves_nearer[together, 2 * tree : 2 * tree + 2] = 0
            margins[together, 2 * tree : 2 * tree + 2] = SAME_LEAF
        has_hub = self.are_hubs(left)[i] | self.are_hubs(right)[j]
        leaves_nearer[has_hub], margins[has_hub] = 0, SAME_LEAF
        return leaves_nearer, margins

    def are_hubs(self, rows: Vectors) -> np.ndarray:
        """Return which rows are hubs, which visit every leaf of the first tree: bool (n,)."""
        return squared_lengths(rows) > self.longest

    def most_probes(self, sample: Vectors) -> float:
        """Return how many leaves of a tree rows like the sampled ones can go to on average."""
        return max(1.0, len(self._by_worth(sample).leaf) / max(1, len_of(sample)))

    def most_leaves(self, probes: float) -> int:
        """Return how many leaves of a tree a row may go to at most, when it goes to probes leaves on average."""
        return max(max(self.homes) + 1, ceil(_MOST * probes) if probes > 1 else 1)

    def first(self, n_trees: int) -> "ColumnForest":
        """Return the forest of the first trees."""
        return replace(self, homes=self.homes[:n_trees])

    def _by_worth(self, rows: Vectors) -> "_ByWorth":
        """Return the leaves of every row, the most worth first.

        A shared leaf of several columns of a row comes once, in the place of the first of them.
        """
        at = np.searchsorted(self.columns, rows.indices).clip(max=max(0, len(self.columns) - 1))
        known = self.columns[at] == rows.indices if len(self.columns) else np.zeros(len(at), bool)
        importance = self.importance[at] if len(self.columns) else np.float32(0)
        worth = np.abs(rows.data) * np.where(known, importance, np.float32(self.unknown))
        hashed = (rows.indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
        leaf = np.where(known, at, len(self.columns) + hashed.astype(np.int64) % max(1, self.n_shared))
        counts = np.diff(rows.indptr)
        empty = rows.indptr[:-1][counts == 0]
        if len(empty):
            leaf, worth = np.insert(leaf, empty, self.sizes[0] - 1), np.insert(worth, empty, 1)
            counts = np.maximum(counts, 1)
        order, owner = _most_worth_first(worth, counts), np.repeat(np.arange(len(counts)), counts)
        shared = np.flatnonzero(leaf[order] >= len(self.columns))
        if self.n_shared and len(shared):
            _, first = np.unique(owner[shared] * self.sizes[0] + leaf[order[shared]], return_index=True)
            once = np.ones(len(order), bool)
            once[shared], once[shared[first]] = False, True
            order, owner = order[once], owner[once]
            counts = np.bincount(owner, minlength=len(counts))
        leaf, worth, start = leaf[order], worth[order], np.cumsum(counts) - counts
        top = np.repeat(worth[start], counts)
        margin = 1 - np.where(top > 0, worth, 1) / np.where(top > 0, top, 1)  # worth may be too small for float32
        return _ByWorth(
            n_rows=len(counts),
            owner=owner,
            leaf=leaf.astype(np.int32),
            margin=margin,
            place=places_in_groups(counts),
        )


def _most_worth_first(worth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the order that sorts the numbers of every row, the largest first, ties by their place in the row.

    worth  : float32 (n,), none negative, row after row
    counts : int (n_rows,), numbers of each row
    """
    ends = np.cumsum(counts)
    order = np.empty(len(worth), np.int64)
    place_bits = int(counts.max(initial=1)).bit_length()
    # A key of 64 bits: row of the block | bits of worth, inverted (32 bits) | place in the row.
    rows = 1 << max(0, 32 - place_bits)
    for first in range(0, len(counts), rows):
        some = counts[first : first + rows]
        start, end = ends[first] - counts[first], ends[first + len(some) - 1]
        keys = np.repeat(np.arange(len(some), dtype=np.uint64), some) << np.uint64(32 + place_bits)
        keys |= (~worth[start:end].view(np.uint32)).astype(np.uint64) << np.uint64(place_bits)
        keys |= places_in_groups(some).astype(np.uint64)
        keys.sort()
        in_row = (keys & low_bits(np.uint64(place_bits))).astype(np.int64)
        order[start:end] = in_row + np.repeat(ends[first : first + rows] - some, some)
    return order


@dataclass(frozen=True)
class _ByWorth:
    """The leaves of rows, row by row, the most worth first.

    n_rows : number of rows
    owner  : int (n,), a row
    leaf   : int32 (n,), one of its leaves
    margin : float32 (n,), of that leaf
    place  : int (n,), its place among the leaves of the row, from 0
    """

    n_rows: int
    owner: np.ndarray
    leaf: np.ndarray
    margin: np.ndarray
    place: np.ndarray

    def leaf_at(self, place: int) -> np.ndarray:
        """Return the leaf at one place of every row, -1 where a row has fewer leaves: int (n_rows,)."""
        leaves = np.full(self.n_rows, -1, np.int64)
        leaves[self.owner[self.place == place]] = self.leaf[self.place == place]
        return leaves

    def find(self, rows: np.ndarray, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find pairs of a row and a leaf among the entries.

        rows, leaves : int (n_pairs,); a leaf of -1 is in no entry
        returns      : int (n_found,), which pairs there are; int (n_found,), the entry of each
        """
        order, keys, n_leaves = self._sorted_keys
        wanted = rows * n_leaves + leaves
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        found = np.flatnonzero((leaves >= 0) & (leaves < n_leaves) & (keys[at] == wanted))
        return found, order[at[found]]

    @cached_property
    def _sorted_keys(self) -> tuple[np.ndarray, np.ndarray, int]:
        n_leaves = int(self.leaf.max()) + 1
        keys = self.owner * n_leaves + self.leaf
        order = np.argsort(keys)
        return order, keys[order], n_leaves


def grow_columns(sample: Vectors, rows: int, n_leaves: int, *, homes: tuple[int, ...], metric: str) -> ColumnForest:
    """Return the forest for rows like the sampled ones.

    sample   : n_sample sparse rows, prepared
    rows     : number of all rows
    n_leaves : number of leaves that columns outside the sample share
    homes    : for each tree, see ColumnForest
    """
    columns, counts = np.unique(sample.indices, return_counts=True)
    each = rows / max(1, len_of(sample))
    expected = np.maximum(counts * each, 1)
    importance = expected**-_RARITY * np.where(expected < _RECURS, 1e-6, 1)
    # A column outside the sample is taken for half as frequent as a column of one sampled row.
    unknown = (each / 2) ** -_RARITY
    longest = _longest_but_hubs(sample, columns, expected / rows, each) if METRICS[metric].largest else np.inf
    return ColumnForest(
        columns=columns.astype(np.int32),
        importance=importance.astype(np.float32),
        unknown=unknown,
        n_shared=n_leaves,
        homes=homes,
        longest=longest,
    )


def _longest_but_hubs(sample: Vectors, columns: np.ndarray, share: np.ndarray, each: float) -> float:
    """Return the squared length of the longest row that is no hub; inf where even one hub would cost too much.

    columns : int (n_known,), ascending, columns of the sample
    share   : float (n_known,), share of all rows that have the column
    each    : number of rows that a sampled row stands for
    """
    lengths = squared_lengths(sample)
    shared = np.bincount(owner_of(sample), share[np.searchsorted(columns, sample.indices)], minlength=len(lengths))
    order = np.argsort(-lengths, kind="stable")
    products, pairs = (np.cumsum(costs[order]) * each for costs in (shared, np.minimum(shared, 1)))
    affordable = int(np.count_nonzero((products <= _HUB_PRODUCTS) & (pairs <= _HUB_PAIRS)))
    n_hubs = min(affordable, int(_HUBS / each), int(_HUB_SHARE * len(order)))
    return float(lengths[order[min(n_hubs, len(order) - 1)]]) if n_hubs else np.inf
