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

    def visits(self, leaf: np.ndarray, wanted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the visits of residents one by one, the inverse of gather_visitors.

        wanted  : int32, the visited leaves that are asked for; None for all
        leaf    : int (n_rows,), ascending, home of each resident, in the order of ids within a leaf
        returns : int (n_visits,), a resident; int32 (n_visits,), a leaf it visits, or EVERY_LEAF
        """
        leaves, begins, counts = np.unique(leaf, return_index=True, return_counts=True)
        rows, visited = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for one, begin, count in zip(leaves, begins, counts, strict=True):
            targets, packed = self.of_leaf(one)
            if wanted is not None:
                some = np.isin(targets, wanted)
                packed, targets = packed[some], targets[some]
            entry, bit = np.nonzero(np.unpackbits(packed, axis=1))
            place = self.place[begin : begin + count]
            resident = np.empty(place.max() + 1, np.int64)
            resident[place] = np.arange(begin, begin + count)
            rows.append(resident[bit])
            visited.append(targets[entry])
        return np.concatenate(rows), np.concatenate(visited)

    def of_leaf(self, leaf: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the leaves that residents of a leaf visit, and the bits of each: int32 (m,), uint8 (m, n_bytes)."""
        start, end = np.searchsorted(self.leaf, [leaf, leaf + 1])
        bits = self.bits[self.first[start] : self.first[end]]
        return self.visited[start:end], bits.reshape(end - start, -1) if end > start else np.empty((0, 0), np.uint8)


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
    before  : int (n_rows,), which of the residents before it was, in the same leaf; -1 for one that is new
    counts  : int (n_rows,), visits of each resident that is new, 0 for others
    visited : int32 (sum of counts,), the leaves they visit, or EVERY_LEAF
    """
    leaves, begins, n_rows = np.unique(leaf, return_index=True, return_counts=True)
    ends = np.cumsum(counts)
    lists, widths, places, packed = [], [], [], []
    for one, begin, n in zip(leaves, begins, n_rows, strict=True):
        here = slice(begin, begin + n)
        own = visited[ends[begin] - counts[begin] : ends[begin + n - 1]]
        targets, bits = old.of_leaf(one)
        place = _places(old, before[here])
        bits = _widened(bits, place)
        bits &= np.packbits(np.isin(np.arange(8 * bits.shape[1]), place[before[here] >= 0]))
        targets, bits = _with_targets(targets, bits, own)
        entry, at = np.searchsorted(targets, own), np.repeat(place, counts[here])
        np.bitwise_or.at(bits, (entry, at >> 3), (128 >> (at & 7)).astype(np.uint8))
        some = bits.any(axis=1)
        lists.append(targets[some])
        widths.append(bits.shape[1])
        places.append(place)
        packed.append(bits[some].ravel())
    if not lists:
        return NO_VISITORS
    sizes = [len(targets) for targets in lists]
    return Visitors(
        leaf=np.repeat(leaves, sizes).astype(np.int32),
        visited=np.concatenate(lists).astype(np.int32),
        first=np.concatenate([[0], np.cumsum(np.repeat(widths, sizes))]).astype(np.int64),
        bits=np.concatenate(packed),
        place=np.concatenate(places),
    )


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
