"""Check: every row is judged once, and the good ones become prepared vectors."""

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
# In the order in which a row is judged; its place is the code a checked row carries, 0 is a good row.
REASONS = ("", *MEANING)
MOST_INDEX = 2**31 - 2

Judged = tuple[np.ndarray, dict[int, tuple[np.ndarray, Vectors]]]


def check_rows(ids: pa.Array, lists: pa.Array, metric: str) -> Judged:
    """Judge a batch of dense vectors.

    ids     : any type, nulls allowed
    lists   : list<float> or list<double>, nulls allowed everywhere; binary for bits, 8 to a byte
    returns : reason int8 (n,), place in REASONS; by length, the good rows of that length and their vectors as they
              came, float32 (n_rows, length) where that holds all of their numbers, else float64; for jaccard sparse
              rows of the places of what is not 0
    """
    length, flat = _numbers_of(lists) if pa.types.is_nested(lists.type) else _bits_of(lists)
    start = np.cumsum(length) - length
    largest, smallest = _extremes(flat, length)
    judged = {
        "null_id": _is_null(ids),
        "null_vector": _is_null(lists),
        "nan": np.isnan(largest),
        "infinite": np.maximum(largest, -smallest) > _limit(length, metric),
        "not_binary": _holds_others(flat, length) if metric == "hamming" else np.zeros(len(ids), bool),
        "zero_vector": (largest == 0) & (smallest == 0) & (length > 0) & METRICS[metric].unit,
    }
    reason = _reasons(judged)
    good: dict[int, tuple[np.ndarray, Vectors]] = {}
    for dim in np.unique(length[reason == 0]).tolist():
        rows = np.flatnonzero((reason == 0) & (length == dim))
        # In nearly every batch there is nothing to pick out.
        whole = len(rows) == len(ids)
        vectors = flat.reshape(len(ids), dim) if whole else flat[start[rows][:, None] + np.arange(dim)]
        good[dim] = (rows, _members_of(vectors) if metric == "jaccard" else narrowed(vectors))
    return reason, good


def check_sparse_rows(ids: pa.Array, indices: pa.Array, values: pa.Array | None, metric: str) -> Judged:
    """Judge a batch of sparse vectors.

    ids     : any type, nulls allowed
    indices : list<int64>, nulls allowed everywhere
    values  : list<double>; None for sets
    returns : as check_rows does, the length being one above the largest index of the batch's good rows, at least 1
    """
    n = len(ids)
    length, flat = _numbers_of(indices)
    odd = _is_null(indices)
    weights = np.ones(len(flat))
    uneven = np.zeros(n, bool)
    if values is not None:
        many, weights = _numbers_of(values)
        odd |= _is_null(values)
        uneven = many != length
        if uneven.any():
            weights, flat = _only(weights, many, ~uneven), _only(flat, length, ~uneven)
            length = np.where(uneven, 0, length)
    owner = np.repeat(np.arange(n), length)
    outside = ~((flat >= 0) & (flat <= MOST_INDEX))  # null is NaN
    column = np.where(outside, 0, flat).astype(np.int64)
    largest, smallest = _extremes(weights, length)
    order = np.lexsort((column, owner))
    owner, column, weights = owner[order], column[order], weights[order]
    again = np.zeros(len(column), bool)
    again[1:] = (owner[1:] == owner[:-1]) & (column[1:] == column[:-1])
    judged = {
        "null_id": _is_null(ids),
        "null_vector": odd,
        "uneven": uneven,
        "bad_index": _any(outside, np.repeat(np.arange(n), length), n),
        "repeated_index" if values is not None else "repeated_member": _any(again, owner, n),
        "nan": np.isnan(largest),
        "infinite": np.maximum(largest, -smallest) > _limit(length, metric),
        "zero_vector": (largest == 0) & (smallest == 0) & METRICS[metric].unit,
    }
    reason = _reasons(judged)
    rows = np.flatnonzero(reason == 0)
    kept = (reason[owner] == 0) & (weights != 0)
    counts = np.bincount(owner[kept], minlength=n)[rows]
    width = int(column[kept].max(initial=0)) + 1
    found = sparse_rows(counts, column[kept].astype(np.int32), weights[kept], width)
    # Of sets the numbers tell no more than that they are there.
    own = prepare(found, metric) if METRICS[metric].binary else narrowed(found)
    return reason, {width: (rows, own)} if len(rows) else {}


def mllib_lists(vectors: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the indices and values of MLlib vectors: list<int64>, list<double>; of a dense one all indices.

    vectors : struct<type, size, indices, values>, nulls allowed, whose values come out null
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
    """Return the length of every list, int32 (n,), 0 for null, and their numbers one after the other, null as NaN."""
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    return length, lists.flatten().to_numpy(zero_copy_only=False)


def _bits_of(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return how many bits every value has, int32 (n,), 0 for null, and all bits as 0 and 1, the highest first."""
    filled = pc.fill_null(values, b"")
    length = pc.binary_length(filled).to_numpy(zero_copy_only=False).astype(np.int32)
    return 8 * length, np.unpackbits(numbers(filled, np.uint8)).astype(np.float32)


def _members_of(vectors: np.ndarray) -> Vectors:
    """Return the sets of the places of all numbers that are not 0: float (n, dim) to sparse rows."""
    row, place = np.nonzero(vectors)
    counts = np.bincount(row, minlength=len(vectors))
    return sparse_rows(counts, place.astype(np.int32), np.ones(len(row), np.float32), vectors.shape[1])


def _extremes(flat: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest and the smallest number of each vector, 0 for an empty one, NaN if any is.

    Two reductions instead of one of np.abs(flat): no copy of everything.
    """
    largest, smallest = np.zeros(len(length), flat.dtype), np.zeros(len(length), flat.dtype)
    filled = np.flatnonzero(length)
    if len(filled):
        start = (np.cumsum(length) - length)[filled]
        largest[filled], smallest[filled] = np.maximum.reduceat(flat, start), np.minimum.reduceat(flat, start)
    return largest, smallest


def _limit(length: np.ndarray, metric: str) -> np.ndarray:
    """Return beyond what number a distance, or product, may be too much for a column of type float."""
    if METRICS[metric].unit or metric == "jaccard":
        return np.full(len(length), np.finfo(np.float64).max)
    width = np.maximum(length, 1).astype(np.float64)
    if METRICS[metric].largest:
        return 1e19 / np.sqrt(width)
    return 1e38 / (width if metric == "manhattan" else np.sqrt(width))


def _holds_others(flat: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Say which vectors hold numbers other than 0 and 1."""
    return _any((flat != 0) & (flat != 1), np.repeat(np.arange(len(length)), length), len(length))


def _any(marked: np.ndarray, owner: np.ndarray, n: int) -> np.ndarray:
    found = np.zeros(n, bool)
    found[owner[marked]] = True
    return found


def _only(flat: np.ndarray, length: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return flat[np.repeat(kept, length)]
