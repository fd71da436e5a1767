"""Weighted vectors: several vectors of a row become one, whose similarity is the weighted sum of theirs.

The inner product of vectors made of sqrt(w_i) * v_i, one after the other, is the sum of w_i * <a_i, b_i>.  With each
v_i divided by its length, their cosine is the sum of w_i * cos(a_i, b_i), divided by the sum of w_i.  Both are exact.
"""

from collections.abc import Sequence

import numpy as np

from annspark.core.metric import prepare
from annspark.core.vectors import Vectors, is_sparse, owner_of, sparse_rows

WEIGHABLE = ("cosine", "inner_product")  # metrics whose similarity is a sum over the numbers of a vector


def weigh(parts: Sequence[Vectors], weights: Sequence[float], metric: str) -> Vectors:
    """Return vectors made of weighted parts, in float64, since factors and lengths are seldom floats of 32 bits.

    parts   : dense (n, dim_i), or all of them sparse rows whose columns are at most most_index(len(parts)); under
              cosine none of their rows is all zeros
    weights : of each part, positive
    returns : dense (n, sum of dim_i), part after part; or sparse rows with column c of part i at c * len(parts) + i,
              for which the parts' widths need not be known
    """
    scaled = [
        float(np.sqrt(weight)) * prepare(part, metric, kind=np.float64)
        for part, weight in zip(parts, weights, strict=True)
    ]
    return _interleaved(scaled) if is_sparse(scaled[0]) else np.concatenate(scaled, axis=1)


def most_index(n_parts: int) -> int:
    """Return the largest column that sparse rows may have of which so many parts are put together."""
    return (2**31 - 1) // n_parts - 1


def _interleaved(parts: Sequence[Vectors]) -> Vectors:
    n_parts = len(parts)
    owner = np.concatenate([owner_of(part) for part in parts])
    column = np.concatenate([part.indices.astype(np.int64) * n_parts + i for i, part in enumerate(parts)])
    values = np.concatenate([part.data for part in parts])
    order = np.lexsort((column, owner))
    counts = np.bincount(owner, minlength=parts[0].shape[0])
    width = n_parts * max(part.shape[1] for part in parts)
    return sparse_rows(counts, column[order].astype(np.int32), values[order], width)
