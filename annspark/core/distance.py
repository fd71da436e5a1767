"""Lower bounds of many raw distances at once, and exact raw distances of few pairs.

Metrics differ in a join or a search by what is here: how a tile, a matrix of bounds, is made, and how a pair is
measured.  A bound is a number of x, plus a number of y (their norms), plus one number of the pair:
    |x|^2 + |y|^2 - 2 x.y                        squared euclidean distance
    -2 x.y                                       inner product
    -sum(x) - sum(y) + 2 sum(max(x, y))          manhattan
These numbers are computed in float32.  So each norm is made smaller by what rounding can cost at most, and no bound is
above its distance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from annspark.core.vectors import Vectors, is_sparse, squared_lengths, sums_of, take_rows

BOUND_SLACK = 1e-5  # share of both sizes that is taken off a bound: some ten times what float32 can lose
FAR = 16  # vectors are far from the origin if |middle|^2 is more than this times the median of |x - middle|^2
_DIFFERENCE_BYTES = 1 << 18  # differences in flight: two such arrays stay in the second-level cache
_PAIR_NUMBERS = 1 << 16  # numbers of pairs in flight: two such arrays stay in the second-level cache
_NOTHING = 1e-200  # less than any product of two numbers of float32 that are not 0
_PIECE = 1 << 14  # pairs of manhattan's tile made at once: they stay in the first-level cache


@dataclass(frozen=True)
class Side:
    """Dense vectors as the left side of tiles.

    values : float32 (n, n_terms), what the kernel's product takes of each vector
    sizes  : float32 (n,), what the rounding error of a bound is a share of: |x|^2, or sum(|x|) for manhattan
    norms  : float32 (n,), the vector's own part of every bound
    """

    values: np.ndarray
    sizes: np.ndarray
    norms: np.ndarray

    def take(self, rows: np.ndarray) -> "Side":
        """Return some vectors as a side of their own."""
        return Side(self.values.take(rows, axis=0), self.sizes.take(rows), self.norms.take(rows))


@dataclass(frozen=True)
class Facing:
    """Vectors as the right side of tiles: as Side, but values are (n_terms, n)."""

    values: np.ndarray
    sizes: np.ndarray
    norms: np.ndarray


class Measure(Protocol):
    """Measures the distances of one metric, for one kind of vectors."""

    def exact(self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray) -> np.ndarray:
        """Return the raw distances of left[i] and right[j], with the same bits whichever side is left.

        left, right : of one precision
        i, j        : int (n_pairs,)
        returns     : (n_pairs,), float64 for sparse rows, the precision of the vectors for dense ones
        """


class Kernel(Measure, Protocol):
    """Measures and bounds the distances of one metric, for dense vectors.

    lowest : the least raw distance there can be
    """

    lowest: float

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return some vectors as a left side, after a centre is subtracted; None subtracts nothing."""

    def facing(self, side: Side) -> Facing:
        """Return a left side's vectors as a right side."""

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Return bounds[i, j] - less[i] - less_right[j]: float32 (n_left, n_right).

        left, right : parts of their values are overwritten
        less        : float32 (n_left,) or 0
        less_right  : float32 (n_right,) or 0
        scratch     : float32, at least n_left * n_right numbers, in which the tile is made
        """


def looseness(left: Side | Facing, right: Side | Facing) -> np.ndarray:
    """Return by how much the bounds of each row may be below the distances at most: float32 (n_left,)."""
    return 2 * BOUND_SLACK * (left.sizes + right.sizes.max(initial=0))


def measure_for(metric: str, vectors: Vectors) -> Measure:
    """Return the measure of a metric for dense or sparse vectors, whichever the given ones are.

    Raises ValueError where the metric has none for such vectors.
    """
    return SparseProducts(metric) if is_sparse(vectors) else kernel_for(metric, vectors.shape[1])


def kernel_for(metric: str, dim: int) -> Kernel:
    """Return the kernel of a metric for dense vectors of dim numbers; raise ValueError where it has none."""
    if metric not in _KERNELS:
        raise ValueError(f"metric {metric!r} has no kernel for dense vectors.")
    return _KERNELS[metric](dim)


def middle_of(vectors: np.ndarray) -> np.ndarray:
    """Return the median of some 256 of the vectors: float (dim,).  One outlier would move a mean far."""
    return np.median(vectors[:: max(1, len(vectors) // 256)], axis=0) if len(vectors) else vectors.sum(axis=0)


def far_middle(few: np.ndarray, origin: np.ndarray | float) -> np.ndarray | None:
    """Return the median of some vectors if it is so far from the origin that bounds would be loose; None if not.

    few    : float (n, dim), n at least 1
    origin : float (dim,) or 0
    """
    centre = np.sort(few, axis=0)[len(few) // 2]
    around, away = few - centre, centre - origin
    spread = np.sort(np.einsum("ij,ij->i", around, around))[len(few) // 2]
    return centre if away @ away > FAR * spread else None


def squared_distances(left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray, dim: int) -> np.ndarray:
    """Return the squared distances of left[i] and right[j], by differences: the same bits whichever side is left.

    left, right : float32 or float64, both the same, (n, dim or more), of which the first dim columns count
    i, j        : int (m,)
    returns     : (m,), in the precision of the vectors
    """
    step = max(1, _DIFFERENCE_BYTES // (left.itemsize * left.shape[1]))
    out = np.empty(len(i), left.dtype)
    scratch = [np.empty((min(step, len(i)), side.shape[1]), left.dtype) for side in (left, right)]
    for start in range(0, len(i), step):
        end = min(start + step, len(i))
        one, other = (part[: end - start] for part in scratch)
        # "clip" lets take write to its place directly; the indices are in range.
        np.take(left, i[start:end], axis=0, out=one, mode="clip")
        np.take(right, j[start:end], axis=0, out=other, mode="clip")
        one -= other
        np.einsum("ij,ij->i", one[:, :dim], one[:, :dim], out=out[start:end])
    return out


class Products:
    """Squared euclidean distances of dense vectors, or -2 x.y for the inner product: one matrix product.

    [x, p, 1] . [-2y, 1, q] = -2 x.y + p + q, where p and q are the norms less what is to be subtracted.
    """

    def __init__(self, dim: int, *, product: bool = False):
        self.product, self.dim = product, dim
        self.lowest = -np.inf if self.product else 0.0

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return rows [x, p, 1], p still unset; vectors may be such rows themselves."""
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
        """Return columns [-2y, 1, q], q still unset.  OpenBLAS packs a row per term faster than a row per vector."""
        right = np.empty(side.values.T.shape, np.float32)
        np.multiply(side.values[:, :-2].T, -2, out=right[:-2])
        right[-2] = 1
        return Facing(right, side.sizes, side.norms)

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Set p and q, and multiply."""
        left.values[:, -2] = left.norms - less
        right.values[-1] = right.norms - less_right
        shape = len(left.norms), len(right.norms)
        return np.matmul(left.values, right.values, out=scratch[: shape[0] * shape[1]].reshape(shape))

    def exact(self, left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return |x - y|^2, or -2 x.y; left and right may be values of a Side without a centre."""
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
    """Manhattan distances of dense vectors: |x - y| = 2 max(x, y) - x - y, a coordinate at a time."""

    lowest = 0.0

    def __init__(self, dim: int):
        """Take the number of coordinates, as every kernel does; it is not needed."""

    def side(self, vectors: np.ndarray, rows: np.ndarray, centre: np.ndarray | None) -> Side:
        """Return rows x, whose sizes are sum(|x|)."""
        x = vectors.take(rows, axis=0) - (0 if centre is None else centre)
        x = x.astype(np.float32, copy=False)
        sizes = np.abs(x).sum(axis=1)
        return Side(x, sizes, -x.sum(axis=1) - sizes * np.float32(BOUND_SLACK))

    def facing(self, side: Side) -> Facing:
        """Return columns y."""
        return Facing(np.ascontiguousarray(side.values.T), side.sizes, side.norms)

    def tile(self, left: Side, right: Facing, less: Any, less_right: Any, scratch: np.ndarray) -> np.ndarray:
        """Add up 2 max(x, y), in pieces."""
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
        """Return sum(|x - y|)."""
        step = max(1, _PAIR_NUMBERS // left.shape[1])
        out = np.empty(len(i), left.dtype)
        for start in range(0, len(i), step):
            here = slice(start, start + step)
            apart = left.take(i[here], axis=0) - right.take(j[here], axis=0)
            np.abs(apart, out=apart).sum(axis=1, out=out[here])
        return out


_KERNELS: dict[str, Callable[[int], Kernel]] = {
    "cosine": Products,
    "euclidean": Products,
    "hamming": Products,
    "inner_product": partial(Products, product=True),
    "manhattan": Cityblock,
}


# What the products of sparse rows are turned into, see SparseProducts.
_SPARSE_KERNELS = {"cosine": "unit", "euclidean": "squared", "inner_product": "product", "jaccard": "jaccard"}


class SparseProducts:
    """Distances of sparse rows: squared euclidean, -2 x.y or jaccard.  All follow from squared lengths and products.

    For two sets x and y, u = |x| + |y| - 2 x.y members are in one of them only, and the jaccard distance is
    2 u / (|x| + |y| + u).
    """

    def __init__(self, metric: str):
        if metric not in _SPARSE_KERNELS:
            raise ValueError(f"metric {metric!r} has no kernel for sparse rows.")
        self.product, self.jaccard, self.unit = (
            _SPARSE_KERNELS[metric] == formula for formula in ("product", "jaccard", "unit")
        )

    def exact(self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray) -> np.ndarray:
        """Multiply in float64, adding up in the order of columns."""
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

        For cosine all pairs that share no column get exactly the same distance, though rounding left their lengths
        not exactly 1.
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
        """Return a lower bound of the products of pairs whose raw distance is at most the given one: float64 (n,).

        length : float64 (n,), squared length of one row of a pair
        raw    : float64 (n,), raw distance
        """
        if self.product:
            return raw / -2
        if self.jaccard:
            raw = np.minimum(raw, 1)  # the distance of sets without a common member
            return length * ((1 - raw) / (2 - raw)) * (1 - BOUND_SLACK)
        return ((2 if self.unit else length * (1 - BOUND_SLACK)) - raw) / 2 - (BOUND_SLACK if self.unit else 0)
