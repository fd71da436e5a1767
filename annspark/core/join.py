"""The leaf join: residents of a leaf meet its residents and its visitors; each end keeps its nearest.

A pair is found when either side visits the other's home.  Visitors do not meet each other.  What decides the speed is
selection, not the matrix product, so a candidate has to beat a bar, the distance of the worst candidate kept so far by
either end; the few survivors are folded in by one sort of packed integers.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import to_distance
from annspark.core.nearest import group_bound
from annspark.core.topk import EMPTY, pack, unpack

MAX_ROWS = 2**23  # rows of one partition, so that a rank has 23 bits
# A candidate while joining: row of the fold (13 bits) | squared distance (28 bits) | rank of the neighbor (23 bits).
_FOLD_ROWS = 2**13
_RANK_BITS, _RANK_MASK = np.uint64(23), np.uint64(2**23 - 1)
_KEY_BITS, _KEY_MASK = np.uint64(51), np.uint64(2**51 - 1)
_DROPPED_BITS = np.uint32(3)  # of the float's 31 bits: 28 remain, a relative 1e-6; exact distances come at the end
_TILE = 1 << 18  # distances of one product: 1 MB stays in the second-level cache
_EXACT_BYTES = 1 << 22  # difference vectors in flight while exact distances are computed


@dataclass(frozen=True)
class Joined:
    """What one partition knows about the vectors it saw.

    neighbors : int32 (n, k), row numbers, nearest first, ties by row number; -1 where fewer were met
    distances : float32 (n, k), exact (by differences); inf where fewer were met
    pairs     : number of distances computed
    max_rows  : residents of the largest leaf
    """

    neighbors: np.ndarray
    distances: np.ndarray
    pairs: int
    max_rows: int


def join_leaves(vectors: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str) -> Joined:
    """Join every leaf of a partition and return each vector's k nearest among those it met.

    vectors : float32 (n, dim), prepared, in ascending order of id, n <= MAX_ROWS
    home    : int32 (n,), the leaf a vector lives in; -1 for a guest, whose home is in another partition
    visits  : int32 (n, width), other leaves of this partition that the vector visits; -1 where there are fewer

    The answer for a pair is the same wherever it is met: distances of the kept candidates are recomputed by
    differences, and a few more than k are carried so that rounding in the products cannot push a neighbor out.
    """
    if len(vectors) > MAX_ROWS:
        raise ValueError(f"join_leaves: {len(vectors):,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    order = np.argsort(np.where(home < 0, np.iinfo(np.int32).max, home), kind="stable")
    join = _Join(vectors, order, home, visits, width=k + max(2, k // 8))
    leaves, first, count = np.unique(join.home, return_index=True, return_counts=True)
    residents = {int(leaf): (int(a), int(a + c)) for leaf, a, c in zip(leaves, first, count, strict=True) if leaf >= 0}

    pairs = 0
    for start, end in residents.values():
        pairs += join.meet(np.arange(start, end), start, end, at_home=True)
    for leaf, visitors in _visitors(join.visits):
        if leaf in residents:
            pairs += join.meet(visitors, *residents[leaf], at_home=False)
    neighbors, distances = _exact(vectors, order, join.best, k, metric)
    return Joined(neighbors, distances, pairs, max((end - start for start, end in residents.values()), default=0))


def _visitors(visits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (leaf, ascending rows that visit it) for every visited leaf, in ascending order of leaves."""
    flat = np.flatnonzero(visits >= 0)
    leaf = visits.ravel()[flat]
    order = np.argsort(leaf, kind="stable")
    leaves, first = np.unique(leaf[order], return_index=True)
    rows = np.split(flat[order] // visits.shape[1], first[1:]) if len(flat) else []
    return list(zip(leaves.tolist(), rows, strict=True))


class _Join:
    """The candidates kept so far; rows are in the order of their homes, guests last."""

    def __init__(self, vectors: np.ndarray, order: np.ndarray, home: np.ndarray, visits: np.ndarray, width: int):
        self.vectors = vectors[order]
        self.rank = order.astype(np.uint64)
        self.home = home[order]
        self.visits = visits[order]
        self.width = width
        self.best = np.full((len(order), width), EMPTY)
        self.bar = np.full(len(order), np.inf, np.float32)
        self.tile = np.empty(_TILE, np.float32)

    def meet(self, visitors: np.ndarray, start: int, end: int, *, at_home: bool) -> int:
        """Let visitors meet the residents start..end of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves, so each row's own list is all there is to fill
        """
        # Around the leaf's own centre |x|^2 + |y|^2 - 2xy keeps its digits even when the leaf is far from the origin.
        centre = self.vectors[start:end].mean(axis=0)
        for a in range(start, end, _FOLD_ROWS):
            residents = np.arange(a, min(a + _FOLD_ROWS, end))
            right = _augmented_residents(self.vectors[residents] - centre)
            for g in range(0, len(visitors), _FOLD_ROWS):
                self._meet_some(visitors[g : g + _FOLD_ROWS], residents, right, centre, at_home)
        return len(visitors) * (end - start)

    def _meet_some(
        self, visitors: np.ndarray, residents: np.ndarray, right: np.ndarray, centre: np.ndarray, at_home: bool
    ) -> None:
        width = len(residents)
        bar = self.bar[residents]
        step = max(16, _TILE // width)
        found = []
        for start in range(0, len(visitors), step):
            rows = visitors[start : start + step]
            block = self._distances(rows, residents, right, centre, at_home)
            own = self._own_bar(rows, block)
            beats = block <= own[:, None]
            if not at_home:
                beats |= block <= bar
            flat = np.flatnonzero(beats)
            row = flat // width
            found.append((row + start, flat - row * width, block.ravel()[flat], own[row]))
        row, column, value, own = (np.concatenate(part) for part in zip(*found, strict=True))
        # A row is not its own neighbor (inf), and a pair that visits each other's homes meets once.
        good = value < np.inf
        if not at_home:
            good &= ~self._met_before(visitors[row], residents[column])
        row, column, own = row[good], column[good], own[good]
        value = np.maximum(value[good], 0)  # rounding can leave a twin just below 0
        self._fold(visitors, row, self.rank[residents][column], value, value <= own)
        if not at_home:
            self._fold(residents, column, self.rank[visitors][row], value, value <= bar[column])

    def _distances(
        self, rows: np.ndarray, residents: np.ndarray, right: np.ndarray, centre: np.ndarray, at_home: bool
    ) -> np.ndarray:
        """Return squared distances of rows to residents, from one product: float32 (n_rows, n_residents)."""
        left = _augmented_visitors(self.vectors[rows] - centre)
        size = len(rows) * len(residents)
        tile = self.tile[:size] if size <= len(self.tile) else np.empty(size, np.float32)
        block = tile.reshape(len(rows), len(residents))
        np.matmul(left, right.T, out=block)
        if at_home:
            column = rows - residents[0]
            inside = np.flatnonzero((column >= 0) & (column < len(residents)))
            block[inside, column[inside]] = np.inf
        return block

    def _own_bar(self, rows: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Return the rows' bars; a row that has met too few so far gets one from the block itself."""
        own = self.bar[rows]
        fresh = np.flatnonzero(np.isinf(own))
        if len(fresh):
            own[fresh] = group_bound(block if len(fresh) == len(own) else block[fresh], self.width)
        return own

    def _met_before(self, visitors: np.ndarray, residents: np.ndarray) -> np.ndarray:
        """True for a pair that has met already, because the resident visits the visitor's home, a lower leaf."""
        home = self.home[visitors]
        lower = np.flatnonzero((home >= 0) & (home < self.home[residents]))
        before = np.zeros(len(visitors), bool)
        before[lower] = (self.visits[residents[lower]] == home[lower][:, None]).any(axis=1)
        return before

    def _fold(
        self, rows: np.ndarray, slot: np.ndarray, rank: np.ndarray, squared: np.ndarray, keep: np.ndarray
    ) -> None:
        """Fold candidates into the best of their rows: those kept, for rows[slot], a neighbor's rank and distance."""
        slot, rank, squared = slot[keep], rank[keep], squared[keep]
        if len(slot) == 0:
            return
        keys = slot.astype(np.uint64) << _KEY_BITS
        keys |= (squared.view(np.uint32) >> _DROPPED_BITS).astype(np.uint64) << _RANK_BITS
        keys |= rank
        keys.sort()
        slot = (keys >> _KEY_BITS).astype(np.int64)
        first = np.flatnonzero(np.diff(slot, prepend=-1))
        count = np.diff(np.append(first, len(slot)))
        place = np.arange(len(slot)) - np.repeat(first, count)
        nearest = place < self.width
        group = np.repeat(np.arange(len(first)), count)
        changed = rows[slot[first]]
        together = np.full((len(first), 2 * self.width), EMPTY)
        together[:, : self.width] = self.best[changed]
        together[group[nearest], self.width + place[nearest]] = keys[nearest] & _KEY_MASK
        together.sort(axis=1)
        self.best[changed] = together[:, : self.width]
        worst = together[:, self.width - 1]
        # The upper edge of what the dropped bits may hide, so that ties stay in.
        edge = (((worst & _KEY_MASK) >> _RANK_BITS).astype(np.uint32) + np.uint32(1)) << _DROPPED_BITS
        self.bar[changed] = np.where(worst == EMPTY, np.float32(np.inf), edge.view(np.float32))


def _augmented_residents(vectors: np.ndarray) -> np.ndarray:
    """Return [-2y, 1, |y|^2]: one product with [x, |x|^2, 1] gives |x|^2 + |y|^2 - 2 x.y."""
    n, dim = vectors.shape
    out = np.empty((n, dim + 2), np.float32)
    np.multiply(vectors, -2, out=out[:, :dim])
    out[:, dim] = 1
    out[:, dim + 1] = np.einsum("ij,ij->i", vectors, vectors)
    return out


def _augmented_visitors(vectors: np.ndarray) -> np.ndarray:
    """Return [x, |x|^2, 1]."""
    n, dim = vectors.shape
    out = np.empty((n, dim + 2), np.float32)
    out[:, :dim] = vectors
    out[:, dim] = np.einsum("ij,ij->i", vectors, vectors)
    out[:, dim + 1] = 1
    return out


def _exact(
    vectors: np.ndarray, order: np.ndarray, best: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Recompute the kept candidates' distances by differences and return the k best in input order."""
    n, dim = vectors.shape
    neighbors = np.empty((n, k), np.int32)
    distances = np.empty((n, k), np.float32)
    step = max(1, _EXACT_BYTES // (4 * dim * best.shape[1]))
    for start in range(0, n, step):
        rows = order[start : start + step]
        keys = best[start : start + step]
        ranks = (keys & _RANK_MASK).astype(np.int64)
        ranks[keys == EMPTY] = 0
        difference = vectors[ranks] - vectors[rows][:, None]
        exact = pack(to_distance(np.einsum("ijk,ijk->ij", difference, difference), metric), ranks)
        exact[keys == EMPTY] = EMPTY
        exact.sort(axis=1)
        distances[rows], neighbors[rows] = unpack(exact[:, :k])
    return neighbors, distances
