"""The search of sparse rows that only ask: as search.py does it for dense vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annspark.core.coordinates import Coordinates
from annspark.core.distance import SparseProducts
from annspark.core.metric import prepare
from annspark.core.search import FAR, UNCLEAR, TooLong, in_units
from annspark.core.vectors import Vectors, sparse_rows, squared_lengths, sums_of, take_rows

_TABLE = 1 << 24  # columns up to which a row is spread out, so that its number in a column is looked up
_ROUNDINGS, _TERMS = 3.0 * 2.0**-23, 256  # as in nearest_centres.py
_LONGEST = 1e36  # squared length above which float32 may not hold distances


@dataclass(frozen=True, slots=True)
class SparseLeaf:
    """The rows of a leaf as a search reads them.

    columns : int (n_numbers,), row after row
    values  : float32 or float64 (n_numbers,), as in the input; unit rows where lengths are far from 1
    counts  : int (n,), numbers of each row
    factor  : float32 (n,), what a product with the values is multiplied by
    squared : float64 (n,), squared lengths of the prepared rows
    """

    columns: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    factor: np.ndarray
    squared: np.ndarray


def sparse_leaf_of(rows: Vectors, coordinates: Coordinates) -> SparseLeaf:
    """Return a leaf.

    rows : n sparse rows, as in the input
    """
    counts = np.diff(rows.indptr)
    values, factor = rows.data, np.ones(len(counts))
    if coordinates.facts.unit and len(counts):
        with np.errstate(over="ignore"):
            lengths = np.sqrt(squared_lengths(rows))
        if 1 / UNCLEAR < lengths.min() <= lengths.max() < UNCLEAR:
            factor = 1 / lengths
        else:
            values = prepare(rows, coordinates.metric, kind=values.dtype.type).data
    return SparseLeaf(
        columns=rows.indices,
        values=values,
        counts=counts,
        factor=factor.astype(np.float32),
        squared=squared_lengths(coordinates.for_join(rows)),
    )


@dataclass(frozen=True, slots=True)
class SparseQuery:
    """A sparse row that asks.

    joined  : the row, prepared for the join
    routed  : the row, prepared for routing
    squared : squared length of the prepared row
    """

    joined: Vectors
    routed: Vectors
    squared: float


def sparse_query_of(row: Vectors, coordinates: Coordinates) -> SparseQuery:
    """Return a row as a query; raise TooLong where float32 does not hold its distances.

    row : one row, as in the input; under cosine not without numbers
    """
    with np.errstate(over="ignore"):
        joined = coordinates.for_join(row)
        squared = float(squared_lengths(joined)[0])
        if not squared < _LONGEST:
            raise TooLong(0)
        routed = coordinates.for_routing(row) if coordinates.double else joined
    return SparseQuery(joined=joined, routed=routed, squared=squared)


def nearest_rows(
    query: SparseQuery, leaves: Sequence[SparseLeaf], few: int, coordinates: Coordinates
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that may be among the few nearest of the rows of some leaves, and their distances.

    leaves  : not none
    returns : int (n,), ascending, counted through the leaves; float32 (n,), with the bits that the join gives them
    """
    kernel = SparseProducts(coordinates.metric)
    columns, values, counts, factor, squared = (
        np.concatenate([getattr(leaf, name) for leaf in leaves])
        for name in ("columns", "values", "counts", "factor", "squared")
    )
    width = query.joined.shape[1]
    rows = sparse_rows(counts, columns, values, width)
    near = np.arange(len(counts))
    if len(near) > few:
        products = _products(rows, query, coordinates, wide=abs(coordinates.exponent) > FAR) * factor
        raw = kernel.from_products(np.array(query.squared), squared, products)
        bound = float(np.partition(raw, few - 1)[few - 1])
        near = np.flatnonzero(raw <= bound + _slack(query, bound, float(squared.max()), kernel))
    prepared = coordinates.for_join(take_rows(rows, near))
    # Added up in float64 in the order of columns, as the join does.
    measured = kernel.from_products(
        np.array(query.squared), squared_lengths(prepared), _exact_products(prepared, query.joined)
    )
    return near, in_units(measured, coordinates)


def _products(rows: Vectors, query: SparseQuery, coordinates: Coordinates, *, wide: bool) -> np.ndarray:
    """Return the products of rows as they are in the input and the query, multiplied as the rows would be: (n,)."""
    kind = np.float64 if wide else rows.data.dtype
    numbers = np.ldexp(query.joined.data, coordinates.exponent) if coordinates.exponent else query.joined.data
    if rows.shape[1] > _TABLE:
        return sums_of(rows, _matched(rows.indices, query.joined.indices, numbers) * rows.data)
    table = np.zeros(rows.shape[1], kind)
    table[query.joined.indices] = numbers
    return rows @ table


def _exact_products(rows: Vectors, query: Vectors) -> np.ndarray:
    """Return the products of prepared rows and a query: float64 (n,)."""
    return sums_of(rows, _matched(rows.indices, query.indices, query.data.astype(np.float64)) * rows.data)


def _matched(columns: np.ndarray, own: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the number that a row has in each column, 0 where it has none: float64 (n,).

    columns : int (n,)
    own     : int (n_numbers,), ascending
    numbers : (n_numbers,)
    """
    if len(own) == 0:
        return np.zeros(len(columns))
    place = np.searchsorted(own, columns).clip(max=len(own) - 1)
    return np.where(own[place] == columns, numbers[place], 0).astype(np.float64)


def _slack(query: SparseQuery, raw: float, longest: float, kernel: SparseProducts) -> float:
    """Return by how much another score must be above the given one to be surely of a larger distance.

    longest : the largest squared length of a row compared
    """
    if kernel.jaccard:
        return 1e-6
    both = (query.squared**0.5 + longest**0.5) ** 2
    terms = min(len(query.joined.data), _TERMS) + 1
    return _ROUNDINGS * float(terms**0.5) * both + 2.0**-22 * abs(raw)
