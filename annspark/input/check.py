"""Check: judge every row once; good rows are returned with their vectors, bad rows with a reason."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annspark.core.metric import METRICS, prepare
from annspark.core.vectors import Vectors, narrowed, sparse_rows
from annspark.spark.arrow import numbers, to_lists

MEANING = {
    "null_id": "the id is null",
    "null_vector": "the vector is null",
    "uneven": "there are not as many indices as values",
    "bad_index": "an index is null, negative or above 2,147,483,646: pmod(xxhash64(item), 2147483647) is not",
    "repeated_index": "an index comes twice",
    "repeated_member": "a member comes twice, but a set has each once: cast vectors of 0 and 1 to array<boolean>, give "
    "counts as map<int,float> or struct<indices,values>, and make sets of lists by array_distinct",
    "nan": "the vector holds NaN or null",
    "infinite": "the vector holds infinite numbers, or such large ones that a distance may be above 3e38",
    "not_binary": "the vector holds numbers other than 0 and 1",
    "zero_vector": "the vector is all zeros, which has no direction and so no cosine",
    "wrong_length": "the vector is not as long as most are",
    "duplicate_id": "the id was met before",
}
# In the order in which a row is judged.  The place of a reason is the code of a checked row; 0 is a good row.
REASONS = ("", *MEANING)
MOST_INDEX = 2**31 - 2

# The reason of every row, int8 (n,), a place in REASONS; and by length, the rows that are good and their vectors.
Judged = tuple[np.ndarray, dict[int, tuple[np.ndarray, Vectors]]]


def check_rows(ids: pa.Array, lists: pa.Array, metric: str) -> Judged:
    """Judge a batch of dense vectors.

    ids     : any type, nulls allowed
    lists   : list<float> or list<double>, nulls allowed everywhere; binary for bits, 8 to a byte
    returns : see Judged.  Vectors are as in the input: float32 (n_rows, length) where that holds all of their numbers
              exactly, else float64; for sets they are sparse rows whose columns are the places that are not 0
    """
    facts = METRICS[metric]
    length, flat = _numbers_of(lists) if pa.types.is_nested(lists.type) else _bits_of(lists)
    start = np.cumsum(length) - length
    largest, smallest = extremes(flat, length)
    judged = {
        "null_id": _is_null(ids),
        "null_vector": _is_null(lists),
        "nan": np.isnan(largest),
        "infinite": np.maximum(largest, -smallest) > largest_allowed(length, metric),
        "not_binary": _holds_others(flat, length) if facts.binary and not facts.sets else np.zeros(len(ids), bool),
        "zero_vector": (largest == 0) & (smallest == 0) & (length > 0) & facts.unit,
    }
    reason = _reasons(judged)
    good: dict[int, tuple[np.ndarray, Vectors]] = {}
    for dim in np.unique(length[reason == 0]).tolist():
        rows = np.flatnonzero((reason == 0) & (length == dim))
        # In nearly every batch all rows are good and of one length, so that no rows have to be copied.
        whole = len(rows) == len(ids)
        vectors = flat.reshape(len(ids), dim) if whole else flat[start[rows][:, None] + np.arange(dim)]
        good[dim] = (rows, _members_of(vectors) if facts.sets else narrowed(vectors))
    return reason, good


def check_sparse_rows(
    ids: pa.Array, indices: pa.Array, values: pa.Array | None, metric: str, most: int = MOST_INDEX
) -> Judged:
    """Judge a batch of sparse vectors.

    ids     : any type, nulls allowed
    indices : list<int64>, nulls allowed everywhere
    values  : list<double>; None for sets
    most    : the largest index there may be
    returns : see Judged.  There is a single length: one above the largest index of the batch's good rows, at least 1
    """
    n = len(ids)
    is_null = _is_null(indices) if values is None else _is_null(indices) | _is_null(values)
    uneven, length, flat, weights = _even_numbers(indices, values)
    owner = np.repeat(np.arange(n), length)
    outside = ~((flat >= 0) & (flat <= most))  # null is NaN
    bad_index = _any(outside, owner, n)
    column = np.where(outside, 0, flat).astype(np.int64)
    largest, smallest = extremes(weights, length)
    order = np.lexsort((column, owner))
    owner, column, weights = owner[order], column[order], weights[order]
    repeated = np.zeros(len(column), bool)
    repeated[1:] = (owner[1:] == owner[:-1]) & (column[1:] == column[:-1])
    judged = {
        "null_id": _is_null(ids),
        "null_vector": is_null,
        "uneven": uneven,
        "bad_index": bad_index,
        "repeated_index" if values is not None else "repeated_member": _any(repeated, owner, n),
        "nan": np.isnan(largest),
        "infinite": np.maximum(largest, -smallest) > largest_allowed(length, metric),
        "zero_vector": (largest == 0) & (smallest == 0) & METRICS[metric].unit,
    }
    reason = _reasons(judged)
    rows = np.flatnonzero(reason == 0)
    kept = (reason[owner] == 0) & (weights != 0)
    counts = np.bincount(owner[kept], minlength=n)[rows]
    width = int(column[kept].max(initial=0)) + 1
    vectors = sparse_rows(counts, column[kept].astype(np.int32), weights[kept], width)
    # The members of a set have no values: prepare makes each of them 1.
    own = prepare(vectors, metric) if METRICS[metric].binary else narrowed(vectors)
    return reason, {width: (rows, own)} if len(rows) else {}


def _even_numbers(indices: pa.Array, values: pa.Array | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices and values of sparse vectors, without those of rows with not as many of one as of the other.

    values  : None for sets, whose values are 1
    returns : bool (n,), which rows are uneven; int32 (n,), the number of indices of each row, 0 for null and for uneven
              rows; all indices and all values, row after row, null as NaN
    """
    length, flat = _numbers_of(indices)
    if values is None:
        return np.zeros(len(length), bool), length, flat, np.ones(len(flat))
    n_values, weights = _numbers_of(values)
    uneven = n_values != length
    if uneven.any():
        weights, flat = _only(weights, n_values, ~uneven), _only(flat, length, ~uneven)
        length = np.where(uneven, 0, length)
    return uneven, length, flat, weights


def mllib_lists(vectors: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the indices and values of MLlib vectors: list<int64>, list<double>; a dense vector has all indices.

    vectors : struct<type, size, indices, values>; nulls allowed, and returned with null values
    """
    indices, values = (pc.struct_field(vectors, name) for name in ("indices", "values"))
    dense = _is_null(indices)
    length = pc.fill_null(pc.list_value_length(values), 0).to_numpy().astype(np.int64)
    start = np.cumsum(length) - length
    flat = np.arange(length.sum()) - np.repeat(start, length)
    flat[np.repeat(~dense, length)] = indices.flatten().to_numpy()
    return to_lists(pa.array(flat), length), values


def _reasons(judged: dict[str, np.ndarray]) -> np.ndarray:
    return np.select(list(judged.values()), [REASONS.index(name) for name in judged]).astype(np.int8)


def _is_null(column: pa.Array) -> np.ndarray:
    return column.is_null().to_numpy(zero_copy_only=False)


def _numbers_of(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the length of every list, int32 (n,), 0 for null; and all their numbers, list after list, null as NaN."""
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return length, lists.flatten().to_numpy(zero_copy_only=False)


def _bits_of(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of bits of every value, int32 (n,), 0 for null; and all bits as 0 and 1, the highest first."""
    filled = pc.fill_null(values, b"")
    length = pc.binary_length(filled).to_numpy(zero_copy_only=False).astype(np.int32)
    return 8 * length, np.unpackbits(numbers(filled, np.uint8)).astype(np.float32)


def _members_of(vectors: np.ndarray) -> Vectors:
    """Return the places of the numbers that are not 0, as sparse rows of ones.

    vectors : float (n, dim)
    """
    row, place = np.nonzero(vectors)
    counts = np.bincount(row, minlength=len(vectors))
    return sparse_rows(counts, place.astype(np.int32), np.ones(len(row), np.float32), vectors.shape[1])


def extremes(flat: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest and the smallest number of each vector: 0 for an empty one, NaN if any of its numbers is NaN.

    Two reductions take less memory than one of np.abs(flat), which copies all numbers.
    """
    largest, smallest = np.zeros(len(length), flat.dtype), np.zeros(len(length), flat.dtype)
    filled = np.flatnonzero(length)
    if len(filled):
        start = (np.cumsum(length) - length)[filled]
        largest[filled], smallest[filled] = np.maximum.reduceat(flat, start), np.minimum.reduceat(flat, start)
    return largest, smallest


def largest_allowed(length: np.ndarray, metric: str) -> np.ndarray:
    """Return the largest absolute value of each vector's numbers with which distances and products fit type float."""
    facts = METRICS[metric]
    if facts.unit or facts.sets:
        return np.full(len(length), np.finfo(np.float64).max)
    width = np.maximum(length, 1).astype(np.float64)
    if facts.largest:
        return 1e19 / np.sqrt(width)
    return 1e38 / (width if facts.norm == 1 else np.sqrt(width))


def _holds_others(flat: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Return which vectors hold numbers other than 0 and 1: bool (n,)."""
    return _any((flat != 0) & (flat != 1), np.repeat(np.arange(len(length)), length), len(length))


def _any(marked: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    """Return which of n vectors own a marked number: bool (n,)."""
    has_marked = np.zeros(n, bool)
    has_marked[owner[marked]] = True
    return has_marked


def _only(flat: np.ndarray, length: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the numbers of the vectors that are kept."""
    return flat[np.repeat(kept, length)]
