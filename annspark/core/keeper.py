"""Keeper: the nearest neighbors that each row of a partition has kept so far, and the bar that others have to beat.

A candidate is a pair of a row and a neighbor with its distance.  To fold candidates is to merge them into the lists of
their rows, so that each list keeps the k nearest.
"""

from functools import cached_property

import numpy as np

from annspark.core.arrays import distinct, places_in_groups, sort_pairs
from annspark.core.excluded import Pairs, pairs_of
from annspark.core.metric import METRICS
from annspark.core.packing import DISTANCE_BITS, from_ordered_bits, low_bits, ordered_bits
from annspark.core.routes import EVERY_LEAF, Visits
from annspark.core.vectors import Vectors

# Rows of one partition, at most.  While it is folded, a candidate is one integer of 64 bits:
#     row of the fold (6 bits or more) | bits of the distance (32) | id order of the neighbor (26 or fewer).
# With 26 bits of id order a fold has 64 rows.  That takes more time, but not where most rows are equal: of equal rows
# no more than k + 1 are joined.
MAX_ROWS = 2**26
_FOLD_ROWS = 2**13  # rows of one fold, at most
NO_BAR = np.float32(-1e38)  # the bar of a row that keeps no neighbors: below all raw distances, and finite
_FEW = 64  # where no row has more visits, comparing a leaf with all of them is the fastest way to find it


class Keeper:
    """The neighbor lists of the rows of a partition.  Rows are in the order of their homes, guests last.

    vectors        : in ascending order of id
    id_order       : int (n_rows,), each row's place among the vectors, so in the order of ids, which decides ties
    home           : int32 (n_rows,), home leaves; -1 for guests
    visits         : by (row, leaf), without those of hubs
    hubs           : int (n_hubs,), ascending, rows that visit every leaf
    metric         : a key of METRICS; facts is its record
    k              : neighbors that a list has room for
    residents_meet : whether residents are compared with each other; where they are not, guests ask
    excluded       : pairs of a row and another, both in the order of homes, that the row must not keep
    group          : int64 (n_rows,), groups, outside of which no row keeps others; None where there are none
    small          : bool (n_rows,), rows of small groups, which may keep all of their group
    things         : int (n_rows,), the same for a guest and a resident that are one; None where no row is both
    bar            : float32 (n_rows,), raw distance of the worst neighbor in a row's list, inf while it has fewer than
                     k, NO_BAR for rows that keep no neighbors
    fold_rows      : rows of either end in one call of fold
    """

    def __init__(
        self,
        vectors: Vectors,
        rows: np.ndarray,
        home: np.ndarray,
        visits: Visits,
        k: int,
        metric: str,
        bars: np.ndarray | None = None,
        things: np.ndarray | None = None,
        excluded: Pairs | None = None,
        group: np.ndarray | None = None,
        shared: range = range(0),
    ):
        """Take the rows of a partition.

        shared : leaves that small groups share; nobody else goes there

        bars   : float32 (n,), the bar that each vector begins with, for guests that ask; NO_BAR for those that
                 keep no neighbors; None where all begin without one, and residents are compared with each other
        things : int (n,), the same for vectors of one id; None where each comes once
        """
        self.vectors, self.id_order = vectors, rows
        self.metric, self.facts = metric, METRICS[metric]
        self.home = home[rows]
        place = np.full(len(home), -1, np.int32)
        place[rows] = np.arange(len(rows))
        row, leaf, every = place[visits.row], visits.leaf, visits.leaf == EVERY_LEAF
        self.hubs = distinct(row[every & (row >= 0)])
        # There may be hundreds of visits for each row, so copies of them count.
        here = (row >= 0) & ~every
        if not here.all():
            row, leaf = row[here], leaf[here]
        self.excluded = None if excluded is None else _renumbered(excluded, place)
        self.group = None if group is None else group[rows]
        self.visits = Visits(*sort_pairs(row, leaf))
        self.small = _are_among(self.home, shared)
        self.small[self.visits.row[_are_among(self.visits.leaf, shared)]] = True
        self.k = k
        self.bar = np.full(len(rows), np.inf, np.float32)
        id_bits = max(1, int(rows.max(initial=0)).bit_length())
        self._id_bits, self._key_bits = np.uint64(id_bits), np.uint64(id_bits + DISTANCE_BITS)
        # Stands for no neighbor: an infinite distance and the largest number come after all others.
        infinite = ordered_bits(np.full(1, np.inf, np.float32))[0]
        self._empty = (infinite << self._id_bits) | low_bits(self._id_bits)
        self._best = np.full((len(rows), k), self._empty)
        self._worst = np.full(len(rows), self._empty)
        self.residents_meet = bars is None
        self.things = None if things is None else things[rows]
        if bars is not None:
            self.bar = bars[rows]
            known = np.isfinite(self.bar) & (self.bar != NO_BAR)
            # A neighbor at the distance of the bar may enter, whatever its id.
            last = np.full(np.count_nonzero(known), low_bits(self._id_bits)).view(np.int64)
            self._worst[known] = self._keys(last, self.bar[known])
            self._worst[self.bar == NO_BAR] = 0
        self._most_rows = min(_FOLD_ROWS, 2 ** (64 - id_bits - DISTANCE_BITS))
        # Both ends of a pair are folded at once, so either may have half the rows of a fold.
        self.fold_rows = max(1, self._most_rows // 2)

    def left_out(self, visitors: np.ndarray, residents: np.ndarray) -> np.ndarray:
        """Return which pairs are of a row with itself, or were compared already.

        A pair was compared already where the resident visits the visitor's home, a leaf of lower number: leaves are
        joined in ascending order.
        """
        if self.things is not None:  # pairs that are met again are left out where they are folded
            return self.things.take(visitors) == self.things.take(residents)
        home = self.home.take(visitors)
        lower = np.flatnonzero((home >= 0) & (home < self.home.take(residents)))
        before = np.zeros(len(visitors), bool)
        before[lower] = self._are_visiting(residents.take(lower), home.take(lower))
        if len(self.hubs):
            before[lower] |= np.isin(residents.take(lower), self.hubs)
        return before

    @cached_property
    def _few_visits(self) -> np.ndarray | None:
        """The leaves that each row visits: int32 (most visits, n_rows), -1 for none; None if some row visits many."""
        count = np.bincount(self.visits.row, minlength=len(self.home))
        if count.max(initial=0) > _FEW:
            return None
        few = np.full((len(count), max(1, count.max(initial=0))), -1, np.int32)
        few[self.visits.row, places_in_groups(count)] = self.visits.leaf
        return np.ascontiguousarray(few.T)

    @cached_property
    def _visit_keys(self) -> tuple[int, np.ndarray]:
        """A factor, and row * factor + leaf of every visit, ascending."""
        n_leaves = max(int(self.visits.leaf.max(initial=0)), int(self.home.max(initial=0))) + 1
        keys = self.visits.row.astype(np.int64)
        keys *= n_leaves
        keys += self.visits.leaf
        return n_leaves, keys

    def _are_visiting(self, rows: np.ndarray, leaves: np.ndarray) -> np.ndarray:
        """Return which rows visit the leaf given for each: bool (n,)."""
        if self._few_visits is not None:
            return (self._few_visits.take(rows, axis=1) == leaves).any(axis=0)
        n_leaves, keys = self._visit_keys
        wanted = rows * n_leaves + leaves
        return keys.take(np.searchsorted(keys, wanted), mode="clip") == wanted

    def allowed(self, pairs: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return those of some pairs whose row may keep the other.

        pairs        : int (n,), places in rows and others
        rows, others : int (n_pairs,), all pairs
        """
        if self.group is not None:
            pairs = pairs[self.group.take(rows.take(pairs)) == self.group.take(others.take(pairs))]
        if self.excluded is not None:
            pairs = pairs[~self.excluded.hold(rows.take(pairs), others.take(pairs))]
        return pairs

    def fold(self, rows: np.ndarray, slot: np.ndarray, id_order: np.ndarray, raw: np.ndarray) -> None:
        """Fold candidates into the lists of their rows.

        rows     : int (n_rows,), at most as many as a fold may have
        slot     : int (n,), place of a candidate's row in rows
        id_order : int (n,), of the neighbor
        raw      : float32 (n,), exact raw distance
        """
        if self.things is not None:
            slot, id_order, raw = self._not_listed(rows, slot, id_order, raw)
        if len(slot) == 0:
            return
        keys = slot.astype(np.uint64) << self._key_bits
        keys |= self._keys(id_order, raw)
        keys.sort()
        count = np.bincount(slot, minlength=len(rows))
        changed = np.flatnonzero(count)
        count = count.take(changed)
        # Only the candidates are sorted; then a bitonic merge: of two ascending lists a and b of length k, the k least
        # numbers are min(a[i], b[k - 1 - i]) for all i.  So a candidate has one place in the list to be compared with.
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
        self._best[changed] = best
        # A row that began with a bar keeps it until it has k neighbors that are nearer.
        self._worst[changed] = np.minimum(self._worst.take(changed), best[:, -1])
        bar = self.facts.to_raw(self._distances(best[:, -1]))
        self.bar[changed] = np.minimum(self.bar.take(changed), bar)

    def _not_listed(
        self, rows: np.ndarray, slot: np.ndarray, id_order: np.ndarray, raw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return candidates for fold that are not in the lists yet, each once."""
        keys = self._keys(id_order, raw)
        _, once = np.unique(slot.astype(np.uint64) << self._key_bits | keys, return_index=True)
        listed = self._best.take(rows.take(slot.take(once)), axis=0)
        new = once[~(listed == keys.take(once)[:, None]).any(axis=1)]
        return slot.take(new), id_order.take(new), raw.take(new)

    def may_enter(self, row: np.ndarray, id_order: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Return which candidates come before the worst neighbor of their row, by (distance, id order): bool (n,)."""
        return self._keys(id_order, raw) < self._worst.take(row)

    def _keys(self, id_order: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return (ordered_bits(self.facts.from_raw(raw)) << self._id_bits) | id_order.view(np.uint64)

    def fold_pairs(self, row: np.ndarray, id_order: np.ndarray, raw: np.ndarray) -> None:
        """Fold candidates of any number of rows, in any order.

        row           : int (n,), row of each candidate
        id_order, raw : as for fold
        """
        order = np.argsort(row, kind="stable")
        begins = np.diff(row[order], prepend=-1) != 0
        rows, slot = row[order][begins], np.cumsum(begins) - 1
        for first in range(0, len(rows), self._most_rows):
            start, end = np.searchsorted(slot, (first, first + self._most_rows))
            some = order[start:end]
            self.fold(rows[first : first + self._most_rows], slot[start:end] - first, id_order[some], raw[some])

    def _distances(self, keys: np.ndarray) -> np.ndarray:
        return from_ordered_bits(keys >> self._id_bits)

    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lists: id orders int32 and distances float32, (n_rows, k), -1 and inf where there are fewer."""
        neighbors = (self._best & low_bits(self._id_bits)).astype(np.int32)
        neighbors[self._best == self._empty] = -1
        return neighbors, self._distances(self._best)


def _are_among(leaves: np.ndarray, wanted: range) -> np.ndarray:
    """Return which leaves are among those wanted: bool (n,)."""
    return (leaves >= wanted.start) & (leaves < wanted.stop)


def _renumbered(pairs: Pairs, place: np.ndarray) -> Pairs:
    """Return pairs with other numbers of their rows, without those that have none.

    place : int (n,), the new number of each row, -1 for none
    """
    row, other = place.take(pairs.row), place.take(pairs.other)
    kept = np.flatnonzero((row >= 0) & (other >= 0))
    return pairs_of(row.take(kept), other.take(kept), len(place), len(place))
