"""The leaf join of dense vectors: tiles of lower bounds, and exact distances of the pairs whose bound beats a bar.

See join.py for what is joined.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from annspark.core.arrays import are_in, sort_pairs
from annspark.core.calls import Calls
from annspark.core.distance import BOUND_SLACK, Facing, Side, far_middle, kernel_for, looseness
from annspark.core.keeper import Keeper
from annspark.core.selection import upper_bounds_or_inf

_TILE = 1 << 18  # bounds of one product: 1 MB, about the second-level cache; up to eight times as many are as fast
_LARGE = np.float32(1e38)  # stands for a bar of inf, from which no number can be subtracted
# If so many rows that ask have the same home, the residents that visit it are gathered and compared with them.  If
# fewer do, whole leaves are multiplied, and a mask removes the pairs that are not to be compared.  Of a million text
# embeddings one resident in fifteen visits a home, but nearly every leaf has one that does, so gathering costs more.
# Joins of 1 % changed rows: 42 s if all homes gather, 32 s from 3 rows on, 26 s from 6, 31 s if none does; of 7 %: 77 s
# if all gather, 84 s from 6 rows on.
_MANY = 6
_FINITE = np.finfo(np.float32).max
_WAITING = 1 << 16  # pairs found that wait to be measured, at most but for those of one tile


def compare_dense(keeper: Keeper, calls: Calls | None = None) -> int:
    """Compare the residents of each leaf with each other, then with its visitors; return the number of pairs.

    calls : guests, and residents that these are compared with, too
    """
    leaves, first, count = np.unique(keeper.home, return_index=True, return_counts=True)
    residents = {int(leaf): (int(a), int(a + c)) for leaf, a, c in zip(leaves, first, count, strict=True) if leaf >= 0}
    tiles, pairs = _Tiles(keeper), 0
    for start, end in residents.values() if keeper.residents_meet else ():
        pairs += tiles.compare(np.arange(start, end), np.arange(start, end), at_home=True)
    # Visitors of a leaf come in the order of their bars (see _pairs_with_bar).  They are sorted once for all leaves:
    # bars fall meanwhile, but those of one tile stay about alike.
    visitors = _rows_by_leaf(keeper, np.argsort(keeper.bar, kind="stable"))
    few, many = calls.split(_MANY) if calls is not None else (None, None)
    for leaf, (start, end) in residents.items():
        some = visitors.get(leaf, np.empty(0, np.int32)).astype(np.int64)
        if len(keeper.hubs):
            some = np.union1d(some, keeper.hubs[keeper.home[keeper.hubs] != leaf])
            some = some[np.argsort(keeper.bar[some])]
        here, met = np.arange(start, end), None
        if few is not None:
            some, met = _with_calls(keeper, few, leaf, some, here)
        if len(some):
            pairs += tiles.compare(some, here, at_home=False, met=met)
    for some, called in many.meetings(keeper.home) if many is not None else ():
        pairs += tiles.compare(some[np.argsort(keeper.bar[some], kind="stable")], called, at_home=False)
    return pairs


@dataclass(frozen=True)
class _Met:
    """Which residents of a leaf some rows are compared with.

    place : int (n_rows,), the row's place in among; -1 for a row that is compared with all
    among : bool (m, n_residents)
    """

    place: np.ndarray
    among: np.ndarray

    def part(self, rows: np.ndarray, columns: slice) -> "_Met":
        """Return this for some of the rows, int, and residents."""
        return _Met(self.place[rows], self.among[:, columns])

    def mask(self, start: int, end: int) -> np.ndarray:
        """Return which pairs of the rows from start to end are compared: bool (n, n_residents)."""
        place = self.place[start:end]
        mask = np.ones((len(place), self.among.shape[1]), bool)
        mask[place >= 0] = self.among.take(place[place >= 0], axis=0)
        return mask

    def count(self) -> int:
        """Return the number of pairs."""
        return int((self.place < 0).sum()) * self.among.shape[1] + int(np.count_nonzero(self.among))


def _with_calls(
    keeper: Keeper, calls: Calls, leaf: int, visitors: np.ndarray, residents: np.ndarray
) -> tuple[np.ndarray, _Met | None]:
    """Return the visitors of a leaf and the rows whose home residents of it visit, in the order of their bars.

    returns : int (n,); which residents each is compared with, None for all
    """
    also, theirs = calls.of_leaf(leaf, residents)
    new = ~are_in(also, np.sort(visitors))
    if not new.any():
        return visitors, None
    both = np.concatenate([visitors, also[new]])
    place = np.concatenate([np.full(len(visitors), -1), np.arange(new.sum())])
    order = np.argsort(keeper.bar[both], kind="stable")
    return both[order], _Met(place[order], theirs[new])


def _rows_by_leaf(keeper: Keeper, order: np.ndarray) -> dict[int, np.ndarray]:
    """Return the rows that visit each visited leaf, in the given order: int32.

    order : int (n_rows,), all rows
    """
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    leaf, place = sort_pairs(keeper.visits.leaf, place.take(keeper.visits.row))
    # Without any visit there is no leaf, though np.split returns one empty part: strict=False.
    rows, begins = order.astype(np.int32).take(place), np.flatnonzero(np.diff(leaf, prepend=-1))
    return {int(leaf[a]): some for a, some in zip(begins, np.split(rows, begins[1:]), strict=False)}


_FindPairs = Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class _Leaf:
    """Residents of a leaf, or of a part of one, as both sides of products.

    residents : int (n_residents,), rows
    side      : as the left side, facing rows that have no bar yet
    facing    : as the right side, facing rows that have a bar
    centre    : float (dim,), the leaf's own centre, subtracted on both sides; None for the partition's
    """

    residents: np.ndarray
    side: Side
    facing: Facing
    centre: np.ndarray | None


class _Tiles:
    """Compares rows of a partition, a tile of bounds at a time."""

    def __init__(self, keeper: Keeper):
        self.keeper, self.k, self.dim = keeper, keeper.k, keeper.vectors.shape[1]
        self.kernel = kernel_for(keeper.metric, self.dim)
        some = keeper.vectors[:: max(1, len(keeper.vectors) // 256)]
        self.centre = far_middle(some, 0) if keeper.facts.moves and len(some) else None
        self.all = self.kernel.side(keeper.vectors, keeper.id_order, self.centre)
        # Vectors in the order of homes, for exact distances.  Where none is moved or rounded, the array is that of the
        # products, so that a vector just multiplied is still in a cache when its pairs are measured.
        moved = self.centre is not None or keeper.vectors.dtype != np.float32
        self.vectors = keeper.vectors.take(keeper.id_order, axis=0) if moved else self.all.values
        # Every tile is written to the same place, which stays in the cache.
        self.tile = np.empty(_TILE, np.float32)
        self.passed = np.empty(_TILE + 8, bool)
        self.column = np.full(len(keeper.home), -1)  # of the residents of a leaf, while their excluded pairs are found

    def compare(
        self, visitors: np.ndarray, all_residents: np.ndarray, *, at_home: bool, met: _Met | None = None
    ) -> int:
        """Compare visitors with the residents of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves; every pair comes twice, once from either end, so only the
                  visitor's list is filled
        met     : the pairs to be compared; None for all
        """
        centre = self._centre_of_leaf(all_residents)
        for a in range(0, len(all_residents), self.keeper.fold_rows):
            residents = all_residents[a : a + self.keeper.fold_rows]
            side = self._side(residents, centre)
            leaf = _Leaf(residents=residents, side=side, facing=self.kernel.facing(side), centre=centre)
            without_bar = np.isinf(self.keeper.bar[visitors])
            for some, find_pairs in (
                (np.flatnonzero(~without_bar), self._pairs_with_bar),
                (np.flatnonzero(without_bar), self._pairs_without_bar),
            ):
                for g in range(0, len(some), self.keeper.fold_rows):
                    row = some[g : g + self.keeper.fold_rows]
                    some_met = None if met is None else met.part(row, slice(a, a + self.keeper.fold_rows))
                    self._compare_some(visitors[row], leaf, find_pairs, at_home, some_met)
        return len(visitors) * len(all_residents) if met is None else met.count()

    def _compare_some(
        self, visitors: np.ndarray, leaf: _Leaf, find_pairs: _FindPairs, at_home: bool, met: _Met | None
    ) -> None:
        """Find the pairs that may beat a bar, tile by tile; measure and fold many at a time."""
        width = len(leaf.residents)
        step = max(16, _TILE // width)
        theirs = self.keeper.bar[leaf.residents]
        found: list[tuple[np.ndarray, np.ndarray]] = []
        waiting = 0
        for start in range(0, len(visitors), step):
            rows = visitors[start : start + step]
            mask = None if met is None else met.mask(start, start + step)
            row, column = find_pairs(rows, leaf, theirs, at_home, mask)
            if mask is not None:
                kept = mask[row, column]
                row, column = row[kept], column[kept]
            found.append((row + start, column))
            waiting += len(row)
            if waiting > _WAITING or start + step >= len(visitors):
                row, column = (np.concatenate(part) for part in zip(*found, strict=True))
                self._measure_and_fold(visitors, row, leaf.residents, column, at_home)
                theirs, found, waiting = self.keeper.bar[leaf.residents], [], 0

    def _centre_of_leaf(self, residents: np.ndarray) -> np.ndarray | None:
        """Return a centre for a leaf that is so small, and so far from the partition's, that bounds would be loose.

        None for other leaves, which use the partition's: subtracting a centre from the visitors of every leaf would
        cost as much as a fold.
        """
        if not self.keeper.facts.moves:
            return None
        few = residents[:: max(1, len(residents) // 16)]
        origin = 0 if self.centre is None else self.centre
        return far_middle(self.vectors[few][:, : self.dim], origin)

    def _side(self, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return some rows as a left side, around a leaf's own centre if there is one."""
        if centre is None:
            return self.all.take(rows)
        return self.kernel.side(self.vectors, rows, centre)

    def _pairs_with_bar(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs (place in rows, column) whose lower bound is at most the larger of their two bars.

        max(own, their) is not a number of the row plus a number of the column, so the product cannot subtract it.  It
        can subtract m + max(0, own - m) + max(0, their - m).  That equals max(own, their) when m lies between the two
        bars, is little more when both are close to m, and is never less.  So one comparison with 0 replaces two with
        bars and an "or".  With rows sorted by their bars, and the median of the bars for m, a tenth too many pairs are
        left, which are removed one by one.

        theirs        : float32 (n_residents,), bars of the residents
        at_home, mask : not used; _pairs_without_bar, which is called in the same way, needs them
        """
        own = self.keeper.bar[rows]
        theirs = np.minimum(theirs, _LARGE)
        both = np.concatenate([own, theirs])
        both.partition(len(both) // 2)
        middle = min(both[len(both) // 2], own.max())
        left = self._side(rows, leaf.centre)
        less, less_right = np.maximum(own, middle), np.maximum(theirs - middle, 0)
        scores, passed = self._tile(left, leaf.facing, less, less_right)
        np.less_equal(scores, 0, out=passed)
        flat = self._true_places(passed.size)
        row = flat // len(theirs)
        column = flat - row * len(theirs)
        mine, other = own.take(row), theirs.take(column)
        excess = np.maximum(np.minimum(mine, other) - middle, middle - np.maximum(mine, other))
        # excess is the number subtracted less the larger bar.  It is rounded, too, which matters where bars are much
        # larger than the vectors: hence the slack.
        keep = np.flatnonzero(scores.ravel().take(flat) <= np.maximum(excess, 0) * np.float32(BOUND_SLACK - 1))
        return row.take(keep), column.take(keep)

    def _pairs_without_bar(
        self, rows: np.ndarray, leaf: _Leaf, theirs: np.ndarray, at_home: bool, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return such pairs for rows that have no bar yet; the bounds themselves give them one.

        These rows are the right side, a column each, since the minima of a column's groups take a third of the time of
        a row's.
        """
        same = np.array_equal(rows, leaf.residents)
        right = leaf.facing if same else self.kernel.facing(self._side(rows, leaf.centre))
        bounds, passed = self._tile(leaf.side, right, 0, 0)
        if at_home:  # a row is not its own neighbor
            itself = rows - leaf.residents[0]
            inside = np.flatnonzero((itself >= 0) & (itself < len(theirs)))
            bounds[itself[inside], inside] = np.inf
        elif self.keeper.things is not None:
            one, other = np.tile(rows, len(theirs)), np.repeat(leaf.residents, len(rows))
            bounds.ravel()[self.keeper.left_out(one, other)] = np.inf
        if self.keeper.group is not None:
            bounds[self.keeper.group.take(leaf.residents)[:, None] != self.keeper.group.take(rows)] = np.inf
        if mask is not None:
            bounds[~mask.T] = np.inf
        column, hidden = self._excluded_places(rows, leaf.residents)
        kept = bounds[hidden, column]  # a resident may keep a row that must not keep it
        bounds[hidden, column] = np.inf
        # Adding the looseness turns an upper bound of the k-th lower bound into one of the k-th distance.
        own = upper_bounds_or_inf(bounds, self.k) + looseness(right, leaf.side)
        bounds[hidden, column] = kept
        if self.keeper.group is not None or mask is not None:  # pairs that must not be compared have bounds of inf
            own, theirs = np.minimum(own, _FINITE), np.minimum(theirs, _FINITE)
        np.less_equal(bounds, own, out=passed)
        if not at_home:
            passed |= bounds <= theirs[:, None]
        flat = self._true_places(passed.size)
        column = flat // len(rows)
        return flat - column * len(rows), column

    def _excluded_places(self, rows: np.ndarray, residents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the excluded pairs of rows and some residents of a leaf, as places in rows and in residents."""
        if self.keeper.excluded is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place, other = self.keeper.excluded.of_rows(rows)
        self.column[residents] = np.arange(len(residents))
        at = self.column.take(other)
        self.column[residents] = -1
        inside = np.flatnonzero(at >= 0)
        return place.take(inside), at.take(inside)

    def _tile(self, left: Side, right: Facing, less: Any, less_right: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return bounds less a number of the row and one of the column, and room for as many bools."""
        shape = len(left.norms), len(right.norms)
        size = shape[0] * shape[1]
        if size > len(self.tile):
            self.tile, self.passed = np.empty(size, np.float32), np.empty(size + 8, bool)
        return self.kernel.tile(left, right, less, less_right, self.tile), self.passed[:size].reshape(shape)

    def _true_places(self, size: int) -> np.ndarray:
        """Return the places of the few that are true among the first bools of self.passed, read eight at a time."""
        end = size + -size % 8
        self.passed[size:end] = False
        words = self.passed[:end].view(np.uint64)
        word = np.flatnonzero(words != 0)
        near = np.flatnonzero(words.take(word).view(bool))
        return word.take(near >> 3) * 8 + (near & 7)

    def _measure_and_fold(
        self, visitors: np.ndarray, row: np.ndarray, residents: np.ndarray, column: np.ndarray, at_home: bool
    ) -> None:
        """Measure the pairs of visitors[row] and residents[column], and fold those that beat a bar into the lists."""
        # Rows that visit each other's homes are compared once.  At home a row without a bar may be paired with itself.
        one, other = visitors.take(row), residents.take(column)
        new = np.flatnonzero(one != other if at_home else ~self.keeper.left_out(one, other))
        if len(new) < len(one):
            row, column, one, other = row.take(new), column.take(new), one.take(new), other.take(new)
        id_order, other_id_order = self.keeper.id_order.take(one), self.keeper.id_order.take(other)
        measured = self.kernel.exact(self.vectors, one, self.vectors, other).astype(np.float32, copy=False)
        beats = self.keeper.allowed(np.flatnonzero(measured <= self.keeper.bar.take(one)), one, other)
        slot, nearby, raw = row.take(beats), other_id_order.take(beats), measured.take(beats)
        if at_home:
            self.keeper.fold(visitors, slot, nearby, raw)
            return
        beats = self.keeper.allowed(np.flatnonzero(measured <= self.keeper.bar.take(other)), other, one)
        self.keeper.fold(
            np.concatenate([visitors, residents]),
            np.concatenate([slot, column.take(beats) + len(visitors)]),
            np.concatenate([nearby, id_order.take(beats)]),
            np.concatenate([raw, measured.take(beats)]),
        )
