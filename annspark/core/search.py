"""The search of vectors that only ask, among the rows of the leaves they go to.

One product of a leaf's rows, as they are in the input, and the vector gives scores, which order rows as distances do,
but for rounding.  Distances of the join are measured of the few rows whose score may be among the least.  So the result
is exact among the rows compared, ties included.

A single vector takes some tens of calls of NumPy, and no row is copied but the few.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from annspark.core.arrays import places_in_groups, ranges
from annspark.core.coordinates import Coordinates
from annspark.core.distance import Kernel, kernel_for
from annspark.core.metric import Metric, prepare

# Scores and distances of one pair differ by less than this times the precision times sqrt(terms) times the square of
# both lengths together, see nearest_centres.py, whose scores are made in the same way.
_ROUNDINGS, _TERMS = 3.0, 256
FAR = 60  # with an exponent beyond that, float32 may not hold products of numbers that are not multiplied by it
_LONGEST, _LARGEST_SUM = 1e18, 1e37  # the length, and sum of numbers, above which float32 may not hold distances
UNCLEAR = 1e15  # lengths beyond that, or below its inverse, do not go with other factors of a product in float32
_BLOCK = 4  # vectors from which on they are multiplied together; packing a leaf for fewer costs more than it saves
# Terms of one product.  OpenBLAS divides larger ones among threads, which wait for each other where cores are busy.
# Where it has one thread only, products are larger: a thread that multiplies lets others have Python's lock.
_ALONE, _ALONE_ANYWAY = 1 << 18, 1 << 22
_GROUP = 16  # scores of which the least is taken, for a bound of the few least
_SPARE = 8  # such groups of a query for each row wanted, where many are searched together


class TooLong(ValueError):
    """A vector is so long that float32 does not hold its distances to vectors of the index."""


@dataclass(frozen=True)
class Space:
    """How dense vectors are compared.

    coordinates : how numbers of the input become vectors
    dim         : numbers of a vector
    wide        : whether scores are computed in float64
    """

    coordinates: Coordinates
    dim: int
    wide: bool

    @cached_property
    def facts(self) -> Metric:
        """The record of the metric."""
        return self.coordinates.facts

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel of the metric."""
        return kernel_for(self.coordinates.metric, self.dim)

    @property
    def kind(self) -> Any:
        """The type of scores."""
        return np.float64 if self.wide else np.float32

    @cached_property
    def by_products(self) -> bool:
        """Whether scores are products, and not sums of differences."""
        return self.facts.norm == 2

    @cached_property
    def shift(self) -> np.ndarray | None:
        """What prepared vectors were moved by, multiplied as they were: float64 (dim,)."""
        origin = self.coordinates.origin
        return None if origin is None else np.ldexp(origin, self.coordinates.exponent)

    @cached_property
    def shift_length(self) -> float:
        """The length of the shift, for manhattan the sum of its numbers without their signs."""
        if self.shift is None:
            return 0.0
        return float(np.sqrt(self.shift @ self.shift)) if self.by_products else float(np.abs(self.shift).sum())

    @cached_property
    def rounding(self) -> float:
        """The error of a score of vectors whose lengths are 1 together."""
        return float(_ROUNDINGS * np.finfo(self.kind).eps * (min(self.dim, _TERMS) + 1) ** 0.5)

    @cached_property
    def measured_rounding(self) -> float:
        """The error of a distance of the join, of vectors whose lengths are 1 together."""
        kind: Any = np.float64 if self.coordinates.double else np.float32
        return float(_ROUNDINGS * np.finfo(kind).eps * (min(self.dim, _TERMS) + 1) ** 0.5)


def space_of(coordinates: Coordinates, dim: int, numbers: str) -> Space:
    """Return how dense vectors are compared.

    numbers : "float32" or "float64", the type of stored numbers
    """
    wide = numbers == "float64" or coordinates.double or abs(coordinates.exponent) > FAR
    return Space(coordinates, dim, wide)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The rows of a leaf as a search reads them.  All but the vectors is small.

    vectors : (n, dim), as in the input
    values  : (n, dim), what the product takes: the vectors, or unit vectors where lengths are far from 1
    factor  : (n,), what a product is multiplied by; None for 1
    offset  : (n,), what is added to a product then; None for 0
    longest : the largest length of a prepared row
    """

    vectors: np.ndarray
    values: np.ndarray
    factor: np.ndarray | None
    offset: np.ndarray | None
    longest: float


def leaf_of(vectors: np.ndarray, space: Space) -> Leaf:
    """Return a leaf.

    vectors : float32 or float64 (n, dim), as in the input
    """
    if not space.by_products:
        return Leaf(vectors=vectors, values=vectors, factor=None, offset=None, longest=0.0)
    values, factor, offset = vectors, None, None
    if space.facts.unit:
        with np.errstate(over="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        if len(lengths) and not 1 / UNCLEAR < lengths.min() <= lengths.max() < UNCLEAR:
            values = prepare(vectors, space.coordinates.metric, kind=space.kind)
            lengths = np.ones(len(vectors))
        factor = (1 / lengths).astype(space.kind)
    if space.facts.unit and space.shift is None:
        return Leaf(vectors=vectors, values=values, factor=factor, offset=None, longest=1.0)
    prepared = space.coordinates.for_join(vectors)
    squared = np.einsum("ij,ij->i", prepared, prepared, dtype=np.float64)
    longest = float(np.sqrt(squared.max(initial=0)))
    if not space.facts.largest:
        offset = squared.astype(space.kind)
    return Leaf(vectors=vectors, values=values, factor=factor, offset=offset, longest=longest)


@dataclass(frozen=True, slots=True)
class Query:
    """A vector that asks.

    joined     : float32 or float64 (1, dim), prepared for the join
    routed     : float32 (dim,), prepared for routing
    multiplier : (dim,), what the rows of a leaf are multiplied by, or subtracted for manhattan
    size       : length of the prepared vector, for manhattan the sum of its numbers without their signs
    constant   : what is added to a score to make a raw distance, but for rounding
    """

    joined: np.ndarray
    routed: np.ndarray
    multiplier: np.ndarray
    size: float
    constant: float


def queries_of(vectors: np.ndarray, space: Space) -> list[Query]:
    """Return vectors as queries; raise TooLong, with the row, where float32 does not hold distances of one.

    vectors : float32 or float64 (n, dim), as in the input; finite, under cosine none is all zero
    """
    coordinates = space.coordinates
    with np.errstate(over="ignore", invalid="ignore"):
        joined = coordinates.for_join(vectors)
        routed = coordinates.for_routing(vectors) if coordinates.double else joined
        if not space.by_products:
            # Rows are subtracted as they are in the input.
            multipliers = vectors.astype(space.kind, copy=False)
            sizes, constants = np.abs(joined).sum(axis=1, dtype=np.float64).tolist(), [0.0] * len(vectors)
        elif space.facts.unit and space.shift is None:
            multipliers = (joined * joined.dtype.type(-2)).astype(space.kind, copy=False)
            sizes, constants = [1.0] * len(vectors), [2.0] * len(vectors)
        else:
            exact = joined.astype(np.float64)
            multipliers = (np.ldexp(exact, coordinates.exponent) * -2).astype(space.kind)
            squared = np.einsum("ij,ij->i", exact, exact)
            added = np.zeros(len(vectors)) if space.facts.largest else squared
            if space.shift is not None:
                added = added + 2 * (exact @ space.shift)
            sizes, constants = np.sqrt(squared).tolist(), added.tolist()
    for row, size in enumerate(sizes):
        if not size < (_LONGEST if space.by_products else _LARGEST_SUM):
            raise TooLong(row)
    return [
        Query(joined=joined[i : i + 1], routed=routed[i], multiplier=multipliers[i], size=size, constant=constant)
        for i, (size, constant) in enumerate(zip(sizes, constants, strict=True))
    ]


def score_one(query: Query, leaves: Sequence[Leaf], space: Space) -> np.ndarray:
    """Return the scores of the rows of some leaves, leaf after leaf: float32 or float64 (n_rows,)."""
    scores = np.empty(sum([len(leaf.values) for leaf in leaves]), space.kind)
    multiplier, at = query.multiplier, 0
    if space.by_products:
        for leaf in leaves:
            end = at + len(leaf.values)
            leaf.values.dot(multiplier, scores[at:end])
            at = end
        return _completed(scores, leaves)
    ones = np.ones(space.dim, space.kind)
    for leaf in leaves:
        end = at + len(leaf.values)
        apart = leaf.values - multiplier
        np.abs(apart, out=apart).dot(ones, scores[at:end])
        at = end
    return np.ldexp(scores, space.coordinates.exponent) if space.coordinates.exponent else scores


def _completed(products: np.ndarray, leaves: Sequence[Leaf]) -> np.ndarray:
    """Return scores from products, which are overwritten."""
    if leaves[0].factor is not None:
        products *= np.concatenate([leaf.factor for leaf in leaves])
    if leaves[0].offset is not None:
        products += np.concatenate([leaf.offset for leaf in leaves])
    return products


def slack_of(query: Query, score: float, longest: float, space: Space) -> float:
    """Return by how much another score of the query must be above the given one to be surely of a larger distance.

    longest : the largest length of a row compared, where scores do not tell
    """
    size, away = query.size, space.shift_length
    if not space.by_products:
        raw = max(score, 0.0)
        return space.rounding * (2 * (size + away) + raw) + space.measured_rounding * (2 * size + raw)
    raw = score + query.constant
    nearby = min(longest, size + max(raw, 0.0) ** 0.5)  # |x| <= |q| + |x - q|
    both = 4 * size * longest if space.facts.largest else (size + nearby) ** 2
    # Distances are published in float32, in which more of them may be equal.
    in_float32 = 2.0**-22 * abs(raw)
    return space.rounding * (both + 4 * size * away) + space.measured_rounding * both + in_float32


def least(scores: np.ndarray, few: int, query: Query, longest: float, space: Space) -> np.ndarray:
    """Return the rows that may be among the few of least distance: int (n,), ascending.

    scores : (n_rows,)
    few    : how many rows are wanted
    """
    n = len(scores)
    if n <= few:
        return np.arange(n)
    of_groups = n // _GROUP
    if of_groups >= 4 * few:
        # The m-th smallest of the minima of groups bounds the m-th smallest score, and costs a fraction of it.
        minima = scores[: _GROUP * of_groups].reshape(_GROUP, of_groups).min(axis=0)
        minima.partition(few - 1)
        bound = float(minima[few - 1])
        near = (scores <= bound + slack_of(query, bound, longest, space)).nonzero()[0]
        if len(near) == few:
            return near
        scores = scores.take(near)
        bound = float(np.partition(scores, few - 1)[few - 1])
        return near[scores <= bound + slack_of(query, bound, longest, space)]
    bound = float(np.partition(scores, few - 1)[few - 1])
    return np.flatnonzero(scores <= bound + slack_of(query, bound, longest, space))


def measure(joined: np.ndarray, asker: np.ndarray, rows: np.ndarray, space: Space) -> np.ndarray:
    """Return distances of queries and rows, with the bits that the join gives them: float32 (n,).

    joined : (n_queries, dim), queries prepared for the join
    asker  : int (n,), the query of each row
    rows   : float32 or float64 (n, dim), as in the input
    """
    prepared = space.coordinates.for_join(rows)
    if len(joined) == 1 and space.by_products and not space.facts.largest:
        # What the kernel computes, without its preparations for many pairs.
        apart = np.subtract(joined, prepared)
        raw = np.einsum("ij,ij->i", apart, apart)
    else:
        raw = space.kernel.exact(joined, asker, prepared, np.arange(len(rows)))
    return in_units(raw, space.coordinates)


def in_units(raw: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """Return distances in the units of the input from raw ones: float32 (n,)."""
    facts = coordinates.facts
    return coordinates.in_input_units(facts.from_raw(raw.astype(np.float32, copy=False)))


def published(distances: np.ndarray, coordinates: Coordinates) -> Any:
    """Return distances as they are published: under the inner product the product, which is 0 - distance."""
    return np.float32(0) - distances if coordinates.facts.largest else distances


def score_many(
    queries: Sequence[Query],
    asker: np.ndarray,
    leaves: Sequence[Leaf],
    cuts: np.ndarray,
    space: Space,
    *,
    one_thread: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of many queries, each with the rows of its leaves; a leaf is multiplied once.

    asker      : int (n_pairs,), a query, leaf after leaf
    cuts       : int (n_leaves + 1,), where the pairs of each leaf begin
    one_thread : whether OpenBLAS has one thread only
    returns    : (n_scores,), scores pair after pair; int (n_pairs + 1,), where those of each pair begin
    """
    sizes = np.repeat([len(leaf.values) for leaf in leaves], np.diff(cuts))
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    scores = np.empty(begins[-1], space.kind)
    multipliers = np.stack([query.multiplier for query in queries]).take(asker, axis=0)
    at, bounds = begins.tolist(), cuts.tolist()
    terms = _ALONE_ANYWAY if one_thread else _ALONE
    for leaf, start, end in zip(leaves, bounds[:-1], bounds[1:], strict=True):
        if not space.by_products:
            for pair in range(start, end):
                scores[at[pair] : at[pair + 1]] = score_one(queries[asker[pair]], [leaf], space)
            continue
        step = max(1, terms // leaf.values.size)
        for first in range(start, end, step):
            last = min(first + step, end)
            block = scores[at[first] : at[last]].reshape(last - first, -1)
            if last - first >= _BLOCK:
                np.matmul(multipliers[first:last], leaf.values.T, out=block)
            else:
                for pair, row in enumerate(block, first):
                    leaf.values.dot(multipliers[pair], row)
            if leaf.factor is not None:
                block *= leaf.factor
            if leaf.offset is not None:
                block += leaf.offset
    return scores, begins


def least_of_many(
    scores: np.ndarray,
    begins: np.ndarray,
    asker: np.ndarray,
    few: int,
    queries: Sequence[Query],
    longest: np.ndarray,
    space: Space,
) -> np.ndarray:
    """Return where the scores are of rows that may be among the few of least distance: int (n,), ascending.

    The few-th least of the minima of groups of a query's scores bounds its few-th least score, as in least.  Only
    groups whose minimum is within the bound are looked at again.

    scores, begins, asker : of score_many
    few                   : how many rows of each query are wanted
    longest               : float (n_queries,), the largest length of a row compared with each query
    """
    sizes = np.diff(begins)
    length = np.maximum(np.bincount(asker, sizes, minlength=len(queries)).astype(np.int64) // (_SPARE * few), 1)
    step = length.take(asker)
    count = -(-sizes // step)
    pair = np.repeat(np.arange(len(asker)), count)
    begin = begins.take(pair) + step.take(pair) * places_in_groups(count)
    minima = np.minimum.reduceat(scores, begin)
    bound = _nth_least(minima, asker.take(pair), few, len(queries))
    limit = bound + [slack_of(*one, space) for one in zip(queries, bound.tolist(), longest.tolist(), strict=True)]
    limit = limit.take(asker)
    hits = np.flatnonzero(minima <= limit.take(pair))
    hit = pair.take(hits)
    start = begin.take(hits)
    rows = np.minimum(start + step.take(hit), begins.take(hit + 1)) - start
    places = ranges(start, rows)
    return places[scores.take(places) <= limit.take(np.repeat(hit, rows))]


def _nth_least(values: np.ndarray, group: np.ndarray, nth: int, n_groups: int) -> np.ndarray:
    """Return the nth least value of each group, infinite where it has fewer: float64 (n_groups,).

    values : (n,)
    group  : int (n,), the group of each value
    """
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=n_groups)
    padded = np.full((n_groups, max(nth, sizes.max())), np.inf, values.dtype)
    padded[group.take(order), places_in_groups(sizes)] = values.take(order)
    padded.partition(nth - 1, axis=1)
    return padded[:, nth - 1].astype(np.float64)
