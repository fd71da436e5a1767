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

from annspark.core.distance import BOUND_SLACK, Facing, Side, far_middle, kernel_for, looseness
from annspark.core.join_sparse import meet_sparse
from annspark.core.keeper import MAX_ROWS, Keeper
from annspark.core.metric import METRICS
from annspark.core.nearest import group_bound
from annspark.core.routes import Visits
from annspark.core.topk import by_first
from annspark.core.vectors import Vectors, is_sparse, len_of, surplus_twins

_TILE = 1 << 18  # scores of one product: 1 MB, about the second-level cache; up to eight times as many are as fast
_LARGE = np.float32(1e38)  # a bar that everything is below, in place of inf, which is no number to calculate with
_WAITING = 1 << 16  # pairs that may wait to be folded


@dataclass(frozen=True)
class Joined:
    """What one partition knows about the vectors it saw.

    Sparse rows that are no nearer than rows that share nothing, where all such are equally far, were not met.

    neighbors : int32 (n, k), row numbers, by (distance, row number); -1 where fewer were met
    distances : float32 (n, k), exact (by differences); inf where fewer were met
    pairs     : number of pairs compared
    max_rows  : residents of the largest leaf
    """

    neighbors: np.ndarray
    distances: np.ndarray
    pairs: int
    max_rows: int


def join_leaves(vectors: Vectors, home: np.ndarray, visits: Visits, k: int, metric: str) -> Joined:
    """Join every leaf of a partition and return each vector's k nearest among those it met.

    vectors : n, dense or sparse, prepared, float32 or float64, in ascending order of id, n <= MAX_ROWS
    home    : int32 (n,), the leaf a vector lives in; -1 for a guest, whose home is in another partition
    visits  : of other leaves of this partition, EVERY_LEAF for all; equal vectors have equal homes and visits
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
    kept = Keeper(vectors, rows, home, visits, k, metric)
    pairs = (meet_sparse if is_sparse(vectors) else _meet_dense)(kept, metric)
    neighbors[rows], distances[rows] = kept.nearest()
    # Away from home twins, who are nearest but for inner products, have not met.
    told = (home[surplus] >= 0) | METRICS[metric].largest
    neighbors[surplus[told]], distances[surplus[told]] = neighbors[model[told]], distances[model[told]]
    max_rows = int(np.unique(home[home >= 0], return_counts=True)[1].max(initial=0))
    return Joined(neighbors, distances, pairs, max_rows)


def _meet_dense(kept: Keeper, metric: str) -> int:
    """Let everybody meet, leaf by leaf; returns the number of pairs."""
    leaves, first, count = np.unique(kept.home, return_index=True, return_counts=True)
    residents = {int(leaf): (int(a), int(a + c)) for leaf, a, c in zip(leaves, first, count, strict=True) if leaf >= 0}
    tiles, pairs = _Tiles(kept, metric), 0
    for start, end in residents.values():
        pairs += tiles.meet(np.arange(start, end), start, end, at_home=True)
    # One sort for all leaves: bars fall while visitors come, but those of a tile stay about alike (see _may_beat).
    visitors = _visitors(kept, np.argsort(kept.bar, kind="stable"))
    for leaf, (start, end) in residents.items():
        some = visitors.get(leaf, np.empty(0, np.int64))
        if len(kept.hubs):
            some = np.union1d(some, kept.hubs[kept.home[kept.hubs] != leaf])
            some = some[np.argsort(kept.bar[some])]
        if len(some):
            pairs += tiles.meet(some, start, end, at_home=False)
    return pairs


def _visitors(kept: Keeper, order: np.ndarray) -> dict[int, np.ndarray]:
    """Return the rows, in the given order, that visit each visited leaf."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    leaf, place = by_first(kept.visits.leaf, place.take(kept.visits.row))
    # Where nobody visits anything there is no leaf, but one empty part.
    rows, begins = order.take(place), np.flatnonzero(np.diff(leaf, prepend=-1))
    return {int(leaf[a]): some for a, some in zip(begins, np.split(rows, begins[1:]), strict=False)}


_Judge = Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Leaf:
    """Residents of a leaf, as the right side of products with rows that have a bar.

    side   : the same residents as a left side, for rows that have no bar yet
    centre : the origin of both sides; None if it is that of the partition
    """

    residents: np.ndarray
    side: Side
    facing: Facing
    centre: np.ndarray | None


class _Tiles:
    """Meetings of dense rows, a tile of bounds at a time."""

    def __init__(self, kept: Keeper, metric: str):
        self.kept, self.k, self.dim = kept, kept.k, kept.vectors.shape[1]
        self.kernel = kernel_for(metric, self.dim)
        some = kept.vectors[:: max(1, len(kept.vectors) // 256)]
        self.centre = far_middle(some, 0) if self.kernel.moves and len(some) else None
        self.all = self.kernel.side(kept.vectors, kept.rank, self.centre)
        # In the order of homes, and the same array where nothing moves or is rounded: a row just multiplied is in a
        # cache when its pairs are measured.
        moved = self.centre is not None or kept.vectors.dtype != np.float32
        self.vectors = kept.vectors.take(kept.rank, axis=0) if moved else self.all.values
        # Written once per tile, in the cache if the place is always the same.
        self.tile = np.empty(_TILE, np.float32)
        self.passed = np.empty(_TILE + 8, bool)

    def meet(self, visitors: np.ndarray, start: int, end: int, *, at_home: bool) -> int:
        """Let visitors meet the residents start..end of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves, so each row's own list is all there is to fill
        """
        centre = self._own_centre(start, end)
        for a in range(start, end, self.kept.fold_rows):
            residents = np.arange(a, min(a + self.kept.fold_rows, end))
            side = self._side(residents, centre)
            leaf = _Leaf(residents, side, self.kernel.facing(side), centre)
            fresh = np.isinf(self.kept.bar[visitors])
            for some, judge in ((visitors[~fresh], self._may_beat), (visitors[fresh], self._may_beat_first)):
                for g in range(0, len(some), self.kept.fold_rows):
                    self._meet_some(some[g : g + self.kept.fold_rows], leaf, judge, at_home)
        return len(visitors) * (end - start)

    def _meet_some(self, visitors: np.ndarray, leaf: _Leaf, judge: _Judge, at_home: bool) -> None:
        """Find the pairs that may beat a bar, tile by tile, and settle them many at a time."""
        width = len(leaf.residents)
        step = max(16, _TILE // width)
        theirs = self.kept.bar[leaf.residents]
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
                theirs, found, waiting = self.kept.bar[leaf.residents], [], 0

    def _own_centre(self, start: int, end: int) -> np.ndarray | None:
        """Return a centre for a leaf so small, and so far from the partition's origin, that bounds would be too loose.

        Other leaves share the partition's: centring the visitors of every leaf anew costs as much as a fold.
        """
        if not self.kernel.moves:
            return None
        few = np.arange(start, end, max(1, (end - start) // 16))
        origin = 0 if self.centre is None else self.centre
        return far_middle(self.vectors[few][:, : self.dim], origin)

    def _side(self, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return some rows as a left side, around another centre if one is given."""
        if centre is None:
            return self.all.take(rows)
        return self.kernel.side(self.vectors, rows, centre)

    def _may_beat(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs (place in rows, column) whose lower bound is at most the bar of either end.

        The larger of two bars is not a sum of one number of the row and one of the column, so it does not fit into a
        product; m + max(0, own - m) + max(0, their - m) does, and is equal to it when m lies between the two bars and
        not far above it when both are close to m.  One compare with 0 then replaces two with a bar and an "or".  Rows
        sorted by their bars and the median for m leave a tenth too many pairs, to be removed one by one.
        """
        own = self.kept.bar[rows]
        theirs = np.minimum(theirs, _LARGE)
        both = np.concatenate([own, theirs])
        both.partition(len(both) // 2)
        middle = min(both[len(both) // 2], own.max())
        left = self._side(rows, leaf.centre)
        less, less_right = np.maximum(own, middle), np.maximum(theirs - middle, 0)
        scores, passed = self._tile(left, leaf.facing, less, less_right)
        np.less_equal(scores, 0, out=passed)
        flat = self._found(passed.size)
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
        """Do the same for rows that have no bar yet, which get one from the lower bounds themselves.

        They are the right side, a column each: minima of a column's groups cost a third of those of a row's.
        """
        same = np.array_equal(rows, leaf.residents)
        right = leaf.facing if same else self.kernel.facing(self._side(rows, leaf.centre))
        bounds, passed = self._tile(leaf.side, right, 0, 0)
        if at_home:  # nobody is their own neighbor
            itself = rows - leaf.residents[0]
            inside = np.flatnonzero((itself >= 0) & (itself < len(theirs)))
            bounds[itself[inside], inside] = np.inf
        # From a bound of lower bounds to one of distances.
        own = group_bound(bounds, self.k) + looseness(right, leaf.side)
        np.less_equal(bounds, own, out=passed)
        if not at_home:
            passed |= bounds <= theirs[:, None]
        flat = self._found(passed.size)
        column = flat // len(rows)
        return flat - column * len(rows), column

    def _tile(self, left: Side, right: Facing, less: Any, less_right: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of two sides, less a number of either, and room for as many bools."""
        shape = len(left.norms), len(right.norms)
        size = shape[0] * shape[1]
        if size > len(self.tile):
            self.tile, self.passed = np.empty(size, np.float32), np.empty(size + 8, bool)
        return self.kernel.tile(left, right, less, less_right, self.tile), self.passed[:size].reshape(shape)

    def _found(self, size: int) -> np.ndarray:
        """Return the places of the few among the first so many bools that are true, looked for by eight at once."""
        end = size + -size % 8
        self.passed[size:end] = False
        words = self.passed[:end].view(np.uint64)
        word = np.flatnonzero(words != 0)
        near = np.flatnonzero(words.take(word).view(bool))
        return word.take(near >> 3) * 8 + (near & 7)

    def _settle(
        self, visitors: np.ndarray, row: np.ndarray, residents: np.ndarray, column: np.ndarray, at_home: bool
    ) -> None:
        """Give the pairs of visitors[row] and residents[column] their exact distances, and keep those that count."""
        # A pair that visits each other's homes meets once; a row at home that has no bar yet may bring itself.
        one, other = visitors.take(row), residents.take(column)
        new = np.flatnonzero(one != other if at_home else ~self.kept.met_before(one, other))
        if len(new) < len(one):
            row, column, one, other = row.take(new), column.take(new), one.take(new), other.take(new)
        rank, other_rank = self.kept.rank.take(one), self.kept.rank.take(other)
        squared = self.kernel.exact(self.vectors, one, self.vectors, other).astype(np.float32, copy=False)
        keep = np.flatnonzero(squared <= self.kept.bar.take(one))
        slot, nearby, kept = row.take(keep), other_rank.take(keep), squared.take(keep)
        if at_home:
            self.kept.fold(visitors, slot, nearby, kept)
            return
        keep = np.flatnonzero(squared <= self.kept.bar.take(other))
        self.kept.fold(
            np.concatenate([visitors, residents]),
            np.concatenate([slot, column.take(keep) + len(visitors)]),
            np.concatenate([nearby, rank.take(keep)]),
            np.concatenate([kept, squared.take(keep)]),
        )
