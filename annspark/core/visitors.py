"""Visitors: which residents of a leaf visit which leaves, a bit for each resident and each leaf that some visit.

A row that is new visits leaves near to it, and residents of leaves visit its home.  To find the latter without routing
all rows again, an index keeps their visits.  Residents of a leaf visit about the same leaves.  So a bit for each takes
a tenth of the space of lists of leaves.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.arrays import distinct


@dataclass(frozen=True)
class Visitors:
    """The visits of the residents of some leaves, in the order of (leaf, visited).

    leaf    : int32 (n,), a leaf
    visited : int32 (n,), a leaf that some of its residents visit, or EVERY_LEAF
    first   : int64 (n + 1,), where the bits of these two begin, and where the last ones end; as many bytes for each
              entry of a leaf
    bits    : uint8, a bit for each resident of the leaf, eight to a byte, the first one highest
    place   : int32 (n_rows,), which bit is that of a resident, for all residents in the order of (leaf, id); a bit that
              is nobody's is 0
    """

    leaf: np.ndarray
    visited: np.ndarray
    first: np.ndarray
    bits: np.ndarray
    place: np.ndarray

    def of_leaf(self, leaf: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the leaves that residents of a leaf visit, and the bits of each: int32 (m,), uint8 (m, n_bytes)."""
        start, end = np.searchsorted(self.leaf, [leaf, leaf + 1])
        bits = self.bits[self.first[start] : self.first[end]]
        return self.visited[start:end], bits.reshape(end - start, -1) if end > start else np.empty((0, 0), np.uint8)

    def bits_of(self, entries: np.ndarray) -> np.ndarray:
        """Return the bits of some entries of one leaf, one at least: uint8 (n_entries, n_bytes)."""
        first = self.first[entries]
        n_bytes = self.first[entries[0] + 1] - first[0]
        return self.bits[first[:, None] + np.arange(n_bytes)]


NO_VISITORS = Visitors(
    leaf=np.empty(0, np.int32),
    visited=np.empty(0, np.int32),
    first=np.zeros(1, np.int64),
    bits=np.empty(0, np.uint8),
    place=np.empty(0, np.int32),
)


def gather_visitors(leaf: np.ndarray, counts: np.ndarray, visited: np.ndarray) -> Visitors:
    """Return the visits of the residents of some leaves.

    leaf    : int (n_rows,), ascending, home of each resident; the residents of a leaf are in the order of ids
    counts  : int (n_rows,), visits of each resident
    visited : int32 (sum of counts,), the leaves they visit, or EVERY_LEAF
    """
    return renew_visitors(NO_VISITORS, leaf, np.full(len(leaf), -1), counts, visited)


def renew_visitors(
    old: Visitors, leaf: np.ndarray, before: np.ndarray, counts: np.ndarray, visited: np.ndarray
) -> Visitors:
    """Return the visits of residents of which some were there before.

    The bits of these stay where they are, and residents that are new take those of others that have left.  So a leaf in
    which nothing has changed is copied, and in others only a few bytes are touched.

    old     : the visits of the residents before
    leaf    : int (n_rows,), ascending, home of each resident; the residents of a leaf are in the order of ids
    before  : int (n_rows,), which of the residents before it was, in the same leaf; -1 for one that is new.  Those that
              were there before are in the same order as then
    counts  : int (n_rows,), visits of each resident that is new, 0 for others
    visited : int32 (sum of counts,), the leaves they visit, or EVERY_LEAF
    """
    leaves, begins, n_rows = np.unique(leaf, return_index=True, return_counts=True)
    if not len(leaves):
        return NO_VISITORS
    ends = np.cumsum(counts)
    found = []
    for same, some in _stretches(_are_same(old, begins, n_rows, before)):
        if same:
            found.append(_copied(old, leaves[some], before[begins[some[0]] : begins[some[-1]] + n_rows[some[-1]]]))
            continue
        for one, begin, n in zip(leaves[some], begins[some], n_rows[some], strict=True):
            here = slice(begin, begin + n)
            own = visited[ends[begin] - counts[begin] : ends[begin + n - 1]]
            found.append(_renewed(old, one, before[here], counts[here], own))
    of_leaf, targets, widths, packed, places = (np.concatenate(part) for part in zip(*found, strict=True))
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths, dtype=np.int64)])
    return Visitors(of_leaf.astype(np.int32), targets.astype(np.int32), first, packed, places)


_Piece = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # leaf, visited, bytes of each, bits, place


def _are_same(old: Visitors, begins: np.ndarray, n_rows: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return which leaves have the residents that they had before: bool (n_leaves,).

    A resident that has left between two leaves may have been of either, so that neither counts as the same.
    """
    has_left = np.ones(len(old.place) + 2, bool)  # one more at both ends, where nobody has left
    has_left[[0, -1]] = False
    has_left[before[before >= 0] + 1] = False
    left = np.concatenate([np.zeros(1, np.int64), np.cumsum(has_left)])
    is_new = np.concatenate([np.zeros(1, np.int64), np.cumsum(before < 0)])
    ends = begins + n_rows
    start, end = before[begins], before[ends - 1]
    return (is_new[ends] == is_new[begins]) & (left[end + 3] == left[start])


def _stretches(same: np.ndarray) -> list[tuple[bool, np.ndarray]]:
    """Return the runs of leaves that are all the same or all not: whether they are, and their places."""
    cuts = np.flatnonzero(np.diff(same)) + 1
    return [(bool(same[some[0]]), some) for some in np.split(np.arange(len(same)), cuts)]


def _copied(old: Visitors, leaves: np.ndarray, before: np.ndarray) -> _Piece:
    """Return the visits of leaves that follow each other and whose residents are the same."""
    start, end = np.searchsorted(old.leaf, [leaves[0], leaves[-1] + 1])
    widths = np.diff(old.first[start : end + 1])
    bits = old.bits[old.first[start] : old.first[end]]
    return old.leaf[start:end], old.visited[start:end], widths, bits, old.place[before[0] : before[-1] + 1]


def _renewed(old: Visitors, leaf: int, before: np.ndarray, counts: np.ndarray, visited: np.ndarray) -> _Piece:
    """Return the visits of the residents of one leaf."""
    targets, bits = old.of_leaf(leaf)
    place = _places(old, before)
    bits = _widened(bits, place)
    bits &= np.packbits(np.isin(np.arange(8 * bits.shape[1]), place[before >= 0]))
    targets, bits = _with_targets(targets, bits, visited)
    entry, at = np.searchsorted(targets, visited), np.repeat(place, counts)
    np.bitwise_or.at(bits, (entry, at >> 3), (128 >> (at & 7)).astype(np.uint8))
    some = bits.any(axis=1)
    n = int(some.sum())
    return np.full(n, leaf), targets[some], np.full(n, bits.shape[1]), bits[some].ravel(), place


def _places(old: Visitors, before: np.ndarray) -> np.ndarray:
    """Return the bit of each resident of a leaf; those that are new get the first that are free: int32 (n,)."""
    is_new = before < 0
    place = np.empty(len(before), np.int32)
    place[~is_new] = old.place[before[~is_new]]
    free = np.ones(len(before) + 1 + int(place[~is_new].max(initial=0)), bool)
    free[place[~is_new]] = False
    place[is_new] = np.flatnonzero(free)[: is_new.sum()]
    return place


def _widened(bits: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return a copy of the bits of a leaf's entries, with a byte for every place: uint8 (n, bytes of an entry)."""
    wide = np.zeros((len(bits), max(bits.shape[1], int(place.max()) // 8 + 1)), np.uint8)
    wide[:, : bits.shape[1]] = bits
    return wide


def _with_targets(targets: np.ndarray, bits: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the leaves visited with more of them, ascending, and the bits of each, 0 for those that are new."""
    both = distinct(np.concatenate([targets, more]))
    if len(both) == len(targets):
        return targets, bits
    wide = np.zeros((len(both), bits.shape[1]), np.uint8)
    wide[np.searchsorted(both, targets)] = bits
    return both, wide
