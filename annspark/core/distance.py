"""Scores: lower bounds of many raw distances at once, and exact raw distances of few pairs.

What distinguishes the metrics in a join or a search is here: how a tile of bounds is made, and how a pair is measured.
A bound is |x| + |y| + product(x, y), with a size of either side and one number for the pair: |x|^2 + |y|^2 - 2 x.y, or
-sum(x) - sum(y) + 2 sum(max(x, y)) for manhattan, which have rounded a little when they come out.  Sizes are made
smaller by what rounding can cost, so that what a bound rules out is ruled out.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.nearest import squared_distances
from annspark.core.vectors import Vectors, is_sparse, squared_lengths, sums_of, take_rows

BOUND_SLACK = 1e-5  # share of both sizes by which bounds are low: some ten times what float32 can lose
_FAR = 16  # times the spread of vectors, squared, that they may be away from the origin
_PAIR_NUMBERS = 1 << 16  # numbers of pairs in flight: two such arrays stay in the second-level cache
_NOTHING = 1e-200  # less than any product of two numbers of float32 that are not 0
_PIECE = 1 << 14  # pairs of manhattan's tile made at once: they stay in the first-level cache


@dataclass(frozen=True)
class Side:
    """Dense vectors as the left side of tiles.

    values : float32, what a kernel makes of them, a row each
    sizes  : float32 (n,), what rounding is measured by
    norms  : float32 (n,), their part of every bound
    """

    values: np.ndarray
    sizes: np.ndarray
    norms: np.ndarray

    def take(self, rows: np.ndarray) -> "Side":
        """Return some rows as a side of their own."""
        return Side(self.values.take(rows, axis=0), self.sizes.take(rows), self.norms.take(rows))


@dataclass(frozen=True)
class Facing:
    """Vectors as the right side of tiles: as Side, a column each."""

    values: np.ndarray
    sizes: np.ndarray
    norms: np.ndarray


class Measure(Protocol):
    """How the distances of a metric are measured, for one kind of vectors."""

    def exact(self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray) -> np.ndarray:
        """Return the raw distances of left[i] and right[j]: the same bits whichever side is left.

        float64 for sparse rows; for dense vectors in their own precision, the same for both sides.
        """


class Kernel(Measure, Protocol):
    """How the distances of dense vectors are bounded, too.

    moves  : distances stay when all vectors are moved alike
    lowest : no raw distance is less
    """

    moves: bool
    lowest: float

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return some vectors as a left side; around a centre where the kernel moves."""

    def facing(self, side: Side) -> Facing:
        """Return vectors as a right side."""

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Return float32 (n_left, n_right) bounds, minus a number of the row and one of the column.

        left, right : overwritten
        less        : float32 (n_left,) or 0
        less_right  : float32 (n_right,) or 0
        scratch     : float32, where the tile may be put
        """


def looseness(left: Side | Facing, right: Side | Facing) -> np.ndarray:
    """Return what a row's bounds may be below the distances at most: float32 (n_left,)."""
    return 2 * BOUND_SLACK * (left.sizes + right.sizes.max(initial=0))


def measure_for(metric: str, vectors: Vectors) -> Measure:
    """Return how a metric measures vectors of this kind."""
    return SparseProducts(metric) if is_sparse(vectors) else kernel_for(metric, vectors.shape[1])


def kernel_for(metric: str, dim: int) -> Kernel:
    """Return the kernel of a metric for dense vectors."""
    return Cityblock() if metric == "manhattan" else Products(metric, dim)


def middle_of(vectors: np.ndarray) -> np.ndarray:
    """Return the median of some of the vectors: one outlier moves a mean far."""
    return np.median(vectors[:: max(1, len(vectors) // 256)], axis=0) if len(vectors) else vectors.sum(axis=0)


def far_middle(few: np.ndarray, origin: np.ndarray | float) -> np.ndarray | None:
    """Return the median of some vectors, if it is so far from the origin that bounds around that would be loose."""
    centre = np.sort(few, axis=0)[len(few) // 2]
    around, away = few - centre, centre - origin
    spread = np.sort(np.einsum("ij,ij->i", around, around))[len(few) // 2]
    return centre if away @ away > _FAR * spread else None


class Products:
    """Dense vectors under squared euclidean distance, or -2 x.y for the inner product: one matrix product.

    [x, ?, 1] . [-2y, 1, ?] is the product and two numbers more, of either side.
    """

    def __init__(self, metric: str, dim: int):
        self.product, self.dim = METRICS[metric].largest, dim
        self.moves = not self.product
        self.lowest = -np.inf if self.product else 0.0

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return [x, ?, 1]; vectors may be such rows."""
        left = np.empty((len(rows), self.dim + 2), np.float32)
        left[:, -2:] = 0, 1
        sizes = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), 1024):
            x = left[start : start + 1024, : self.dim]
            some = vectors.take(rows[start : start + 1024], axis=0)[:, : self.dim]
            np.subtract(some, 0 if centre is None else centre, out=x)
            np.einsum("ij,ij->i", x, x, out=sizes[start : start + 1024])
        return Side(left, sizes, sizes * np.float32((0 if self.product else 1) - BOUND_SLACK))

    def facing(self, side: Side) -> Facing:
        """Return [-2y, 1, ?], a row per term: OpenBLAS packs it faster than one per vector."""
        right = np.empty(side.values.T.shape, np.float32)
        np.multiply(side.values[:, :-2].T, -2, out=right[:-2])
        right[-2] = 1
        return Facing(right, side.sizes, side.norms)

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Multiply."""
        left.values[:, -2] = left.norms - less
        right.values[-1] = right.norms - less_right
        shape = len(left.norms), len(right.norms)
        return np.matmul(left.values, right.values, out=scratch[: shape[0] * shape[1]].reshape(shape))

    def exact(self, left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Square differences, or multiply; vectors may be rows of sides, around no centre."""
        if not self.product:
            return squared_distances(left, i, right, j, self.dim)
        step = max(1, _PAIR_NUMBERS // left.shape[1])
        out = np.empty(len(i), left.dtype)
        for start in range(0, len(i), step):
            here = slice(start, start + step)
            x, y = left.take(i[here], axis=0)[:, : self.dim], right.take(j[here], axis=0)[:, : self.dim]
            np.einsum("ij,ij->i", x, y, out=out[here])
        return out * out.dtype.type(-2)


class Cityblock:
    """Dense vectors under manhattan distance: |x - y| = 2 max(x, y) - x - y, a coordinate at a time."""

    moves, lowest = True, 0.0

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return x, whose size is the sum of its numbers without their signs."""
        x = vectors.take(rows, axis=0) - (0 if centre is None else centre)
        x = x.astype(np.float32, copy=False)
        sizes = np.abs(x).sum(axis=1)
        return Side(x, sizes, -x.sum(axis=1) - sizes * np.float32(BOUND_SLACK))

    def facing(self, side: Side) -> Facing:
        """Return y, a row per coordinate."""
        return Facing(np.ascontiguousarray(side.values.T), side.sizes, side.norms)

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Add up the larger numbers, in pieces."""
        shape = len(left.norms), len(right.norms)
        scores = scratch[: shape[0] * shape[1]].reshape(shape)
        rows = max(1, _PIECE // max(1, shape[1]))
        larger = np.empty((rows, shape[1]), np.float32)
        for start in range(0, shape[0], rows):
            total = scores[start : start + rows]
            x, here = left.values[start : start + rows], larger[: len(total)]
            total[:] = 0
            for coordinate, y in enumerate(right.values):
                np.maximum(x[:, coordinate, None], y, out=here)
                total += here
            total *= 2
            total += (left.norms - less)[start : start + rows, None]
            total += right.norms - less_right
        return scores

    def exact(self, left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Add up differences."""
        step = max(1, _PAIR_NUMBERS // left.shape[1])
        out = np.empty(len(i), left.dtype)
        for start in range(0, len(i), step):
            here = slice(start, start + step)
            apart = left.take(i[here], axis=0) - right.take(j[here], axis=0)
            np.abs(apart, out=apart).sum(axis=1, out=out[here])
        return out


class SparseProducts:
    """Sparse rows under squared euclidean distance, -2 x.y, or jaccard, all of which follow from lengths and products.

    |x| + |y| - 2 x.y members are in one of two sets only, and twice that share of the sum of them, |x| and |y| is the
    jaccard distance.
    """

    def __init__(self, metric: str):
        self.product, self.jaccard, self.unit = METRICS[metric].largest, metric == "jaccard", METRICS[metric].unit

    def exact(self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray) -> np.ndarray:
        """Multiply, in float64: sums are in the order of columns."""
        numbers = np.diff(left.indptr).take(i).astype(np.int64) + np.diff(right.indptr).take(j)
        cut = np.unique(np.searchsorted(np.cumsum(numbers), np.arange(0, numbers.sum() + 1, 16 * _PAIR_NUMBERS)))
        out = np.empty(len(i))
        for start, end in zip(cut, [*cut[1:], len(i)], strict=True):
            x, y = take_rows(left, i[start:end]), take_rows(right, j[start:end])
            both = x.astype(np.float64).multiply(y.astype(np.float64)).tocsr()
            out[start:end] = self.from_products(squared_lengths(x), squared_lengths(y), sums_of(both, both.data))
        return out

    def from_products(self, left: np.ndarray, right: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Return raw distances from squared lengths and products: all float64 (n_pairs,).

        What shares nothing is exactly as far as all else that shares nothing, whatever rounding made of unit lengths.
        """
        if self.product:
            return -2 * products
        total = left + right
        if self.unit:
            total = np.where(np.abs(products) < _NOTHING, 2, total)
        squared = np.maximum(total - 2 * products, 0)
        if self.jaccard:
            return 2 * squared / np.maximum(total + squared, 1)
        return squared

    def least_product(self, length: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Return what products are not below where raw distances are at most these: float64 (n,), a bound.

        length : float64 (n,), squared lengths of the one side
        """
        if self.product:
            return raw / -2
        if self.jaccard:
            raw = np.minimum(raw, 1)  # that of sets that share nothing
            return length * ((1 - raw) / (2 - raw)) * (1 - BOUND_SLACK)
        return ((2 if self.unit else length * (1 - BOUND_SLACK)) - raw) / 2 - (BOUND_SLACK if self.unit else 0)
