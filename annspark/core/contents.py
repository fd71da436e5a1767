"""The content of a vector in one integer, by which rows that have changed since last night are found."""

import numpy as np

from annspark.core.vectors import Grouped, Vectors, in_kind, is_sparse, slice_rows

_NUMBERS = 1 << 15  # numbers mixed at once: they stay in the second-level cache
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def contents_of(vectors: Vectors) -> np.ndarray:
    """Return a hash of the numbers of each row: int64 (n,), the same for float32 and float64 of equal numbers.

    Each number is mixed and multiplied by an odd weight of its column, and the products are added up modulo 2**64.  So
    two different rows have the same hash with a probability of some 2**-64.  So have rows of different groups.

    vectors : n, dense or sparse, as in the input
    """
    if isinstance(vectors, Grouped):
        return contents_of(vectors.vectors) ^ _weights(vectors.group).view(np.int64)
    if is_sparse(vectors):
        weighted = _mixed(vectors.data) * _weights(vectors.indices)
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
        return np.diff(sums[vectors.indptr]).view(np.int64)
    weights = _weights(np.arange(vectors.shape[1]))
    step = max(1, _NUMBERS // max(1, vectors.shape[1]))
    contents = np.zeros(len(vectors), np.uint64)
    for start in range(0, len(vectors), step):
        some = _mixed(slice_rows(vectors, start, start + step))
        some *= weights
        contents[start : start + step] = some.sum(axis=1, dtype=np.uint64)
    return contents.view(np.int64)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return the bits of numbers in an order that depends on all of them: uint64, the same shape."""
    # 0 and -0 are the same number.
    bits = (in_kind(numbers, np.float64) + 0.0).view(np.uint64) * _MIX
    bits ^= bits >> _HALF
    return bits


def _weights(columns: np.ndarray) -> np.ndarray:
    """Return an odd weight for each column: uint64 (n,)."""
    mixed = (columns.astype(np.uint64) + np.uint64(1)) * _MIX
    mixed = (mixed ^ (mixed >> _HALF)) * _MIX
    return (mixed ^ (mixed >> _HALF)) | np.uint64(1)
