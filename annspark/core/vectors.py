"""Vectors of either kind: dense (n, dim) arrays, or sparse rows, scipy csr_arrays whose columns ascend in every row.

Vectors of groups, which may only be neighbors within their group, are a record of vectors and their groups.

Numbers are float32 or float64.  scipy is imported where sparse rows are made, so that dense vectors need NumPy alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from annspark.core.arrays import order_of

Vectors = Any  # np.ndarray, scipy.sparse.csr_array or Grouped
Slices = Callable[[int, int], Vectors]  # returns the vectors from a row to another


@dataclass(frozen=True)
class Grouped:
    """Vectors that may only be neighbors of vectors of their own group.

    vectors : n, dense or sparse
    group   : int64 (n,), a number that stands for the group
    """

    vectors: Vectors
    group: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and their length."""
        return (len(self.group), self.vectors.shape[1])


def plain(vectors: Vectors) -> Vectors:
    """Return vectors without their groups."""
    return vectors.vectors if isinstance(vectors, Grouped) else vectors


def groups_of(vectors: Vectors) -> np.ndarray | None:
    """Return the groups of vectors: int64 (n,); None where they have none."""
    return vectors.group if isinstance(vectors, Grouped) else None


def is_sparse(vectors: Vectors) -> bool:
    """Return whether vectors are sparse rows."""
    return not isinstance(plain(vectors), np.ndarray)


def sparse_rows(counts: np.ndarray, columns: np.ndarray, values: np.ndarray, dim: int) -> Vectors:
    """Return sparse rows.

    counts  : int (n,), how many numbers each row has
    columns : int32 (n_numbers,), row after row, ascending in each
    values  : float32 or float64 (n_numbers,), the numbers
    """
    from scipy.sparse import csr_array

    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    rows = csr_array((len(counts), dim), dtype=values.dtype)
    kind = np.int32 if len(columns) <= np.iinfo(np.int32).max else np.int64
    rows.data, rows.indices, rows.indptr = values, columns.astype(kind, copy=False), ends.astype(kind)
    rows.has_canonical_format = True
    return rows


def take_rows(vectors: Vectors, rows: np.ndarray) -> Vectors:
    """Return some rows, in the order given: int (m,)."""
    rows = rows.astype(np.intp, copy=False)  # NumPy 1 takes no unsigned numbers, which Arrow's orders are
    if isinstance(vectors, Grouped):
        return Grouped(take_rows(vectors.vectors, rows), vectors.group.take(rows))
    if not is_sparse(vectors):
        return vectors.take(rows, axis=0)
    counts = np.diff(vectors.indptr).take(rows)
    at = np.repeat(vectors.indptr.take(rows) - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return sparse_rows(counts, vectors.indices.take(at), vectors.data.take(at), vectors.shape[1])


def slice_rows(vectors: Vectors, start: int, end: int) -> Vectors:
    """Return the rows from start to end, as vectors[start:end]."""
    if isinstance(vectors, Grouped):
        return Grouped(slice_rows(vectors.vectors, start, end), vectors.group[start:end])
    if not is_sparse(vectors):
        return vectors[start:end]
    if start == 0 and end >= len_of(vectors):
        return vectors
    return take_rows(vectors, np.arange(start, min(end, len_of(vectors))))


def len_of(vectors: Vectors) -> int:
    """Return how many rows there are."""
    return int(vectors.shape[0])


def fits_float32(vectors: Vectors) -> bool:
    """Return whether float32 holds all numbers of the vectors to the last bit."""
    numbers = numbers_of(vectors)
    if numbers.dtype == np.float32:
        return True
    with np.errstate(over="ignore"):
        # The first rows are tried alone: if any number does not fit, most likely one of theirs does not.
        return all(bool((some.astype(np.float32) == some).all()) for some in (numbers[:64], numbers))


def numbers_of(vectors: Vectors) -> np.ndarray:
    """Return all numbers of vectors, of sparse rows those that are stored: any shape."""
    return plain(vectors).data if is_sparse(vectors) else plain(vectors)


def in_kind(vectors: Vectors, kind: type[np.generic]) -> Vectors:
    """Return the vectors with numbers of the given kind, float32 or float64."""
    if isinstance(vectors, Grouped):
        return Grouped(in_kind(vectors.vectors, kind), vectors.group)
    if not is_sparse(vectors):
        return vectors.astype(kind, copy=False)
    return sparse_rows(
        np.diff(vectors.indptr), vectors.indices, vectors.data.astype(kind, copy=False), vectors.shape[1]
    )


def narrowed(vectors: Vectors) -> Vectors:
    """Return vectors in float32 if that holds all of their numbers to the last bit, else as they are."""
    return in_kind(vectors, np.float32) if fits_float32(vectors) else vectors


def width_of(vectors: Vectors) -> float:
    """Return how many numbers of 4 bytes a row takes on average."""
    if isinstance(vectors, Grouped):
        return width_of(vectors.vectors) + 2
    if not is_sparse(vectors):
        return vectors.shape[1] * vectors.itemsize / 4
    return (1 + vectors.data.itemsize / 4) * len(vectors.data) / max(1, len_of(vectors)) + 1


def concatenate_rows(parts: list[Vectors]) -> Vectors:
    """Return the rows of all parts together; there is at least one part, and all are of one kind."""
    if isinstance(parts[0], Grouped):
        group = np.concatenate([part.group for part in parts])
        return Grouped(concatenate_rows([part.vectors for part in parts]), group)
    if len(parts) == 1 or not is_sparse(parts[0]):
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
    columns, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("indices", "data"))
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    return sparse_rows(counts, columns, values, parts[0].shape[1])


def merging(old: list[Vectors], row: np.ndarray, new: Vectors, order: np.ndarray) -> Slices:
    """Return the slices of some old rows and all new ones, in an order, in the wider of their types.

    Dense rows are copied when a slice is asked for.  So what is written next is in the cache.

    old   : pieces of one kind that follow each other, at least one
    row   : int (m,), of the old ones
    order : int (m + n_new,), of those and then the new ones together
    """
    if isinstance(new, Grouped):
        vectors = merging([piece.vectors for piece in old], row, new.vectors, order)
        group = np.concatenate([np.concatenate([piece.group for piece in old]).take(row), new.group]).take(order)
        return lambda start, end: Grouped(vectors(start, end), group[start:end])
    wide = np.float64 if np.float64 in (numbers_of(old[0]).dtype, numbers_of(new).dtype) else np.float32
    if is_sparse(new):
        both = [in_kind(part, wide) for part in (take_rows(concatenate_rows(old), row), new)]
        return partial(slice_rows, take_rows(concatenate_rows(both), order))
    starts = np.cumsum([0, *(len(piece) for piece in old)])

    def merge(start: int, end: int) -> np.ndarray:
        some = order[start:end]
        is_new = some >= len(row)
        rows, place = np.empty((len(some), new.shape[1]), wide), np.flatnonzero(~is_new)
        rows[is_new] = new[some[is_new] - len(row)]
        at = row[some[place]]
        number = np.searchsorted(starts, at, side="right") - 1
        by_piece = order_of(number, len(old))
        for here in np.split(by_piece, np.flatnonzero(np.diff(number[by_piece])) + 1) if len(at) else ():
            piece = number[here[0]]
            rows[place[here]] = old[piece][at[here] - starts[piece]]
        return rows

    return merge


def merged_rows(old: Iterable[Vectors], row: np.ndarray, new: Vectors, order: np.ndarray) -> Vectors:
    """Return all that merging returns, of dense pieces that are made one after the other.

    A piece is copied while it is still in the cache, which takes a quarter less time than merging.
    """
    if not isinstance(new, np.ndarray):
        return merging(list(old), row, new, order)(0, len(order))
    is_new = order >= len(row)
    place = np.full(int(row.max(initial=-1)) + 1, -1)
    place[row[order[~is_new]]] = np.flatnonzero(~is_new)
    rows, start = np.empty((len(order), new.shape[1]), new.dtype), 0
    for piece in old:
        rows = rows.astype(np.result_type(rows, piece), copy=False)
        to = place[start : start + len(piece)]
        there = np.flatnonzero(to >= 0)
        rows[to[there]] = piece[there]
        start += len(piece)
    rows[is_new] = new[order[is_new] - len(row)]
    return rows


def owner_of(rows: Vectors) -> np.ndarray:
    """Return the row that each number of sparse rows belongs to: int (n_numbers,), ascending."""
    return np.repeat(np.arange(len_of(rows)), np.diff(rows.indptr))


def sums_of(rows: Vectors, values: np.ndarray) -> np.ndarray:
    """Return the sum of some values over each sparse row: float64 (n,).

    values : (n_numbers,), a value for each number of the rows; added up in their order
    """
    return np.bincount(owner_of(rows), values, minlength=len_of(rows))


def squared_lengths(rows: Vectors) -> np.ndarray:
    """Return the squared lengths of sparse rows: float64 (n,)."""
    return sums_of(rows, rows.data.astype(np.float64) ** 2)


def lengths_of(vectors: Vectors) -> np.ndarray:
    """Return the euclidean lengths of vectors: float64 (n,)."""
    vectors = plain(vectors)
    if is_sparse(vectors):
        return np.sqrt(squared_lengths(vectors))
    wide = vectors.astype(np.float64)
    return np.sqrt(np.einsum("ij,ij->i", wide, wide))


def renumbered(rows: Vectors, columns: np.ndarray) -> Vectors:
    """Return sparse rows with some of the columns only, numbered from 0.

    columns : int, ascending, those to keep
    """
    place = np.searchsorted(columns, rows.indices).clip(max=max(0, len(columns) - 1))
    kept = columns[place] == rows.indices if len(columns) else np.zeros(len(place), bool)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    counts = np.diff(before[rows.indptr])
    return sparse_rows(counts, place[kept].astype(np.int32), rows.data[kept], len(columns))


def marks_of(vectors: Vectors) -> np.ndarray:
    """Return a number for each row, the same for equal rows and nearly always another for others: float (n,)."""
    if isinstance(vectors, Grouped):
        return marks_of(vectors.vectors) + np.float64(2**-32) * vectors.group
    if not is_sparse(vectors):
        # By einsum, since BLAS may give equal vectors different bits.
        weights = np.random.default_rng(0).standard_normal(vectors.shape[1], np.float32).astype(vectors.dtype)
        return np.einsum("ij,j->i", vectors, weights)
    hashed = (vectors.indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    owner = owner_of(vectors)
    weighted = (hashed.astype(np.float64) / 2**23 - 1) * vectors.data
    return np.bincount(owner, weighted, minlength=len_of(vectors))


def equal_rows(vectors: Vectors, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which pairs of rows are equal: int (m,), int (m,) to bool (m,)."""
    if isinstance(vectors, Grouped):
        return equal_rows(vectors.vectors, one, other) & (vectors.group[one] == vectors.group[other])
    if not is_sparse(vectors):
        return (vectors[one] == vectors[other]).all(axis=1)
    counts = np.diff(vectors.indptr)
    equal = counts[one] == counts[other]
    alike = np.flatnonzero(equal)
    a, b = take_rows(vectors, one[alike]), take_rows(vectors, other[alike])
    differs = (a.indices != b.indices) | (a.data != b.data)
    owner = np.repeat(alike, counts[one[alike]])
    equal[owner[differs]] = False
    return equal


def surplus_twins(
    vectors: Vectors, most: int, order: np.ndarray | None = None, some: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that no neighbor list needs, since enough twins, rows equal to them, are earlier.

    A list that holds such a row holds its earlier twins before it.

    most    : a row is surplus if it has more than this number of earlier twins
    order   : int (n,), which of two twins is the earlier: the one of the lower number; row numbers when not given
    some    : int (m,), ascending, the only rows that are looked at; all when not given
    returns : surplus rows, int (n_surplus,), ascending; and the model of each, int (n_surplus,), its twin that has
              exactly most earlier twins
    """
    rows = np.arange(len_of(vectors)) if some is None else some
    n, mark = len(rows), marks_of(vectors)[rows]
    by_mark = np.argsort(mark, kind="stable") if order is None else np.lexsort((order[rows], mark))
    same = np.zeros(n, bool)
    same[1:] = mark[by_mark[1:]] == mark[by_mark[:-1]]
    rows = rows[by_mark]
    # Only rows with equal marks are compared number by number: few rows have twins in most data.
    at = np.flatnonzero(same)
    if len(at) <= most:
        return at[:0], at[:0]
    same[at] = equal_rows(vectors, rows[at], rows[at - 1])
    starts = np.flatnonzero(~same)
    group = np.cumsum(~same) - 1
    far = np.flatnonzero(np.arange(n) - starts[group] > most)
    surplus, model = rows[far], rows[starts[group[far]] + most]
    by_row = np.argsort(surplus)
    return surplus[by_row], model[by_row]
