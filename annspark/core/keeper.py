"""Keep: the nearest neighbors every row of a partition has met so far, and the bar that others have to beat."""

from functools import cached_property

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.nearest import places
from annspark.core.routes import Visits
from annspark.core.topk import DISTANCE_BITS, by_first, from_ordered_bits, low_bits, ordered_bits
from annspark.core.vectors import Vectors
from annspark.core.visit import EVERY_LEAF

# Rows of one partition.  A rank of 26 bits leaves 6 for the rows of a fold, which costs time where so many rows differ;
# where they are equal, few are folded.
MAX_ROWS = 2**26
# A candidate while it is folded: row of the fold (6 bits or more) | bits of the distance (32) | rank of the neighbor.
_FOLD_ROWS = 2**13
_FEW = 64  # visits of a row up to which comparing with all of them is the fastest way to find one


class Keeper:
    """The neighbors kept so far; rows are in the order of their homes, guests last.

    vectors : as they came
    rank    : int (n_rows,), the place among them of each row
    visits  : in the order of rows and leaves, but for those of hubs
    hubs    : int (n_hubs,), ascending, rows that visit every leaf
    bar     : float32 (n,), the raw distance of a row's worst neighbor, inf while it has fewer than k
    """

    def __init__(self, vectors: Vectors, rows: np.ndarray, home: np.ndarray, visits: Visits, k: int, metric: str):
        self.vectors, self.rank, self.metric = vectors, rows, METRICS[metric]
        self.home = home[rows]
        place = np.full(len(home), -1)
        place[rows] = np.arange(len(rows))
        row, every = place[visits.row], visits.leaf == EVERY_LEAF
        self.hubs = np.unique(row[every & (row >= 0)])
        here = np.flatnonzero((row >= 0) & ~every)
        self.visits = Visits(*by_first(row.take(here), visits.leaf.take(here)))
        self.k = k
        self.bar = np.full(len(rows), np.inf, np.float32)
        rank_bits = max(1, int(rows.max(initial=0)).bit_length())
        self._rank_bits, self._key_bits = np.uint64(rank_bits), np.uint64(rank_bits + DISTANCE_BITS)
        # No neighbor yet: an infinite distance and the last rank, behind all others.
        infinite = ordered_bits(np.full(1, np.inf, np.float32))[0]
        self._empty = (infinite << self._rank_bits) | low_bits(self._rank_bits)
        self._best = np.full((len(rows), k), self._empty)
        self._worst = np.full(len(rows), self._empty)
        self._most_rows = min(_FOLD_ROWS, 2 ** (64 - rank_bits - DISTANCE_BITS))
        # Both ends of a pair are folded at once: half the rows of a fold for either.
        self.fold_rows = max(1, self._most_rows // 2)

    def met_before(self, visitors: np.ndarray, residents: np.ndarray) -> np.ndarray:
        """True for a pair that has met already, because the resident visits the visitor's home, a lower leaf."""
        home = self.home.take(visitors)
        lower = np.flatnonzero((home >= 0) & (home < self.home.take(residents)))
        before = np.zeros(len(visitors), bool)
        before[lower] = self._visits(residents.take(lower), home.take(lower))
        if len(self.hubs):
            before[lower] |= np.isin(residents.take(lower), self.hubs)
        return before

    @cached_property
    def _few_visits(self) -> np.ndarray | None:
        """The leaves that every row visits, a column each, padded with -1; None where some visit many."""
        count = np.bincount(self.visits.row, minlength=len(self.home))
        if count.max(initial=0) > _FEW:
            return None
        few = np.full((len(count), max(1, count.max(initial=0))), -1, np.int32)
        few[self.visits.row, places(count)] = self.visits.leaf
        return np.ascontiguousarray(few.T)

    @cached_property
    def _visits_in_order(self) -> tuple[int, np.ndarray]:
        n_leaves = max(int(self.visits.leaf.max(initial=0)), int(self.home.max(initial=0))) + 1
        return n_leaves, self.visits.row * n_leaves + self.visits.leaf

    def _visits(self, rows: np.ndarray, leaves: np.ndarray) -> np.ndarray:
        """Say which rows visit a leaf each."""
        if self._few_visits is not None:
            return (self._few_visits.take(rows, axis=1) == leaves).any(axis=0)
        n_leaves, keys = self._visits_in_order
        wanted = rows * n_leaves + leaves
        return keys.take(np.searchsorted(keys, wanted), mode="clip") == wanted

    def fold(self, rows: np.ndarray, slot: np.ndarray, rank: np.ndarray, raw: np.ndarray) -> None:
        """Fold candidates into the best of their rows: for rows[slot], a neighbor's rank and exact raw distance."""
        if len(slot) == 0:
            return
        keys = slot.astype(np.uint64) << self._key_bits
        keys |= self._keys(rank, raw)
        keys.sort()
        count = np.bincount(slot, minlength=len(rows))
        changed = np.flatnonzero(count)
        count = count.take(changed)
        # Only candidates are sorted.  Of two lists in order the k first are the lesser of one's first and the other's
        # last, of one's second and the other's last but one, and so on: a candidate has one place to take.
        first = np.cumsum(count) - count
        place = np.repeat(np.arange(1, len(count) + 1) * self.k - 1 + first, count) - np.arange(len(keys))
        if count.max() > self.k:
            few = np.flatnonzero(np.arange(len(keys)) - np.repeat(first, count) < self.k)
            keys, place = keys.take(few), place.take(few)
        keys &= low_bits(self._key_bits)
        best = self._best.take(rows.take(changed), axis=0)
        flat = best.ravel()
        flat[place] = np.minimum(flat.take(place), keys)
        best.sort(axis=1)
        changed = rows.take(changed)
        self._best[changed], self._worst[changed] = best, best[:, -1]
        self.bar[changed] = self.metric.to_raw(self._distances(best[:, -1]))

    def may_enter(self, row: np.ndarray, rank: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Say which candidates come before the worst neighbor of their row: ties with it, too, are decided by rank."""
        return self._keys(rank, raw) < self._worst.take(row)

    def _keys(self, rank: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return (ordered_bits(self.metric.from_raw(raw)) << self._rank_bits) | rank.view(np.uint64)

    def fold_pairs(self, row: np.ndarray, rank: np.ndarray, raw: np.ndarray) -> None:
        """Do the same for candidates of any number of rows, in any order."""
        order = np.argsort(row, kind="stable")
        begins = np.diff(row[order], prepend=-1) != 0
        rows, slot = row[order][begins], np.cumsum(begins) - 1
        for first in range(0, len(rows), self._most_rows):
            start, end = np.searchsorted(slot, (first, first + self._most_rows))
            some = order[start:end]
            self.fold(rows[first : first + self._most_rows], slot[start:end] - first, rank[some], raw[some])

    def _distances(self, keys: np.ndarray) -> np.ndarray:
        return from_ordered_bits(keys >> self._rank_bits)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbors kept of every row, as ranks and distances; -1 and inf where there are fewer."""
        ranks = (self._best & low_bits(self._rank_bits)).astype(np.int32)
        ranks[self._best == self._empty] = -1
        return ranks, self._distances(self._best)
