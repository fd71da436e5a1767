"""Nearest centres, and the selection of the few smallest entries of wide rows: what routing and joining share."""

import numpy as np

BLOCK_ROWS = 2048
# OpenBLAS sums products of more than about 384 terms in pieces that depend on its number of threads; sums of at most
# 256 terms come out the same, bit for bit, on any number of cores and at any place in a block of this size.
_TERMS = 256
BOUND_SLACK = 1e-5
_DIFFERENCE_BYTES = 1 << 18  # differences in flight: two such arrays stay in the second-level cache


def nearest_centres(vectors: np.ndarray, centres: np.ndarray, m: int) -> np.ndarray:
    """Return the m nearest centres of each vector, nearest first.

    Every boundary between two leaves is thus the plane equidistant between their centres.  A vector's answer does not
    depend on the other vectors of the call: blocks have one shape, the last is padded.

    vectors : float32 (n, dim)
    centres : float32 (n_centres, dim)
    returns : int32 (n, m), m <= n_centres
    """
    n, dim = vectors.shape
    right = np.ascontiguousarray((-2 * centres).T)
    norms = np.einsum("ij,ij->i", centres, centres)
    found = np.empty((n, m), np.int32)
    scores = np.empty((BLOCK_ROWS, len(centres)), np.float32)
    more = np.empty_like(scores) if dim > _TERMS else scores
    for start in range(0, n, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        rows = len(block)
        if rows < BLOCK_ROWS:
            block = np.concatenate([block, np.zeros((BLOCK_ROWS - rows, dim), np.float32)])
        np.matmul(block[:, :_TERMS], right[:_TERMS], out=scores)
        for term in range(_TERMS, dim, _TERMS):
            np.matmul(block[:, term : term + _TERMS], right[term : term + _TERMS], out=more)
            scores += more
        scores += norms
        found[start : start + rows] = smallest_columns(scores[:rows], m)
    return found


def smallest_columns(scores: np.ndarray, m: int) -> np.ndarray:
    """Return the column numbers of the m smallest entries of each row, smallest first, ties by column.

    A threshold replaces argpartition, which costs 14 to 19 ns an entry: the m-th smallest of the minima of column
    groups bounds the m-th smallest entry from above, so one compare leaves few entries to sort.

    scores  : float32 (n, n_columns), finite
    returns : int32 (n, m)
    """
    n, n_columns = scores.shape
    if m == 1:
        return scores.argmin(axis=1)[:, None].astype(np.int32)
    bound = group_bound(scores, m)
    flat = np.flatnonzero(scores <= bound[:, None])
    row = flat // n_columns
    count = np.bincount(row, minlength=n)
    slot = places(count)
    value = np.full((n, count.max()), np.inf, np.float32)
    column = np.full(value.shape, n_columns, np.int32)
    value[row, slot] = scores.ravel()[flat]
    column[row, slot] = flat - row * n_columns
    order = np.argsort(value, axis=1, kind="stable")[:, :m]
    return np.take_along_axis(column, order, axis=1)


def places(count: np.ndarray) -> np.ndarray:
    """Number the members of consecutive groups of the given sizes: 0, 1, ... in each; int (sum of count,)."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


def group_bound(block: np.ndarray, m: int) -> np.ndarray:
    """Return an upper bound, usually close, of the m-th smallest entry of each row.

    block   : float32 (n, n_columns)
    returns : float32 (n,); inf where there are too few columns for a bound to help
    """
    n, n_columns = block.shape
    if n_columns < 4 * m:
        return np.full(n, np.inf, np.float32)
    # Column j and column j + half, and so on: long rows at each step, where minima of adjacent columns are slow.
    minima = block
    while minima.shape[1] >= 4 * m and minima.shape[1] > n_columns // 16:
        half = minima.shape[1] // 2
        minima = np.minimum(minima[:, :half], minima[:, half : 2 * half])
    minima.partition(m - 1, axis=1)
    return minima[:, m - 1]


def bounding_columns(vectors: np.ndarray, *, right: bool) -> np.ndarray:
    """Append two columns so that one product of left and right rows gives lower bounds of squared distances.

    [x, |x|^2, 1] . [-2y, 1, |y|^2] = |x|^2 + |y|^2 - 2 x.y, with both norms made smaller by BOUND_SLACK, some ten times
    what float32 can lose: the bound is at most 2 * BOUND_SLACK * (|x|^2 + |y|^2) below the distance, never above it.

    returns : float32 (n, dim + 2)
    """
    n, dim = vectors.shape
    out = np.empty((n, dim + 2), np.float32)
    norms = np.einsum("ij,ij->i", vectors, vectors) * (1 - BOUND_SLACK)
    if right:
        np.multiply(vectors, -2, out=out[:, :dim])
        out[:, dim], out[:, dim + 1] = 1, norms
    else:
        out[:, :dim] = vectors
        out[:, dim], out[:, dim + 1] = norms, 1
    return out


def squared_distances(left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return the squared distances of left[i] and right[j], by differences: the same bits whichever side is left.

    left, right : float32 (n, dim)
    i, j        : int (m,)
    returns     : float32 (m,)
    """
    step = max(1, _DIFFERENCE_BYTES // (4 * left.shape[1]))
    out = np.empty(len(i), np.float32)
    scratch = np.empty((2, min(step, len(i)), left.shape[1]), np.float32)
    for start in range(0, len(i), step):
        end = min(start + step, len(i))
        one, other = scratch[:, : end - start]
        # "clip" lets take write to its place directly; the indices are in range.
        np.take(left, i[start:end], axis=0, out=one, mode="clip")
        np.take(right, j[start:end], axis=0, out=other, mode="clip")
        one -= other
        np.einsum("ij,ij->i", one, one, out=out[start:end])
    return out
