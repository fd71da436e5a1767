"""The vectors that a caller asks with, in any of the forms Python has for them."""

from collections.abc import Iterable, Mapping, Set
from itertools import pairwise
from typing import Any

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.vectors import Vectors, len_of, sparse_rows
from annspark.core.weighted import most_index, weigh
from annspark.errors import InputError
from annspark.saved.manifest import Manifest

_MOST_INDEX = 2**31 - 2
_BITS = (bytes, bytearray, memoryview)


def asked_dense(given: Any, dim: int, metric: str) -> tuple[np.ndarray, bool]:
    """Return dense vectors, and whether a single one was given.

    given   : numbers (dim,) or (n, dim) of any kind; for hamming also bytes, or a list of them, 8 bits to a byte
    returns : float32 or float64 (n, dim); for a single one n is 1
    Raises InputError for vectors that an index of this metric cannot hold.
    """
    if METRICS[metric].binary and isinstance(given, _BITS):
        given = _bits_of(given)
    elif METRICS[metric].binary and isinstance(given, (list, tuple)) and given and isinstance(given[0], _BITS):
        given = [_bits_of(one) for one in given]
    try:
        vectors = np.asarray(given)
        if vectors.dtype not in (np.float32, np.float64):
            if vectors.dtype.kind not in "biuf":
                vectors = np.asarray(given, np.float64)
            vectors = vectors.astype(np.float32 if vectors.dtype.itemsize <= 2 else np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"vectors: {_named(given)} is no vector of numbers, nor several of one length. Give an array of "
            f"{dim:,} numbers, or one of {dim:,} numbers a row."
        ) from error
    single = vectors.ndim == 1
    if vectors.ndim not in (1, 2) or vectors.shape[-1] != dim:
        raise InputError(
            f"vectors: an array of shape {vectors.shape} was given, and the index holds vectors of {dim:,} numbers. "
            f"Give ({dim},) for one vector, (n, {dim}) for several."
        )
    vectors = vectors[None] if single else vectors
    _require_numbers(vectors, metric)
    return vectors, single


def _require_numbers(vectors: np.ndarray, metric: str) -> None:
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"vectors: row {row} holds NaN or infinite numbers. Give finite ones.")
    if METRICS[metric].unit and not vectors.any(axis=1).all():
        row = int(np.flatnonzero(~vectors.any(axis=1))[0])
        raise InputError(
            f"vectors: row {row} is all zeros, which has no direction and so no {metric}. Leave it out, or use an "
            "index of another metric."
        )
    if METRICS[metric].binary and not ((vectors == 0) | (vectors == 1)).all():
        row = int(np.flatnonzero(((vectors != 0) & (vectors != 1)).any(axis=1))[0])
        raise InputError(f"vectors: row {row} holds numbers other than 0 and 1, and {metric} is of bits. Give bits.")


def asked_sparse(given: Any, dim: int, metric: str, most: int = _MOST_INDEX) -> tuple[Vectors, bool]:
    """Return sparse rows, and whether a single one was given.

    most  : the largest column there may be
    given : rows of scipy.sparse; or one vector, or a list of vectors, each of them {column: number}, or an array of all
            numbers; for jaccard a set or list of members, an array of bool, or bytes, 8 bits to a byte
    Raises InputError for rows that an index of this metric cannot hold.
    """
    sets = METRICS[metric].sets
    if hasattr(given, "tocsr"):
        return _checked(_of_scipy(given), dim, metric, most), False
    single = _is_one(given, sets)
    if not single and not isinstance(given, Iterable):
        raise InputError(f"vectors: {_named(given)} is no vector. {_allowed(metric)}")
    rows = [_entries_of(one, metric) for one in ([given] if single else given)]
    return _checked(rows, dim, metric, most), single


def names_columns(given: Any, weights: Mapping[str, float]) -> bool:
    """Return whether what a caller asks with has vectors by the names of columns, for an index of several columns."""
    return bool(weights) and isinstance(given, Mapping) and any(isinstance(name, str) for name in given)


def asked_weighted(given: Mapping[str, Any], manifest: Manifest) -> tuple[Vectors, bool]:
    """Return the vectors made of those of several columns, and whether a single one was given.

    given : for each column of the index, what asked_dense or asked_sparse takes
    Raises InputError as they do, and for other columns than those of the index.
    """
    weights = manifest.weights
    if set(given) != set(weights):
        raise InputError(
            f"vectors: the columns {', '.join(map(repr, given))} were given, and the index is made of "
            f"{', '.join(map(repr, weights))}. Give a vector for each of these."
        )
    parts, singles, most = [], [], most_index(len(weights))
    for i, name in enumerate(weights):
        try:
            if manifest.sparse:
                part, single = asked_sparse(given[name], -(-manifest.dim // len(weights)), manifest.metric, most)
            else:
                part, single = asked_dense(given[name], manifest.lengths[i], manifest.metric)
        except InputError as error:
            raise InputError(f"column {name!r} of the {error}") from error
        parts.append(part)
        singles.append(single)
    counts = [len_of(part) for part in parts]
    if len(set(counts)) > 1 or len(set(singles)) > 1:
        told = ", ".join(f"{n:,} for {name!r}" for name, n in zip(weights, counts, strict=True))
        raise InputError(f"vectors: there are {told}. Give one of each column, or arrays of as many rows for each.")
    return weigh(parts, list(weights.values()), manifest.metric), singles[0]


Entries = tuple[np.ndarray, np.ndarray]  # columns int64, ascending, and numbers float, none of which is 0


def _is_one(given: Any, sets: bool) -> bool:
    """Return whether a single vector is given, and not a list of them."""
    if isinstance(given, (Mapping, Set, *_BITS)):
        return True
    if isinstance(given, np.ndarray):
        return given.ndim == 1 and given.dtype != object
    if isinstance(given, (list, tuple)):
        # A list without anything is a set without members; of other vectors it is none.
        return all(np.ndim(one) == 0 and not isinstance(one, (Mapping, Set, *_BITS)) for one in given) and (
            sets or len(given) > 0
        )
    return False


def _entries_of(given: Any, metric: str) -> Entries:
    sets = METRICS[metric].sets
    try:
        if isinstance(given, Mapping):
            columns = np.array(list(given.keys())) if given else np.zeros(0, np.int64)
            numbers = np.array(list(given.values()), np.float64)
        elif isinstance(given, _BITS) and sets:
            columns = np.flatnonzero(_bits_of(given))
            numbers = np.ones(len(columns))
        else:
            array = np.array(list(given)) if isinstance(given, Set) else np.asarray(given)
            is_set = sets and array.dtype != bool
            if array.ndim != 1 or (isinstance(given, Set) and not sets):
                raise TypeError
            columns = array if is_set and array.size else np.flatnonzero(array)
            numbers = np.ones(len(columns)) if is_set else array[columns].astype(np.float64)
        if columns.size and columns.dtype.kind not in "iu":
            raise TypeError
    except (TypeError, ValueError) as error:
        raise InputError(f"vectors: {_named(given)} is no vector of the index. {_allowed(metric)}") from error
    columns = columns.astype(np.int64)
    order = np.argsort(columns, kind="stable")
    columns, numbers = columns[order], numbers[order]
    if (columns[1:] == columns[:-1]).any():
        raise InputError("vectors: a member comes twice in a set. Give each once.")
    kept = numbers != 0
    return columns[kept], numbers[kept]


def _of_scipy(given: Any) -> list[Entries]:
    rows = given.tocsr(copy=True)
    if rows.ndim != 2:
        rows = rows.reshape(1, -1).tocsr()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    rows.sort_indices()
    cuts = rows.indptr.tolist()
    columns, numbers = rows.indices.astype(np.int64), rows.data.astype(np.float64)
    return [(columns[a:b], numbers[a:b]) for a, b in pairwise(cuts)]


def _checked(rows: list[Entries], dim: int, metric: str, most: int) -> Vectors:
    """Return rows of which each was found to be usable."""
    for number, (columns, numbers) in enumerate(rows):
        if len(columns) and not 0 <= columns[0] <= columns[-1] <= most:
            raise InputError(
                f"vectors: row {number} has a column below 0 or above {most:,}. Number columns as those of the "
                "index are."
            )
        if not np.isfinite(numbers).all():
            raise InputError(f"vectors: row {number} holds NaN or infinite numbers. Give finite ones.")
        if METRICS[metric].unit and not len(columns):
            raise InputError(
                f"vectors: row {number} is all zeros, which has no direction and so no {metric}. Leave it out, or use "
                "an index of another metric."
            )
    counts = np.array([len(columns) for columns, _ in rows], np.int64)
    columns = np.concatenate([columns for columns, _ in rows]) if rows else np.zeros(0, np.int64)
    numbers = np.concatenate([numbers for _, numbers in rows]) if rows else np.zeros(0)
    width = max(dim, int(columns.max(initial=0)) + 1)
    return sparse_rows(counts, columns.astype(np.int32), numbers, width)


def _bits_of(given: Any) -> np.ndarray:
    return np.unpackbits(np.frombuffer(given, np.uint8)).astype(np.float32)


def _allowed(metric: str) -> str:
    if METRICS[metric].sets:
        return "Give a set or list of whole numbers, its members, or a list of sets; bits as bytes or an array of bool."
    return "Give {column: number}, rows of scipy.sparse, or a list of vectors."


def _named(given: Any) -> str:
    text = repr(given)
    return f"{type(given).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
