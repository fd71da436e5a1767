"""Excluded pairs: others that a row must not be given as neighbors, however near they are."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annspark.core.arrays import distinct, members_of, ranges

_MARK_BITS = 22  # 4 MB: the marks of a partition's rows stay in a cache


@dataclass(frozen=True)
class Excluded:
    """The others that each of n rows must not be given.

    counts : int32 (n,), how many they are for each row
    hashes : int64 (sum of counts,), of their ids, row after row
    """

    counts: np.ndarray
    hashes: np.ndarray

    @property
    def most(self) -> int:
        """The most others that a row excludes."""
        return int(self.counts.max(initial=0))

    @property
    def digests(self) -> np.ndarray:
        """A number for each row that is another one where it excludes others: int64 (n,); 0 where it excludes nobody.

        Hashes are added up modulo 2**64.  So two sets have the same number with a probability of some 2**-64.
        """
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.hashes.view(np.uint64), dtype=np.uint64)])
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        return np.diff(sums[ends]).view(np.int64)

    def take(self, rows: np.ndarray) -> "Excluded":
        """Return what some of the rows exclude, in the order given: int (m,)."""
        return Excluded(self.counts[rows], self.hashes.take(members_of(rows, self.counts)))

    def among(self, hashes: np.ndarray) -> "Pairs":
        """Return the excluded pairs whose others are among some rows.

        hashes : int64 (m,), of the ids of these rows
        """
        row, n = np.repeat(np.arange(len(self.counts)), self.counts), len(self.counts)
        if len(hashes) == 0:
            return pairs_of(row[:0], row[:0], n, 0)
        # In a join most others are in other partitions.  Marks tell most of these, for a tenth of the time that looking
        # them up takes.
        marks, mask = np.zeros(1 << _MARK_BITS, bool), np.int64((1 << _MARK_BITS) - 1)
        marks[hashes & mask] = True
        near = np.flatnonzero(marks.take(self.hashes & mask))
        # Both sides are sorted: looking numbers up in their order takes a quarter of the time.
        order, by_hash = np.argsort(hashes, kind="stable"), near.take(np.argsort(self.hashes.take(near)))
        row, wanted = row.take(by_hash), self.hashes.take(by_hash)
        other = order.take(np.searchsorted(hashes.take(order), wanted), mode="clip")
        here = np.flatnonzero(hashes.take(other) == wanted)
        return pairs_of(row.take(here), other.take(here), n, len(hashes))


def excluded_by(hashes: np.ndarray, named: np.ndarray, others: np.ndarray) -> Excluded:
    """Return what some rows exclude.

    hashes        : int64 (n,), of the rows' ids
    named, others : int64 (n_pairs,), hashes of both ends of pairs; those whose first end is no row are left out
    """
    # Both sides are sorted: looking numbers up in their order takes a sixth of the time.
    order, by_name = np.argsort(hashes, kind="stable"), np.argsort(named)
    named, others, ascending = named.take(by_name), others.take(by_name), hashes.take(order)
    place = np.searchsorted(ascending, named).clip(max=len(hashes) - 1)
    here = np.flatnonzero(ascending.take(place) == named)
    hashes_of_others, code = np.unique(others.take(here), return_inverse=True)
    pairs = pairs_of(order.take(place.take(here)), code.reshape(-1), len(hashes), len(hashes_of_others))
    counts = np.bincount(pairs.row, minlength=len(hashes)).astype(np.int32)
    return Excluded(counts, hashes_of_others.take(pairs.other) if len(hashes_of_others) else hashes_of_others)


def concatenate(parts: list[Excluded]) -> Excluded:
    """Return what the rows of all parts exclude, part after part."""
    return Excluded(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "hashes")))


@dataclass(frozen=True)
class Pairs:
    """Pairs of one of n rows and one of m others, by (row, other).

    row   : int64 (n_pairs,)
    other : int64 (n_pairs,)
    """

    row: np.ndarray
    other: np.ndarray
    n: int
    m: int

    @cached_property
    def _keys(self) -> np.ndarray:
        return self.row * self.m + self.other

    @cached_property
    def _first(self) -> np.ndarray:
        """The first pair of each row, and the number of pairs: int64 (n + 1,)."""
        return np.searchsorted(self.row, np.arange(self.n + 1))

    @cached_property
    def _marks(self) -> np.ndarray:
        """For each row the bits of the others that it has pairs with, see _bits_of: uint64 (n,)."""
        marks = np.zeros(self.n, np.uint64)
        np.bitwise_or.at(marks, self.row, _bits_of(self.other))
        return marks

    def hold(self, row: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return which pairs, given by row and other, are among these: bool (n_given,)."""
        held = np.zeros(len(row), bool)
        # The marks tell most pairs that are not among these, for a tenth of the time that looking them up takes.
        some = np.flatnonzero(self._marks.take(row) & _bits_of(other))
        if len(some):
            wanted = row.take(some).astype(np.int64) * self.m + other.take(some)
            held[some] = self._keys.take(np.searchsorted(self._keys, wanted), mode="clip") == wanted
        return held

    def between(self, rows: np.ndarray, others: np.ndarray) -> "Pairs":
        """Return the pairs of some rows and some others, numbered as they are given: int (n_rows,), int (n_others,)."""
        number = np.full(self.m, -1)
        number[others] = np.arange(len(others))
        row, other = self.of_rows(rows)
        here = np.flatnonzero(number.take(other) >= 0)
        return pairs_of(row.take(here), number.take(other.take(here)), len(rows), len(others))

    def of_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of some rows: the place of the row among those given, and the other; int (n_found,) each."""
        first = self._first.take(rows)
        counts = self._first.take(rows + 1) - first
        return np.repeat(np.arange(len(rows)), counts), self.other.take(ranges(first, counts))


def _bits_of(others: np.ndarray) -> np.ndarray:
    """Return a number with one bit set for each of the others, the same for others with equal last six bits: uint64."""
    return np.uint64(1) << (others.astype(np.uint64) & np.uint64(63))


def pairs_of(row: np.ndarray, other: np.ndarray, n: int, m: int) -> Pairs:
    """Return pairs, given in any order, each perhaps several times."""
    m = max(m, 1)
    return Pairs(*np.divmod(distinct(row.astype(np.int64) * m + other), m), n, m)
