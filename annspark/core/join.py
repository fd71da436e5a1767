"""The leaf join: residents of a leaf meet its residents and its visitors; each end keeps its nearest.

A pair is found when either side visits the other's home.  Visitors do not meet each other.  What decides the speed is
selection, not the matrix product, so a pair has to beat a bar, the distance of the worst neighbor kept so far by either
end.  The product serves as a lower bound only: the few pairs that pass get their exact distance, by differences, and
are folded in by one sort of packed integers.  The answer is therefore exact for the pairs that meet, ties included,
and does not depend on which leaf, block or partition a pair meets in.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annspark.core.metric import squared_limit, to_distance
from annspark.core.nearest import BOUND_SLACK, group_bound, squared_distances
from annspark.core.topk import low_bits

MAX_ROWS = 2**23  # rows of one partition, so that a rank has at most 23 bits
# A candidate while it is folded: row of the fold (10 bits or more) | bits of the distance (31) | rank of the neighbor.
_DISTANCE_BITS = 31
_INFINITE = 0x7F800000  # the bits of an infinite distance
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


def join_leaves(vectors: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str) -> Joined:
    """Join every leaf of a partition and return each vector's k nearest among those it met.

    vectors : float32 (n, dim), prepared, in ascending order of id, n <= MAX_ROWS
    home    : int32 (n,), the leaf a vector lives in; -1 for a guest, whose home is in another partition
    visits  : int32 (n, width), other leaves of this partition that the vector visits; -1 where there are fewer;
              equal vectors have equal homes and visits
    """
    n = len(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"join_leaves: {n:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    neighbors = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    surplus, twins = _surplus_twins(vectors, k)
    rows = np.flatnonzero(~surplus)
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
    at_home = surplus & (home >= 0)
    neighbors[at_home], distances[at_home] = twins[at_home[surplus]], 0
    max_rows = int(np.unique(home[home >= 0], return_counts=True)[1].max(initial=0))
    return Joined(neighbors, distances, pairs, max_rows)


def _surplus_twins(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors that have more than k equal ones of lower rank, and those ones.

    By (distance, rank) the nearest of such a vector are its k lowest twins, and nobody else needs more than k of them:
    so it need not be compared with anybody, and 10^5 equal vectors cost no more than k + 1.

    returns : surplus bool (n,); the k lowest twins of each surplus row, int32 (n_surplus, k)
    """
    n = len(vectors)
    # Equal vectors have equal sums, and einsum gives them the same bits; other vectors with that sum only hide twins.
    weights = np.random.default_rng(0).standard_normal(vectors.shape[1], np.float32)
    mark = np.einsum("ij,j->i", vectors, weights)
    order = np.argsort(mark, kind="stable")
    same = np.zeros(n, bool)
    same[1:] = mark[order[1:]] == mark[order[:-1]]
    # Few rows have a twin in most data: only those are compared number by number.
    at = np.flatnonzero(same)
    same[at] = (vectors[order[at]] == vectors[order[at - 1]]).all(axis=1)
    starts = np.flatnonzero(~same)
    group = np.cumsum(~same) - 1
    place = np.arange(n) - starts[group]
    far = np.flatnonzero(place > k)
    surplus = np.zeros(n, bool)
    surplus[order[far]] = True
    lowest = np.empty((n, k), np.int32) if len(far) else np.empty((0, k), np.int32)
    if len(far):
        lowest[order[far]] = order[starts[group[far]][:, None] + np.arange(k)]
        lowest = lowest[surplus]
    return surplus, lowest


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

    right  : float32 (dim + 2, n), columns [-2y, 1, ?]; [x, ?, 1] times this is -2 x.y plus one number of either side
    norms  : float32 (n,), |y|^2 made smaller by BOUND_SLACK, see _left_columns
    centre : the origin of x and y; None if it is that of the partition
    """

    residents: np.ndarray
    right: np.ndarray
    norms: np.ndarray
    centre: np.ndarray | None


def _left_columns(vectors: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a centre, the chosen vectors as left sides [x, ?, 1] of products around it, and norms to be put there.

    |x|^2 + |y|^2 - 2 x.y loses digits, some 1e-6 of both norms.  With norms made smaller by BOUND_SLACK, ten times
    that, it is a lower bound of the squared distance, and at most 2 * BOUND_SLACK * (|x|^2 + |y|^2) below it.
    """
    dim = vectors.shape[1]
    left = np.empty((len(rows), dim + 2), np.float32)
    left[:, -1] = 1
    norms = np.empty(len(rows), np.float32)
    # The median, as one outlier moves a mean far.
    centre = np.median(vectors[:: max(1, len(vectors) // 256)], axis=0) if len(vectors) else vectors.sum(axis=0)
    for start in range(0, len(rows), 1024):
        centred = left[start : start + 1024, :dim]
        np.subtract(vectors.take(rows[start : start + 1024], axis=0), centre, out=centred)
        np.einsum("ij,ij->i", centred, centred, out=norms[start : start + 1024])
    norms *= np.float32(1 - BOUND_SLACK)
    return centre, left, norms


class _Join:
    """The neighbors kept so far; rows are in the order of their homes, guests last."""

    def __init__(
        self, vectors: np.ndarray, rows: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str
    ):
        self.vectors, self.rank = vectors, rows
        self.centre, self.left, self.norms = _left_columns(vectors, rows)
        self.home = home[rows]
        self.visits = visits[rows]
        self.visited = np.ascontiguousarray(self.visits.T)
        self.k, self.metric = k, metric
        self.bar = np.full(len(rows), np.inf, np.float32)
        # Written once per tile, in the cache if the place is always the same.
        self.tile = np.empty(_TILE, np.float32)
        self.passed = np.empty(_TILE, bool)
        rank_bits = max(1, int(rows.max(initial=0)).bit_length())
        self.rank_bits, self.key_bits = np.uint64(rank_bits), np.uint64(rank_bits + _DISTANCE_BITS)
        # No neighbor yet: an infinite distance and the last rank, behind all others.
        self.empty = (np.uint64(_INFINITE) << self.rank_bits) | low_bits(self.rank_bits)
        self.best = np.full((len(rows), k), self.empty)
        # Both ends of a pair are folded at once: half the rows of a fold for either.
        self.fold_rows = max(1, min(_FOLD_ROWS, 2 ** (64 - rank_bits - _DISTANCE_BITS)) // 2)

    def meet(self, visitors: np.ndarray, start: int, end: int, *, at_home: bool) -> int:
        """Let visitors meet the residents start..end of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves, so each row's own list is all there is to fill
        """
        centre = self._own_centre(start, end)
        for a in range(start, end, self.fold_rows):
            residents = np.arange(a, min(a + self.fold_rows, end))
            leaf = self._leaf(residents, centre)
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
        few = self.vectors[self.rank[start : end : max(1, (end - start) // 16)]]
        centre = np.sort(few, axis=0)[len(few) // 2]
        around, away = few - centre, centre - self.centre
        spread = np.sort(np.einsum("ij,ij->i", around, around))[len(few) // 2]
        return centre if away @ away > _FAR * spread else None

    def _leaf(self, residents: np.ndarray, centre: np.ndarray | None) -> _Leaf:
        # One row per term: OpenBLAS packs it faster than one per resident.
        left, norms = self._left(residents, centre)
        right = np.empty(left.T.shape, np.float32)
        np.multiply(left[:, :-2].T, -2, out=right[:-2])
        right[-2] = 1
        return _Leaf(residents, right, norms, centre)

    def _left(self, rows: np.ndarray, centre: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return [x, ?, 1] of some rows, and the norms to be put there, around another centre if one is given."""
        left = self.left.take(rows, axis=0)
        if centre is None:
            return left, self.norms.take(rows)
        x = left[:, :-2]
        np.subtract(self.vectors.take(self.rank.take(rows), axis=0), centre, out=x)
        return left, np.einsum("ij,ij->i", x, x) * np.float32(1 - BOUND_SLACK)

    def _may_beat(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs (place in rows, column) whose lower bound is at most the bar of either end.

        The larger of two bars is not a sum of one number of the row and one of the column, so it does not fit into a
        product; m + max(0, own - m) + max(0, their - m) does, and is equal to it when m lies between the two bars and
        not far above it when both are close to m.  One compare with 0 then replaces two with a bar and an "or".  Rows
        sorted by their bars and the median for m leave a tenth too many pairs, to be removed one by one.
        """
        left, norms = self._left(rows, leaf.centre)
        own = self.bar[rows]
        theirs = np.minimum(theirs, _LARGE)
        both = np.concatenate([own, theirs])
        both.partition(len(both) // 2)
        middle = min(both[len(both) // 2], own.max())
        left[:, -2] = norms - np.maximum(own, middle)
        leaf.right[-1] = leaf.norms - np.maximum(theirs - middle, 0)
        scores, passed = self._product(left, leaf, rows, at_home)
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
        left, norms = self._left(rows, leaf.centre)
        left[:, -2] = norms
        leaf.right[-1] = leaf.norms
        bounds, passed = self._product(left, leaf, rows, at_home)
        # From a bound of lower bounds to one of distances.
        own = np.maximum(group_bound(bounds, self.k), 0) + 2 * BOUND_SLACK * (norms + leaf.norms.max())
        np.less_equal(bounds, own[:, None], out=passed)
        if not at_home:
            passed |= bounds <= theirs
        flat = np.flatnonzero(passed)
        row = flat // len(theirs)
        return row, flat - row * len(theirs)

    def _product(self, left: np.ndarray, leaf: _Leaf, rows: np.ndarray, at_home: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return left @ leaf.right, float32 (n_rows, n_residents), and room for as many bools."""
        shape = len(left), len(leaf.residents)
        size = shape[0] * shape[1]
        if size > len(self.tile):
            self.tile, self.passed = np.empty(size, np.float32), np.empty(size, bool)
        scores = self.tile[:size].reshape(shape)
        np.matmul(left, leaf.right, out=scores)
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
        squared = squared_distances(self.vectors, rank, self.vectors, other_rank)
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
        keys |= to_distance(squared, self.metric).view(np.uint32).astype(np.uint64) << self.rank_bits
        keys |= rank.view(np.uint64)
        keys = np.concatenate([kept.ravel(), keys])
        keys.sort()
        # Each row now has its candidates in order, k or more.
        first = np.cumsum(count) - count
        best = keys.take(first[:, None] + np.arange(self.k))
        best &= low_bits(self.key_bits)
        changed = rows.take(changed)
        self.best[changed] = best
        self.bar[changed] = squared_limit(self._distances(best[:, -1]), self.metric)

    def _distances(self, keys: np.ndarray) -> np.ndarray:
        return (keys >> self.rank_bits).astype(np.uint32).view(np.float32)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbors kept of every row, as ranks and distances; -1 and inf where there are fewer."""
        ranks = (self.best & low_bits(self.rank_bits)).astype(np.int32)
        ranks[self.best == self.empty] = -1
        return ranks, self._distances(self.best)
