"""Routing of sparse rows: a leaf for every column, where the rows live in which the column matters most.

Rows near each other share a column that matters to one of them.  A row lives in the leaf of its most important column
(in the next tree, of the second, and so on) and visits those of its others, the more important ones first.  No centre
is needed, and the pairs compared are few: recall 0.976 of word x subreddit counts by 1,000 pairs a row, where leaves
around centres of a learned projection to 128 numbers need 15,000 for 0.935; of tf-idf titles 0.987 by 1,160, where they
find 0.42 by 11,000.
Source: all-pairs search by inverted lists of the heaviest columns (Bayardo, Ma, Srikant 2007, WWW, "Scaling up all
pairs similarity search").

The largest inner products are mostly with the longest rows, whatever columns they share (of word counts 96 % with 100
rows of 100,000): so many of those as cost little, hubs, meet everybody.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.nearest import places
from annspark.core.routes import Routes
from annspark.core.topk import low_bits
from annspark.core.vectors import Vectors, len_of, owner_of, squared_lengths
from annspark.core.visit import TOGETHER

_RARITY = 0.25  # power of a column's frequency its importance is divided by: rarer columns make smaller leaves
_RECURS = 3  # a column of fewer rows is no place to live
_MOST = 8  # of the columns of a row, how many times the mean number of visits it may visit
# At most: hubs, their share of all rows, and for a row the hubs it shares a column with and the numbers multiplied.
_HUBS, _HUB_SHARE, _HUB_PAIRS, _HUB_PRODUCTS = 2_000, 0.1, 500, 5_000


@dataclass(frozen=True)
class ColumnForest:
    """Leaves of columns; every tree has the same ones.

    columns    : int32 (n_known,), ascending, those the sample has
    importance : float32 (n_known,), what the numbers of a column are worth
    unknown    : what the numbers of other columns are worth
    buckets    : leaves that the other columns share
    homes      : of each tree, the place of the column a row lives in among its columns, from 0
    longest    : squared length of the longest row that is no hub
    """

    columns: np.ndarray
    importance: np.ndarray
    unknown: float
    buckets: int
    homes: tuple[int, ...]
    longest: float = np.inf

    @property
    def sizes(self) -> tuple[int, ...]:
        """Leaves of each tree: known columns, buckets, and one for rows without numbers."""
        return (len(self.columns) + self.buckets + 1,) * len(self.homes)

    @property
    def gains_by_trees(self) -> bool:
        """A tree by the next important column finds what further columns of the same row do not."""
        return True

    def find_routes(self, rows: Vectors, probes: float) -> list[Routes]:
        """Return per tree where rows live and what they may visit, as CentreForest does.

        A margin is what part of its most important column's worth a column lacks.  Rows of fewer columns live nowhere.
        """
        ranked, hubs = self._ranked(rows), self.are_hubs(rows)
        near = np.flatnonzero(ranked.place < self.candidates(probes))
        row, leaf, margin, place = (part[near] for part in (ranked.owner, ranked.leaf, ranked.margin, ranked.place))
        goals = []
        for home in self.homes:
            at_home = place == home
            one = Routes(len(hubs), row, leaf, np.where(at_home, np.float32(0), margin), at_home)
            goals.append(one.take(at_home | ~hubs[row]) if hubs.any() else one)
        return goals

    def find_chances(
        self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ranks and margins of left[i] and right[j] as Chances has them, ways in the order of the trees.

        i, j    : int (n_pairs,)
        returns : int32 and float32 (n_pairs, 2 * trees); margin inf where the one has not the other's column
        """
        ranks = np.full((len(i), 2 * len(self.homes)), np.iinfo(np.int32).max, np.int32)
        margins = np.full(ranks.shape, np.inf, np.float32)
        # A row is ranked once, whatever pairs it is in: a long one may be the neighbor of all.
        ends = [(self._ranked(rows), pair) for rows, pair in ((left, i), (right, j))]
        for tree, home in enumerate(self.homes):
            lives = [ranked.leaf_at(home)[pair] for ranked, pair in ends]
            for way, ((ranked, pair), goal) in enumerate(zip(ends, lives[::-1], strict=True)):
                found, at = ranked.find(pair, goal)
                ranks[found, 2 * tree + way] = ranked.place[at]
                margins[found, 2 * tree + way] = ranked.margin[at]
            together = np.flatnonzero((lives[0] == lives[1]) & (lives[0] >= 0))
            ranks[together, 2 * tree : 2 * tree + 2] = 0
            margins[together, 2 * tree : 2 * tree + 2] = TOGETHER
        meet_all = self.are_hubs(left)[i] | self.are_hubs(right)[j]
        ranks[meet_all], margins[meet_all] = 0, TOGETHER
        return ranks, margins

    def are_hubs(self, rows: Vectors) -> np.ndarray:
        """Return which rows visit every leaf of the first tree: bool (n,)."""
        return squared_lengths(rows) > self.longest

    def most_probes(self, sample: Vectors) -> float:
        """Return how many leaves of a tree rows like the sampled ones can go to on average."""
        return max(1.0, len(self._ranked(sample).leaf) / max(1, len_of(sample)))

    def candidates(self, probes: float) -> int:
        """Return how many leaves of a tree a row may go to at most."""
        return max(max(self.homes) + 1, ceil(_MOST * probes) if probes > 1 else 1)

    def first(self, n_trees: int) -> "ColumnForest":
        """Return the forest of the first trees."""
        return replace(self, homes=self.homes[:n_trees])

    def _ranked(self, rows: Vectors) -> "_Ranked":
        """Return the leaves of every row, the most important first.

        A bucket that several columns of a row share comes once, where the first of them does.
        """
        at = np.searchsorted(self.columns, rows.indices).clip(max=max(0, len(self.columns) - 1))
        known = self.columns[at] == rows.indices if len(self.columns) else np.zeros(len(at), bool)
        importance = self.importance[at] if len(self.columns) else np.float32(0)
        worth = np.abs(rows.data) * np.where(known, importance, np.float32(self.unknown))
        hashed = (rows.indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)
        leaf = np.where(known, at, len(self.columns) + hashed.astype(np.int64) % max(1, self.buckets))
        counts = np.diff(rows.indptr)
        empty = rows.indptr[:-1][counts == 0]
        if len(empty):
            leaf, worth = np.insert(leaf, empty, self.sizes[0] - 1), np.insert(worth, empty, 1)
            counts = np.maximum(counts, 1)
        order, owner = _heaviest_first(worth, counts), np.repeat(np.arange(len(counts)), counts)
        shared = np.flatnonzero(leaf[order] >= len(self.columns))
        if self.buckets and len(shared):
            _, first = np.unique(owner[shared] * self.sizes[0] + leaf[order[shared]], return_index=True)
            kept = np.ones(len(order), bool)
            kept[shared], kept[shared[first]] = False, True
            order, owner = order[kept], owner[kept]
            counts = np.bincount(owner, minlength=len(counts))
        leaf, worth, start = leaf[order], worth[order], np.cumsum(counts) - counts
        top = np.repeat(worth[start], counts)
        margin = 1 - np.where(top > 0, worth, 1) / np.where(top > 0, top, 1)  # all may be too small for float32
        return _Ranked(len(counts), owner, leaf.astype(np.int32), margin, places(counts))


def _heaviest_first(worth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the order of the numbers of every row, the largest first, of equal ones the first in the row.

    worth  : float32 (n,), none negative, row after row
    counts : int (n_rows,), numbers of each row
    """
    ends = np.cumsum(counts)
    order = np.empty(len(worth), np.int64)
    place_bits = int(counts.max(initial=1)).bit_length()
    # A key of 64 bits: row of the block | how little it is worth (32 bits) | place in the row.
    rows = 1 << max(0, 32 - place_bits)
    for first in range(0, len(counts), rows):
        some = counts[first : first + rows]
        start, end = ends[first] - counts[first], ends[first + len(some) - 1]
        keys = np.repeat(np.arange(len(some), dtype=np.uint64), some) << np.uint64(32 + place_bits)
        keys |= (~worth[start:end].view(np.uint32)).astype(np.uint64) << np.uint64(place_bits)
        keys |= places(some).astype(np.uint64)
        keys.sort()
        in_row = (keys & low_bits(np.uint64(place_bits))).astype(np.int64)
        order[start:end] = in_row + np.repeat(ends[first : first + rows] - some, some)
    return order


@dataclass(frozen=True)
class _Ranked:
    """The leaves of rows, row by row, the most important first.

    owner, leaf : int (n,) and int32 (n,), a row and one of its leaves
    margin      : float32 (n,)
    place       : int (n,), which of the row's leaves it is, from 0
    """

    n_rows: int
    owner: np.ndarray
    leaf: np.ndarray
    margin: np.ndarray
    place: np.ndarray

    def leaf_at(self, place: int) -> np.ndarray:
        """Return the leaf at that place of every row, -1 where it has fewer: int (n_rows,)."""
        leaves = np.full(self.n_rows, -1, np.int64)
        leaves[self.owner[self.place == place]] = self.leaf[self.place == place]
        return leaves

    def find(self, rows: np.ndarray, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which of some pairs of a row and a leaf, -1 for none, there are, and where."""
        order, keys, n_leaves = self._in_order
        wanted = rows * n_leaves + leaves
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        found = np.flatnonzero((leaves >= 0) & (leaves < n_leaves) & (keys[at] == wanted))
        return found, order[at[found]]

    @cached_property
    def _in_order(self) -> tuple[np.ndarray, np.ndarray, int]:
        n_leaves = int(self.leaf.max()) + 1
        keys = self.owner * n_leaves + self.leaf
        order = np.argsort(keys)
        return order, keys[order], n_leaves


def grow_columns(sample: Vectors, rows: int, n_leaves: int, *, homes: tuple[int, ...], metric: str) -> ColumnForest:
    """Return the forest for rows like the sampled ones.

    rows     : how many there are in all
    n_leaves : leaves that columns the sample does not have are to share
    homes    : per tree, see ColumnForest
    """
    columns, counts = np.unique(sample.indices, return_counts=True)
    each = rows / max(1, len_of(sample))
    expected = np.maximum(counts * each, 1)
    importance = expected**-_RARITY * np.where(expected < _RECURS, 1e-6, 1)
    # A column that was not seen is somewhat rarer than one seen once.
    unknown = (each / 2) ** -_RARITY
    longest = _longest_but_hubs(sample, columns, expected / rows, each) if METRICS[metric].largest else np.inf
    return ColumnForest(columns.astype(np.int32), importance.astype(np.float32), unknown, n_leaves, homes, longest)


def _longest_but_hubs(sample: Vectors, columns: np.ndarray, share: np.ndarray, each: float) -> float:
    """Return the squared length of the longest row to be no hub, inf where hubs would cost too much.

    columns, share : those the sample has, and of all rows how many have them
    each           : rows that a sampled one stands for
    """
    lengths = squared_lengths(sample)
    shared = np.bincount(owner_of(sample), share[np.searchsorted(columns, sample.indices)], minlength=len(lengths))
    order = np.argsort(-lengths, kind="stable")
    products, pairs = (np.cumsum(costs[order]) * each for costs in (shared, np.minimum(shared, 1)))
    affordable = int(np.count_nonzero((products <= _HUB_PRODUCTS) & (pairs <= _HUB_PAIRS)))
    n_hubs = min(affordable, int(_HUBS / each), int(_HUB_SHARE * len(order)))
    return float(lengths[order[min(n_hubs, len(order) - 1)]]) if n_hubs else np.inf
