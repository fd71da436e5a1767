"""The leaf join: residents of a leaf meet its residents and its visitors; each end keeps its nearest.

A pair is found when either side visits the other's home.  Visitors do not meet each other.  What decides the speed is
selection, not the matrix product, so a pair has to beat a bar, the distance of the worst neighbor kept so far by either
end.  The product serves as a lower bound only: the few pairs that pass get their exact distance, by differences, and
are folded in by one sort of packed integers.  The answer is therefore exact for the pairs that meet, ties included,
and does not depend on which leaf, block or partition a pair meets in.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import squared_limit, to_distance
from annspark.core.nearest import BOUND_SLACK, bounding_columns, group_bound, places, squared_distances
from annspark.core.topk import EMPTY, low_bits, unpack

MAX_ROWS = 2**23  # rows of one partition, so that a rank has at most 23 bits
# A candidate while it is folded: row of the fold (10 bits or more) | bits of the distance (31) | rank of the neighbor.
_DISTANCE_BITS = 31
_FOLD_ROWS = 2**13
_TILE = 1 << 18  # distances of one product: 1 MB stays in the second-level cache
_WAITING = 1 << 16  # pairs that may wait to be folded


@dataclass(frozen=True)
class Joined:
    """What one partition knows about the vectors it saw.

    neighbors : int32 (n, k), row numbers, by (distance, row number); -1 where fewer were met
    distances : float32 (n, k), exact (by differences); inf where fewer were met
    pairs     : number of pairs compared
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
    visits  : int32 (n, width), other leaves of this partition that the vector visits; -1 where there are fewer;
              equal vectors have equal homes and visits
    """
    n = len(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"join_leaves: {n:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    neighbors = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    surplus, twins = _surplus_twins(vectors, k)
    rows = np.flatnonzero(~surplus)
    rows = rows[np.argsort(np.where(home[rows] < 0, np.iinfo(np.int32).max, home[rows]), kind="stable")]
    join = _Join(vectors, rows, home, visits, k, metric)
    leaves, first, count = np.unique(join.home, return_index=True, return_counts=True)
    residents = {int(leaf): (int(a), int(a + c)) for leaf, a, c in zip(leaves, first, count, strict=True) if leaf >= 0}

    pairs = 0
    for start, end in residents.values():
        pairs += join.meet(np.arange(start, end), start, end, at_home=True)
    for leaf, visitors in _visitors(join.visits):
        if leaf in residents:
            pairs += join.meet(visitors, *residents[leaf], at_home=False)
    distances[rows], neighbors[rows] = unpack(join.best, join.rank_bits)
    at_home = surplus & (home >= 0)
    neighbors[at_home], distances[at_home] = twins[at_home[surplus]], 0
    max_rows = int(np.unique(home[home >= 0], return_counts=True)[1].max(initial=0))
    return Joined(neighbors, distances, pairs, max_rows)


def _surplus_twins(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors that have more than k equal ones of lower rank, and those ones.

    By (distance, rank) the nearest of such a vector are its k lowest twins, and nobody else needs more than k of them:
    so it need not be compared with anybody, and 10^5 equal vectors cost no more than k + 1.

    returns : surplus bool (n,); the k lowest twins of each surplus row, int32 (n_surplus, k)
    """
    n = len(vectors)
    # Equal vectors have equal sums, and einsum gives them the same bits; other vectors with that sum only hide twins.
    weights = np.random.default_rng(0).standard_normal(vectors.shape[1], np.float32)
    mark = np.einsum("ij,j->i", vectors, weights)
    order = np.argsort(mark, kind="stable")
    same = np.zeros(n, bool)
    same[1:] = mark[order[1:]] == mark[order[:-1]]
    # Few rows have a twin in most data: only those are compared number by number.
    at = np.flatnonzero(same)
    same[at] = (vectors[order[at]] == vectors[order[at - 1]]).all(axis=1)
    starts = np.flatnonzero(~same)
    group = np.cumsum(~same) - 1
    place = np.arange(n) - starts[group]
    far = np.flatnonzero(place > k)
    surplus = np.zeros(n, bool)
    surplus[order[far]] = True
    lowest = np.empty((n, k), np.int32) if len(far) else np.empty((0, k), np.int32)
    if len(far):
        lowest[order[far]] = order[starts[group[far]][:, None] + np.arange(k)]
        lowest = lowest[surplus]
    return surplus, lowest


def _visitors(visits: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (leaf, ascending rows that visit it) for every visited leaf, in ascending order of leaves."""
    flat = np.flatnonzero(visits >= 0)
    leaf = visits.ravel()[flat]
    lowest = leaf.min(initial=0)
    # A stable sort of 16-bit numbers is a radix sort, several times faster.
    small = len(leaf) > 0 and leaf.max() - lowest < 2**16
    order = np.argsort((leaf - lowest).astype(np.uint16) if small else leaf, kind="stable")
    leaves, first = np.unique(leaf[order], return_index=True)
    rows = np.split(flat[order] // visits.shape[1], first[1:]) if len(flat) else []
    return list(zip(leaves.tolist(), rows, strict=True))


class _Join:
    """The neighbors kept so far; rows are in the order of their homes, guests last."""

    def __init__(
        self, vectors: np.ndarray, rows: np.ndarray, home: np.ndarray, visits: np.ndarray, k: int, metric: str
    ):
        self.vectors = vectors[rows]
        self.rank = rows.astype(np.uint64)
        self.home = home[rows]
        self.visits = visits[rows]
        self.k, self.metric = k, metric
        self.best = np.full((len(rows), k), EMPTY)
        self.bar = np.full(len(rows), np.inf, np.float32)
        self.tile = np.empty(_TILE, np.float32)
        rank_bits = max(1, int(rows.max(initial=0)).bit_length())
        self.rank_bits, self.key_bits = np.uint64(rank_bits), np.uint64(rank_bits + _DISTANCE_BITS)
        self.fold_rows = min(_FOLD_ROWS, 2 ** (64 - rank_bits - _DISTANCE_BITS))

    def meet(self, visitors: np.ndarray, start: int, end: int, *, at_home: bool) -> int:
        """Let visitors meet the residents start..end of a leaf, and return the number of pairs.

        at_home : the visitors are the residents themselves, so each row's own list is all there is to fill
        """
        # Around a centre of the leaf |x|^2 + |y|^2 - 2xy keeps its digits; the median, as one outlier moves a mean far.
        few = self.vectors[start : end : max(1, (end - start) // 64)]
        centre = np.median(few, axis=0)
        for a in range(start, end, self.fold_rows):
            residents = np.arange(a, min(a + self.fold_rows, end))
            right = bounding_columns(self.vectors[residents] - centre, right=True)
            for g in range(0, len(visitors), self.fold_rows):
                self._meet_some(visitors[g : g + self.fold_rows], residents, right, centre, at_home)
        return len(visitors) * (end - start)

    def _meet_some(
        self, visitors: np.ndarray, residents: np.ndarray, right: np.ndarray, centre: np.ndarray, at_home: bool
    ) -> None:
        """Find the pairs that may beat a bar, block by block, and settle them many at a time."""
        width = len(residents)
        farthest = right[:, -1].max()
        step = max(16, _TILE // width)
        bar = self.bar[residents]
        found: list[np.ndarray] = []
        waiting = 0
        for start in range(0, len(visitors), step):
            rows = visitors[start : start + step]
            left = bounding_columns(self.vectors[rows] - centre, right=False)
            block = self._lower_bounds(left, right)
            if at_home:  # nobody is their own neighbor
                itself = rows - residents[0]
                inside = np.flatnonzero((itself >= 0) & (itself < width))
                block[inside, itself[inside]] = np.inf
            own = self._own_bar(rows, block, left[:, -2] + farthest)
            beats = block <= own[:, None]
            if not at_home:
                beats |= block <= bar
            found.append(np.flatnonzero(beats) + start * width)
            waiting += len(found[-1])
            if waiting > _WAITING or start + step >= len(visitors):
                row, column = np.divmod(np.concatenate(found), width)
                self._settle(visitors, row, residents, column, at_home)
                bar, found, waiting = self.bar[residents], [], 0

    def _settle(
        self, visitors: np.ndarray, row: np.ndarray, residents: np.ndarray, column: np.ndarray, at_home: bool
    ) -> None:
        """Give the pairs of visitors[row] and residents[column] their exact distances, and keep those that count."""
        # A pair that visits each other's homes meets once; a row at home that has no bar yet may bring itself.
        one, other = visitors[row], residents[column]
        again = one == other if at_home else self._met_before(one, other)
        if again.any():
            row, column, one, other = row[~again], column[~again], one[~again], other[~again]
        squared = squared_distances(self.vectors, one, self.vectors, other)
        keep = squared <= self.bar[one]
        self._fold(visitors, row[keep], self.rank[other[keep]], squared[keep])
        if not at_home:
            keep = squared <= self.bar[other]
            self._fold(residents, column[keep], self.rank[one[keep]], squared[keep])

    def _lower_bounds(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return lower bounds of squared distances, from one product: float32 (n_visitors, n_residents)."""
        size = len(left) * len(right)
        tile = self.tile[:size] if size <= len(self.tile) else np.empty(size, np.float32)
        block = tile.reshape(len(left), len(right))
        np.matmul(left, right.T, out=block)
        return block

    def _own_bar(self, rows: np.ndarray, block: np.ndarray, norms: np.ndarray) -> np.ndarray:
        """Return the rows' bars; a row that has met too few so far gets one from the block itself."""
        own = self.bar[rows]
        fresh = np.flatnonzero(np.isinf(own))
        if len(fresh):
            bound = group_bound(block if len(fresh) == len(own) else block[fresh], self.k)
            # From a bound of lower bounds to one of distances.
            own[fresh] = np.maximum(bound, 0) + 2 * BOUND_SLACK * norms[fresh]
        return own

    def _met_before(self, visitors: np.ndarray, residents: np.ndarray) -> np.ndarray:
        """True for a pair that has met already, because the resident visits the visitor's home, a lower leaf."""
        home = self.home[visitors]
        lower = np.flatnonzero((home >= 0) & (home < self.home[residents]))
        before = np.zeros(len(visitors), bool)
        before[lower] = (self.visits[residents[lower]] == home[lower][:, None]).any(axis=1)
        return before

    def _fold(self, rows: np.ndarray, slot: np.ndarray, rank: np.ndarray, squared: np.ndarray) -> None:
        """Fold candidates into the best of their rows: for rows[slot], a neighbor's rank and exact squared distance."""
        if len(slot) == 0:
            return
        distance = to_distance(squared, self.metric)
        keys = slot.astype(np.uint64) << self.key_bits
        keys |= distance.view(np.uint32).astype(np.uint64) << self.rank_bits
        keys |= rank
        keys.sort()
        slot = (keys >> self.key_bits).astype(np.int64)
        first = np.flatnonzero(np.diff(slot, prepend=-1))
        count = np.diff(np.append(first, len(slot)))
        place = places(count)
        nearest = place < self.k
        group = np.repeat(np.arange(len(first)), count)
        changed = rows[slot[first]]
        together = np.full((len(first), 2 * self.k), EMPTY)
        together[:, : self.k] = self.best[changed]
        together[group[nearest], self.k + place[nearest]] = keys[nearest] & low_bits(self.key_bits)
        together.sort(axis=1)
        self.best[changed] = together[:, : self.k]
        worst, _ = unpack(together[:, self.k - 1], self.rank_bits)
        self.bar[changed] = squared_limit(worst, self.metric)
