"""Visitors: which residents of a leaf visit which leaves, a bit for each resident and each leaf that some visit.

A row that is new visits leaves near to it, and residents of leaves visit its home.  To find the latter without routing
all rows again, an index keeps their visits.  Residents of a leaf visit about the same leaves.  So a bit for each takes
a tenth of the space of lists of leaves.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Visitors:
    """The visits of the residents of some leaves, in the order of (leaf, visited).

    leaf    : int32 (n,), a leaf
    visited : int32 (n,), a leaf that some of its residents visit, or EVERY_LEAF
    first   : int64 (n,), where the bits of these two begin
    bits    : uint8, a bit for each resident of the leaf, in the order of ids, eight to a byte, the first one highest
    """

    leaf: np.ndarray
    visited: np.ndarray
    first: np.ndarray
    bits: np.ndarray

    def visits(self, leaf: np.ndarray, wanted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the visits of residents one by one, the inverse of gather_visitors.

        wanted  : int32, the visited leaves that are asked for; None for all
        leaf    : int (n_rows,), ascending, home of each resident, in the order of ids within a leaf
        returns : int (n_visits,), a resident; int32 (n_visits,), a leaf it visits, or EVERY_LEAF
        """
        leaves, begins, counts = np.unique(leaf, return_index=True, return_counts=True)
        cuts = np.searchsorted(self.leaf, np.append(leaves, np.iinfo(np.int32).max))
        rows, visited = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        for begin, count, start, end in zip(begins, counts, cuts[:-1], cuts[1:], strict=True):
            n_bytes = -(-count // 8)
            first = self.first[start] if end > start else 0
            packed, targets = self.bits[first : first + (end - start) * n_bytes], self.visited[start:end]
            packed = packed.reshape(-1, n_bytes)
            if wanted is not None:
                some = np.isin(targets, wanted)
                packed, targets = packed[some], targets[some]
            column, place = np.nonzero(np.unpackbits(packed, axis=1, count=count))
            rows.append(begin + place)
            visited.append(targets[column])
        return np.concatenate(rows), np.concatenate(visited)


NO_VISITORS = Visitors(*(np.empty(0, kind) for kind in (np.int32, np.int32, np.int64, np.uint8)))


def gather_visitors(leaf: np.ndarray, row: np.ndarray, visited: np.ndarray) -> Visitors:
    """Return the visits of the residents of some leaves.

    leaf    : int (n_rows,), ascending, home of each resident; the residents of a leaf are in the order of ids
    row     : int (n_visits,), ascending, a resident
    visited : int32 (n_visits,), a leaf it visits, or EVERY_LEAF
    """
    leaves, begins, counts = np.unique(leaf, return_index=True, return_counts=True)
    cuts = np.searchsorted(row, np.append(begins, len(leaf)))
    found, sizes, packed = [], [], []
    for begin, count, start, end in zip(begins, counts, cuts[:-1], cuts[1:], strict=True):
        targets, column = np.unique(visited[start:end], return_inverse=True)
        visits = np.zeros((len(targets), count), bool)
        visits[column, row[start:end] - begin] = True
        bits = np.packbits(visits, axis=1)
        found.append(targets)
        sizes.append(np.full(len(targets), bits.shape[1]))
        packed.append(bits.ravel())
    if not found:
        return NO_VISITORS
    size = np.concatenate(sizes).astype(np.int64)
    return Visitors(
        leaf=np.repeat(leaves, [len(targets) for targets in found]).astype(np.int32),
        visited=np.concatenate(found).astype(np.int32),
        first=np.cumsum(size) - size,
        bits=np.concatenate(packed),
    )
