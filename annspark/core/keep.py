"""Keep: the nearest neighbors every row of a partition has met so far, and the bar that others have to beat."""

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.rows import Vectors
from annspark.core.topk import DISTANCE_BITS, from_ordered_bits, low_bits, ordered_bits
from annspark.core.visit import EVERY_LEAF

MAX_ROWS = 2**23  # rows of one partition, so that a rank has at most 23 bits
# A candidate while it is folded: row of the fold (9 bits or more) | bits of the distance (32) | rank of the neighbor.
_FOLD_ROWS = 2**13


class Keeper:
    """The neighbors kept so far; rows are in the order of their homes, guests last.

    vectors : as they came
    rank    : int (n_rows,), the place among them of each row
    bar     : float32 (n,), the raw distance of a row's worst neighbor, inf while it has fewer than k
    """

    def __init__(self, vectors: Vectors, rows: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str):
        self.vectors, self.rank, self.metric = vectors, rows, METRICS[metric]
        self.home = home[rows]
        self.visits = visits[rows]
        self._visited = np.ascontiguousarray(self.visits.T)
        self.hubs = np.flatnonzero((self.visits == EVERY_LEAF).any(axis=1))
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
        before[lower] = (self._visited.take(residents.take(lower), axis=1) == home.take(lower)).any(axis=0)
        if len(self.hubs):
            before[lower] |= np.isin(residents.take(lower), self.hubs)
        return before

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
