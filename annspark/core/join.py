"""The leaf join: residents of a leaf meet its residents and its visitors; each end keeps its nearest.

A pair is found when either side visits the other's home.  Visitors do not meet each other.  What decides the speed is
selection, not the matrix product, so a pair has to beat a bar, the distance of the worst neighbor kept so far by either
end.  The product serves as a lower bound only: the few pairs that pass get their exact distance, by differences, and
are folded in by one sort of packed integers.  The answer is therefore exact for the pairs that meet, ties included,
and does not depend on which leaf, block or partition a pair meets in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.nearest import group_bound
from annspark.core.rows import Vectors, len_of, surplus_twins
from annspark.core.score import BOUND_SLACK, Facing, Side, kernel_for, looseness, middle_of
from annspark.core.topk import DISTANCE_BITS, from_ordered_bits, low_bits, ordered_bits

MAX_ROWS = 2**23  # rows of one partition, so that a rank has at most 23 bits
# A candidate while it is folded: row of the fold (9 bits or more) | bits of the distance (32) | rank of the neighbor.
_FOLD_ROWS = 2**13
_TILE = 1 << 18  # scores of one product: 1 MB, about the second-level cache; half or twice as many is as fast
_LARGE = np.float32(1e38)  # a bar that everything is below, in place of inf, which is no number to calculate with
_FAR = 16  # a leaf whose squared distance from the centre is so many times its own spread gets its own centre
_WAITING = 1 << 16  # pairs that may wait to be folded


@dataclass(frozen=True)
class Joined:
    """What one partition knows about the vectors it saw.

    neighbors : int32 (n, k), row numbers, by (distance, row number); -1 where fewer were met
    distances : float32 (n, k), exact (by differences); inf where fewer were met
    pairs     : number of pairs compared
    max_rows  : residents of the largest leaf
    """

    neighbors: np.ndarray
    distances: np.ndarray
    pairs: int
    max_rows: int


def join_leaves(vectors: Vectors, home: np.ndarray, visits: np.ndarray, k: int, metric: str) -> Joined:
    """Join every leaf of a partition and return each vector's k nearest among those it met.

    vectors : n, dense or sparse, prepared, in ascending order of id, n <= MAX_ROWS
    home    : int32 (n,), the leaf a vector lives in; -1 for a guest, whose home is in another partition
    visits  : int32 (n, width), other leaves of this partition that the vector visits; -1 where there are fewer;
              equal vectors have equal homes and visits
    """
    n = len_of(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"join_leaves: {n:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    neighbors = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    # Nobody needs more than k + 1 of equal vectors, and the others have the neighbors that the last of those has: 10^5
    # equal vectors cost no more than k + 1.
    surplus, model = surplus_twins(vectors, k)
    rows = np.delete(np.arange(n), surplus)
    rows = rows[np.argsort(np.where(home[rows] < 0, np.iinfo(np.int32).max, home[rows]), kind="stable")]
    join = _Join(vectors, rows, home, visits, k, metric)
    leaves, first, count = np.unique(join.home, return_index=True, return_counts=True)
    residents = {int(leaf): (int(a), int(a + c)) for leaf, a, c in zip(leaves, first, count, strict=True) if leaf >= 0}

    pairs = 0
    for start, end in residents.values():
        pairs += join.meet(np.arange(start, end), start, end, at_home=True)
    for leaf, visitors in _visitors(join.visits):
        if leaf in residents:
            pairs += join.meet(visitors, *residents[leaf], at_home=False)
    neighbors[rows], distances[rows] = join.nearest()
    # Away from home twins, who are nearest but for inner products, have not met.
    told = (home[surplus] >= 0) | METRICS[metric].largest
    neighbors[surplus[told]], distances[surplus[told]] = neighbors[model[told]], distances[model[told]]
    max_rows = int(np.unique(home[home >= 0], return_counts=True)[1].max(initial=0))
    return Joined(neighbors, distances, pairs, max_rows)


def _visitors(visits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (leaf, ascending rows that visit it) for every visited leaf, in ascending order of leaves."""
    flat = np.flatnonzero(visits >= 0)
    leaf = visits.ravel()[flat]
    lowest = leaf.min(initial=0)
    # A stable sort of 16-bit numbers is a radix sort, several times faster.
    small = len(leaf) > 0 and leaf.max() - lowest < 2**16
    order = np.argsort((leaf - lowest).astype(np.uint16) if small else leaf, kind="stable")
    leaves, first = np.unique(leaf[order], return_index=True)
    rows = np.split(flat[order] // visits.shape[1], first[1:]) if len(flat) else []
    return list(zip(leaves.tolist(), rows, strict=True))


_Judge = Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Leaf:
    """Residents of a leaf as the right side of products.

    centre : the origin of both sides; None if it is that of the partition
    """

    residents: np.ndarray
    facing: Facing
    centre: np.ndarray | None


class _Join:
    """The neighbors kept so far; rows are in the order of their homes, guests last."""

    def __init__(self, vectors: Vectors, rows: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str):
        self.vectors, self.rank = vectors, rows
        self.kernel, self.metric = kernel_for(metric, vectors), METRICS[metric]
        self.centre = middle_of(vectors) if self.kernel.moves else None
        self.all = self.kernel.side(vectors, rows, self.centre)
        self.home = home[rows]
        self.visits = visits[rows]
        self.visited = np.ascontiguousarray(self.visits.T)
        self.k = k
        self.bar = np.full(len(rows), np.inf, np.float32)
        # Written once per tile, in the cache if the place is always the same.
        self.tile = np.empty(_TILE, np.float32)
        self.passed = np.empty(_TILE, bool)
        rank_bits = max(1, int(rows.max(initial=0)).bit_length())
        self.rank_bits, self.key_bits = np.uint64(rank_bits), np.uint64(rank_bits + DISTANCE_BITS)
        # No neighbor yet: an infinite distance and the last rank, behind all others.
        infinite = ordered_bits(np.float32(np.inf))
        self.empty = (infinite << self.rank_bits) | low_bits(self.rank_bits)
        self.best = np.full((len(rows), k), self.empty)
        # Both ends of a pair are folded at once: half the rows of a fold for either.
        self.fold_rows = max(1, min(_FOLD_ROWS, 2 ** (64 - rank_bits - DISTANCE_BITS)) // 2)

    def meet(self, visitors: np.ndarray, start: int, end: int, *, at_home: bool) -> int:
        """Let visitors meet the residents start..end of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves, so each row's own list is all there is to fill
        """
        centre = self._own_centre(start, end)
        at_once = min(self.fold_rows, self.kernel.most)
        for a in range(start, end, at_once):
            residents = np.arange(a, min(a + at_once, end))
            leaf = _Leaf(residents, self.kernel.facing(self._side(residents, centre)), centre)
            # Rows of one tile have bars alike (see _may_beat); those without a bar come last, by themselves.
            bars = self.bar[visitors]
            fresh = visitors[np.isinf(bars)]
            known = visitors[np.argsort(bars)[: len(visitors) - len(fresh)]]
            for some, judge in ((known, self._may_beat), (fresh, self._may_beat_first)):
                for g in range(0, len(some), self.fold_rows):
                    self._meet_some(some[g : g + self.fold_rows], leaf, judge, at_home)
        return len(visitors) * (end - start)

    def _meet_some(self, visitors: np.ndarray, leaf: _Leaf, judge: _Judge, at_home: bool) -> None:
        """Find the pairs that may beat a bar, tile by tile, and settle them many at a time."""
        width = len(leaf.residents)
        step = max(16, _TILE // width)
        theirs = self.bar[leaf.residents]
        found: list[tuple[np.ndarray, np.ndarray]] = []
        waiting = 0
        for start in range(0, len(visitors), step):
            rows = visitors[start : start + step]
            row, column = judge(rows, leaf, theirs, at_home)
            found.append((row + start, column))
            waiting += len(row)
            if waiting > _WAITING or start + step >= len(visitors):
                row, column = (np.concatenate(part) for part in zip(*found, strict=True))
                self._settle(visitors, row, leaf.residents, column, at_home)
                theirs, found, waiting = self.bar[leaf.residents], [], 0

    def _own_centre(self, start: int, end: int) -> np.ndarray | None:
        """Return a centre for a leaf so small, and so far from that of the partition, that bounds would be too loose.

        Other leaves share the partition's: centring the visitors of every leaf anew costs as much as a fold.
        """
        if self.centre is None:
            return None
        few = self.vectors[self.rank[start : end : max(1, (end - start) // 16)]]
        centre = np.sort(few, axis=0)[len(few) // 2]
        around, away = few - centre, centre - self.centre
        spread = np.sort(np.einsum("ij,ij->i", around, around))[len(few) // 2]
        return centre if away @ away > _FAR * spread else None

    def _side(self, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return some rows as a left side, around another centre if one is given."""
        if centre is None:
            return self.all.take(rows)
        return self.kernel.side(self.vectors, self.rank.take(rows), centre)

    def _may_beat(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs (place in rows, column) whose lower bound is at most the bar of either end.

        The larger of two bars is not a sum of one number of the row and one of the column, so it does not fit into a
        product; m + max(0, own - m) + max(0, their - m) does, and is equal to it when m lies between the two bars and
        not far above it when both are close to m.  One compare with 0 then replaces two with a bar and an "or".  Rows
        sorted by their bars and the median for m leave a tenth too many pairs, to be removed one by one.
        """
        own = self.bar[rows]
        theirs = np.minimum(theirs, _LARGE)
        both = np.concatenate([own, theirs])
        both.partition(len(both) // 2)
        middle = min(both[len(both) // 2], own.max())
        left = self._side(rows, leaf.centre)
        less, less_right = np.maximum(own, middle), np.maximum(theirs - middle, 0)
        scores, passed = self._tile(left, leaf, rows, at_home, less, less_right)
        np.less_equal(scores, 0, out=passed)
        flat = np.flatnonzero(passed)
        row = flat // len(theirs)
        column = flat - row * len(theirs)
        mine, other = own.take(row), theirs.take(column)
        excess = np.maximum(np.minimum(mine, other) - middle, middle - np.maximum(mine, other))
        # Where the bars dwarf the vectors the excess carries the rounding.
        keep = np.flatnonzero(scores.ravel().take(flat) <= np.maximum(excess, 0) * np.float32(BOUND_SLACK - 1))
        return row.take(keep), column.take(keep)

    def _may_beat_first(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Do the same for rows that have no bar yet, which get one from the lower bounds themselves."""
        left = self._side(rows, leaf.centre)
        bounds, passed = self._tile(left, leaf, rows, at_home, 0, 0)
        # From a bound of lower bounds to one of distances.
        own = group_bound(bounds, self.k) + looseness(left, leaf.facing)
        np.less_equal(bounds, own[:, None], out=passed)
        if not at_home:
            passed |= bounds <= theirs
        flat = np.flatnonzero(passed)
        row = flat // len(theirs)
        return row, flat - row * len(theirs)

    def _tile(
        self, left: Side, leaf: _Leaf, rows: np.ndarray, at_home: bool, less: Any, less_right: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of rows and residents, less a number of either, and room for as many bools."""
        shape = len(rows), len(leaf.residents)
        size = shape[0] * shape[1]
        if size > len(self.tile):
            self.tile, self.passed = np.empty(size, np.float32), np.empty(size, bool)
        scores = self.kernel.tile(left, leaf.facing, less, less_right, self.tile)
        if at_home:  # nobody is their own neighbor
            itself = rows - leaf.residents[0]
            inside = np.flatnonzero((itself >= 0) & (itself < shape[1]))
            scores[inside, itself[inside]] = np.inf
        return scores, self.passed[:size].reshape(shape)

    def _settle(
        self, visitors: np.ndarray, row: np.ndarray, residents: np.ndarray, column: np.ndarray, at_home: bool
    ) -> None:
        """Give the pairs of visitors[row] and residents[column] their exact distances, and keep those that count."""
        # A pair that visits each other's homes meets once; a row at home that has no bar yet may bring itself.
        one, other = visitors.take(row), residents.take(column)
        again = one == other if at_home else self._met_before(one, other)
        if again.any():
            row, column, one, other = row[~again], column[~again], one[~again], other[~again]
        rank, other_rank = self.rank.take(one), self.rank.take(other)
        squared = self.kernel.exact(self.vectors, rank, self.vectors, other_rank)
        keep = np.flatnonzero(squared <= self.bar.take(one))
        slot, nearby, kept = row.take(keep), other_rank.take(keep), squared.take(keep)
        if at_home:
            self._fold(visitors, slot, nearby, kept)
            return
        keep = np.flatnonzero(squared <= self.bar.take(other))
        self._fold(
            np.concatenate([visitors, residents]),
            np.concatenate([slot, column.take(keep) + len(visitors)]),
            np.concatenate([nearby, rank.take(keep)]),
            np.concatenate([kept, squared.take(keep)]),
        )

    def _met_before(self, visitors: np.ndarray, residents: np.ndarray) -> np.ndarray:
        """True for a pair that has met already, because the resident visits the visitor's home, a lower leaf."""
        home = self.home.take(visitors)
        lower = np.flatnonzero((home >= 0) & (home < self.home.take(residents)))
        before = np.zeros(len(visitors), bool)
        before[lower] = (self.visited.take(residents.take(lower), axis=1) == home.take(lower)).any(axis=0)
        return before

    def _fold(self, rows: np.ndarray, slot: np.ndarray, rank: np.ndarray, squared: np.ndarray) -> None:
        """Fold candidates into the best of their rows: for rows[slot], a neighbor's rank and exact squared distance."""
        if len(slot) == 0:
            return
        count = np.bincount(slot, minlength=len(rows))
        changed = np.flatnonzero(count)
        count = count.take(changed) + self.k
        kept = self.best.take(rows.take(changed), axis=0)
        kept |= (changed.astype(np.uint64) << self.key_bits)[:, None]
        keys = slot.astype(np.uint64) << self.key_bits
        keys |= ordered_bits(self.metric.from_raw(squared)) << self.rank_bits
        keys |= rank.view(np.uint64)
        keys = np.concatenate([kept.ravel(), keys])
        keys.sort()
        # Each row now has its candidates in order, k or more.
        first = np.cumsum(count) - count
        best = keys.take(first[:, None] + np.arange(self.k))
        best &= low_bits(self.key_bits)
        changed = rows.take(changed)
        self.best[changed] = best
        self.bar[changed] = self.metric.to_raw(self._distances(best[:, -1]))

    def _distances(self, keys: np.ndarray) -> np.ndarray:
        return from_ordered_bits(keys >> self.rank_bits)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbors kept of every row, as ranks and distances; -1 and inf where there are fewer."""
        ranks = (self.best & low_bits(self.rank_bits)).astype(np.int32)
        ranks[self.best == self.empty] = -1
        return ranks, self._distances(self.best)
