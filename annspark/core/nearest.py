"""Nearest centres, and the selection of the few smallest of many scores: what routing and joining share."""

import numpy as np

from annspark.core.topk import DISTANCE_BITS, ordered_bits

# OpenBLAS sums products of more than about 384 terms in pieces that depend on its number of threads; sums of at most
# 256 terms come out the same, bit for bit, on any number of cores and at any place in a block.
_TERMS = 256
_BLOCK = 1 << 19  # scores of one product: 2 MB; smaller ones save little of the cache misses and repeat the packing
_GROUP = 32
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
    left = scoring_rows(centres)
    size = _block_rows(len(centres))
    right = np.zeros((size, dim + 1), np.float32)
    right[:, dim] = 1
    # argmin is fast along rows, the minima of groups across them.
    scores = np.empty((size, len(left)) if m == 1 else (len(left), size), np.float32)
    found = np.empty((n, m), np.int32)
    for start in range(0, n, size):
        block = vectors[start : start + size]
        right[: len(block), :dim] = block
        if m == 1:
            multiply(right, left.T, scores)
            nearest = scores.argmin(axis=1)[:, None]
        else:
            multiply(left, right.T, scores)
            nearest = smallest_rows(scores, m)
        found[start : start + len(block)] = nearest[: len(block)]
    return found


def ranks_of(vectors: np.ndarray, centres: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how many centres are nearer to each vector than the one wanted.

    vectors : float32 (n, dim)
    wanted  : int (n,), centres
    returns : int32 (n,)
    """
    n, dim = vectors.shape
    left = scoring_rows(centres)
    size = _block_rows(len(centres))
    right = np.zeros((size, dim + 1), np.float32)
    right[:, dim] = 1
    scores = np.empty((len(left), size), np.float32)
    ranks = np.empty(n, np.int32)
    for start in range(0, n, size):
        block = vectors[start : start + size]
        right[: len(block), :dim] = block
        multiply(left, right.T, scores)
        used = scores[:, : len(block)]
        limit = used[wanted[start : start + size], np.arange(len(block))]
        ranks[start : start + size] = np.count_nonzero(used < limit, axis=0)
    return ranks


def _block_rows(n_centres: int) -> int:
    """Return how many vectors are scored at once: a power of two, and a function of the centres alone."""
    return 1 << min(max((_BLOCK // n_centres).bit_length() - 1, 8), 11)


def scoring_rows(centres: np.ndarray) -> np.ndarray:
    """Return [-2c, |c|^2], whose products with [x, 1], |c|^2 - 2 c.x, order the centres of x.

    returns : float32 (n_centres rounded up to a multiple of 32, dim + 1), those without a centre score inf
    """
    n, dim = centres.shape
    rows = np.zeros((-(-n // _GROUP) * _GROUP, dim + 1), np.float32)
    np.multiply(centres, -2, out=rows[:n, :dim])
    rows[:, dim] = np.inf
    np.einsum("ij,ij->i", centres, centres, out=rows[:n, dim])
    return rows


def multiply(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Multiply float32 matrices, each sum made of pieces that have the same bits on any number of cores."""
    terms = left.shape[1]
    np.matmul(left[:, :_TERMS], right[:_TERMS], out=out)
    for term in range(_TERMS, terms, _TERMS):
        out += left[:, term : term + _TERMS] @ right[term : term + _TERMS]


def smallest_rows(scores: np.ndarray, m: int) -> np.ndarray:
    """Return the row numbers of the m smallest entries of each column, smallest first, ties by row.

    A threshold replaces argpartition, which costs 14 to 19 ns an entry.  The m-th smallest of the minima of row groups
    bounds the m-th smallest entry from above, and only groups with a minimum within the bound, m of them but for ties,
    have entries within it.  Minima over rows, not columns, since those of adjacent columns are taken together.

    scores  : float32 (n_rows, n), n_rows a multiple of 32; none is nan
    returns : int32 (n, m)
    """
    n_rows, n = scores.shape
    # As many groups as members of the m groups looked at, or twice that, makes both passes short.
    size = min(_GROUP, 1 << int(np.log2(2 * n_rows / m) / 2))
    groups = scores.reshape(size, -1)  # group g of column j is column g * n + j: every (n_rows / size)-th row
    minima = groups.min(axis=0).reshape(-1, n)
    bound = np.sort(np.ascontiguousarray(minima.T), axis=1)[:, m - 1]
    row, column, score = _within(groups, minima, bound)
    return first_of_each(column, score, row, n, m)[0]


def few_at_most(scores: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and score of the entries that are at most their column's limit, where few are.

    The smallest of some rows is compared first: a minimum costs half of a compare and a search.

    scores  : float32 (n_rows, n), fast if n_rows is a multiple of 16
    limit   : float32 (n,)
    returns : int (n_found,), int (n_found,), float32 (n_found,)
    """
    groups = scores.reshape(16 if len(scores) % 16 == 0 else 1, -1)
    return _within(groups, groups.min(axis=0).reshape(-1, len(limit)), limit)


def _within(groups: np.ndarray, minima: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and score of the entries within the limits, looking only where a minimum is."""
    near = np.flatnonzero(minima <= limit)
    group = near // len(limit)
    column = near - group * len(limit)
    entries = groups.take(near, axis=1)
    kept = np.flatnonzero(entries <= limit[column])
    member = kept // max(1, len(near))
    pair = kept - member * len(near)
    return group[pair] + member * len(minima), column[pair], entries.ravel()[kept]


def first_of_each(
    column: np.ndarray, score: np.ndarray, row: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the m rows of smallest score of each column, smallest first, ties by row, and how many columns have.

    column, row : int64 (n_entries,), bits of n and of the largest row at most 32 together
    score       : float32 (n_entries,), not nan
    returns     : int32 (n, m), without meaning where a column has fewer than m entries; int (n,), entries a column
    """
    # Sorted as integers: column | bits of the score | row.  One plain sort of them costs a tenth of an argsort.
    row_bits = np.uint64(int(row.max(initial=0)).bit_length())
    keys = (column.view(np.uint64) << np.uint64(DISTANCE_BITS) | ordered_bits(score)) << row_bits | row.view(np.uint64)
    keys.sort()
    count = np.bincount(column, minlength=n)
    place = (np.cumsum(count) - count)[:, None] + np.arange(m)
    return (keys.take(place, mode="clip") & ((np.uint64(1) << row_bits) - np.uint64(1))).astype(np.int32), count


def places(count: np.ndarray) -> np.ndarray:
    """Number the members of consecutive groups of the given sizes: 0, 1, ... in each; int (sum of count,)."""
    return np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


def group_bound(block: np.ndarray, m: int) -> np.ndarray:
    """Return an upper bound, usually close, of the m-th smallest entry of each column.

    block   : float32 (n_rows, n)
    returns : float32 (n,); inf where there are too few rows for a bound to help
    """
    n_rows, n = block.shape
    if n_rows < 4 * m:
        return np.full(n, np.inf, np.float32)
    size = min(16, n_rows // (4 * m))
    groups = n_rows // size
    # Minima over rows, not columns: those of adjacent columns are taken together.
    minima = np.ascontiguousarray(block[: size * groups].reshape(size, groups, n).min(axis=0).T)
    minima.partition(m - 1, axis=1)
    return minima[:, m - 1]


def squared_distances(left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray, dim: int) -> np.ndarray:
    """Return the squared distances of left[i] and right[j], by differences: the same bits whichever side is left.

    left, right : float32 (n, dim or more), of which the first dim columns count
    i, j        : int (m,)
    returns     : float32 (m,)
    """
    step = max(1, _DIFFERENCE_BYTES // (4 * left.shape[1]))
    out = np.empty(len(i), np.float32)
    scratch = [np.empty((min(step, len(i)), side.shape[1]), np.float32) for side in (left, right)]
    for start in range(0, len(i), step):
        end = min(start + step, len(i))
        one, other = (part[: end - start] for part in scratch)
        # "clip" lets take write to its place directly; the indices are in range.
        np.take(left, i[start:end], axis=0, out=one, mode="clip")
        np.take(right, j[start:end], axis=0, out=other, mode="clip")
        one -= other
        np.einsum("ij,ij->i", one[:, :dim], one[:, :dim], out=out[start:end])
    return out
