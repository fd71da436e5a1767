"""Calls: which residents visit a home of a row that asks.

The two are compared, even if the row does not go to the leaf of the resident.  An index keeps visits as bits, see
visitors.py, and they are read leaf by leaf here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from annspark.core.arrays import distinct, ranges
from annspark.core.visitors import Visitors

# Rows that ask, and the residents that each of them is compared with.
Meetings = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Calls:
    """Rows that ask, and the residents that visit a home of theirs.

    asking   : int (n,), a row that asks
    home     : int (n,), a home of it, or EVERY_LEAF for the residents that visit all leaves
    visitors : the visits of residents
    bit      : int (n_rows,), which bit of visitors is that of a resident; it is not read for a row that asks
    """

    asking: np.ndarray
    home: np.ndarray
    visitors: Visitors
    bit: np.ndarray

    def among(self, rows: np.ndarray) -> "Calls":
        """Return the calls of some of the rows, which are numbered as they are given: int (n_given,)."""
        place = np.full(len(self.bit), -1)
        place[rows] = np.arange(len(rows))
        asking = place[self.asking]
        there = asking >= 0
        return replace(self, asking=asking[there], home=self.home[there], bit=self.bit[rows])

    def split(self, many: int) -> tuple["Calls", "Calls"]:
        """Return the calls of homes of fewer rows that ask than `many`, and of the other homes."""
        _, place, count = np.unique(self.home, return_inverse=True, return_counts=True)
        crowded = (count >= many)[place.reshape(-1)]
        few, more = (replace(self, asking=self.asking[some], home=self.home[some]) for some in (~crowded, crowded))
        return few, more

    def of_leaf(self, leaf: int, residents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that ask whose home some residents of a leaf visit, and which of them do.

        residents : int (n_residents,), of this leaf
        returns   : int (n_asking,), ascending; bool (n_asking, n_residents)
        """
        entries, visiting = self._visiting(leaf, residents)
        homes, asking = self._by_home
        first, end = (np.searchsorted(homes, self.visitors.visited[entries], side) for side in ("left", "right"))
        asking, entry = asking[ranges(first, end - first)], np.repeat(np.arange(len(entries)), end - first)
        order = np.argsort(asking, kind="stable")
        asking, met = asking[order], visiting.take(entry[order], axis=0)
        begins = np.flatnonzero(np.diff(asking, prepend=-1))
        if len(begins) < len(asking):  # a row has a home in each tree
            asking, met = asking[begins], np.logical_or.reduceat(met, begins, axis=0)
        return asking, met

    def meetings(self, home: np.ndarray) -> Meetings:
        """Return for each leaf that is visited the rows whose home it is, and the residents that visit it.

        home : int (n_rows,), of residents; -1 for a row that asks
        """
        order = np.argsort(home, kind="stable")
        calling, called = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        ascending = home[order]
        for leaf in distinct(self._leaf).tolist():
            residents = order[slice(*_ends_of(ascending, leaf))]
            entries, visiting = self._visiting(leaf, residents)
            entry, column = np.nonzero(visiting)
            calling.append(residents[column])
            called.append(self.visitors.visited[entries[entry]])
        return meetings_of(self.asking, self.home, np.concatenate(calling), np.concatenate(called))

    def _visiting(self, leaf: int, residents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries of a leaf's visits to homes, and which residents are in each: bool (n, n_residents)."""
        entries = self._entries[slice(*_ends_of(self._leaf, leaf))]
        if len(entries) == 0:
            return entries, np.empty((0, len(residents)), bool)
        bits, place = np.unpackbits(self.visitors.bits_of(entries), axis=1).view(bool), self.bit[residents]
        if np.array_equal(place, np.arange(len(place))):  # as long as nobody new has taken a bit: no copy
            return entries, bits[:, : len(place)]
        return entries, bits.take(place, axis=1)

    @cached_property
    def _entries(self) -> np.ndarray:
        """The entries of visitors whose leaf visited is one of the homes: int, ascending."""
        return np.flatnonzero(np.isin(self.visitors.visited, self.home))

    @cached_property
    def _leaf(self) -> np.ndarray:
        return self.visitors.leaf[self._entries]

    @cached_property
    def _by_home(self) -> tuple[np.ndarray, np.ndarray]:
        """The homes, ascending, and the row that asks of each."""
        order = np.argsort(self.home, kind="stable")
        return self.home[order], self.asking[order]


def _ends_of(ascending: np.ndarray, leaf: int) -> np.ndarray:
    """Return where a leaf begins and ends among ascending ones: int (2,)."""
    # Numbers of another type would have all of the array copied, for each leaf.
    return np.searchsorted(ascending, np.array([leaf, leaf + 1], ascending.dtype))


def meetings_of(asking: np.ndarray, home: np.ndarray, calling: np.ndarray, called: np.ndarray) -> Meetings:
    """Return rows that ask, and the residents that visit a home of theirs, leaf by leaf.

    asking, home    : int (n,), a row that asks, and a home of it
    calling, called : int (m,), a resident, and a leaf that it visits
    """
    by_home, by_called = np.argsort(home, kind="stable"), np.argsort(called, kind="stable")
    leaves = distinct(home[np.isin(home, called)])
    sides = []
    for rows, keys in ((asking[by_home], home[by_home]), (calling[by_called], called[by_called])):
        cuts = [np.searchsorted(keys, leaves, side) for side in ("left", "right")]
        sides.append([rows[start:end] for start, end in zip(*cuts, strict=True)])
    return list(zip(*sides, strict=True))
