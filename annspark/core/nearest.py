"""Nearest centres, and the selection of the few smallest of many scores: what routing and joining share."""

import numpy as np

from annspark.core.topk import DISTANCE_BITS, from_ordered_bits, low_bits, ordered_bits

# The last bits of a product depend on the place in the block on some processors, and on the number of threads.
# Scores closer than so many roundings, times the root of the terms, are no order.  Seen: a quarter to two thirds of it
# for both scores and both distances together; sums of more terms are made in pieces, and lose no more.
_ROUNDINGS, _TERMS = 3 * 2.0**-23, 256
_BLOCK = 1 << 19  # scores of one product: 2 MB; smaller ones save little of the cache misses and repeat the packing
_GROUP = 32
_MINIMA = 4  # times m, the minima that a bound of the m-th smallest is taken from
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
    right = np.zeros((dim + 1, size), np.float32)  # a row per term: OpenBLAS packs it faster than one per vector
    right[dim] = 1
    scores = np.empty((len(left), size), np.float32)
    found = np.empty((n, m), np.int32)
    # Several blocks are ordered at once, as many as first_of_each has bits for: calls cost as much as what they do.
    step = 1 << min(11, 32 - len(centres).bit_length())
    for first in range(0, n, step):
        some, entries = vectors[first : first + step], []
        for start in range(0, len(some), size):
            block = some[start : start + size]
            right[:dim, : len(block)] = block.T
            np.matmul(left, right, out=scores)
            # One more than asked for, to see that it comes after the last.
            groups, minima, bound = _bounds(scores, min(m + 1, len(centres)))
            limit = np.full(size, -np.inf, np.float32)
            limit[: len(block)] = bound[: len(block)] + slack_of(block, bound[: len(block)])
            row, column, score = _within(groups, minima, limit)
            entries.append((column + start, score, row))
        column, score, row = (np.concatenate(part) for part in zip(*entries, strict=True))
        found[first : first + step] = in_order(some, centres, (column, score, row), m)[0]
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
    right = np.zeros((dim + 1, size), np.float32)  # a row per term: OpenBLAS packs it faster than one per vector
    right[dim] = 1
    scores = np.empty((len(left), size), np.float32)
    ranks = np.empty(n, np.int32)
    for start in range(0, n, size):
        block = vectors[start : start + size]
        right[:dim, : len(block)] = block.T
        np.matmul(left, right, out=scores)
        used, goal = scores[:, : len(block)], wanted[start : start + size]
        limit = used[goal, np.arange(len(block))]
        slack = slack_of(block, limit)
        ranks[start : start + size] = np.count_nonzero(used < limit - slack, axis=0)
        row, column = np.nonzero(np.abs(used - limit) <= slack)
        pairs = ((block, column, centres, centre, dim) for centre in (row, goal.take(column)))
        nearer = np.less(*(squared_distances(*some) for some in pairs))
        ranks[start : start + size] += np.bincount(column[nearer], minlength=len(block)).astype(np.int32)
    return ranks


def _block_rows(n_centres: int) -> int:
    """Return how many vectors are scored at once: a power of two, and a function of the centres alone."""
    # Never fewer than 128: packing thousands of centres anew for so few vectors costs what the cache saves.
    return 1 << min(max((_BLOCK // n_centres).bit_length() - 1, 7), 11)


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


def bounds_of(scores: np.ndarray, m: int) -> np.ndarray:
    """Return an upper bound, usually close, of the m-th smallest entry of each column.

    scores  : float32 (n_rows, n), n_rows a multiple of 32; none is nan
    returns : float32 (n,)
    """
    return _bounds(scores, m)[2]


def _bounds(scores: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return groups of rows, their minima and the bounds.

    A threshold replaces argpartition, which costs 14 to 19 ns an entry.  The m-th smallest of the minima of row groups
    bounds the m-th smallest entry from above, and only groups with a minimum within the bound, m of them but for ties,
    have entries within it.  Minima over rows, not columns, since those of adjacent columns are taken together.
    """
    n_rows, n = scores.shape
    # As many groups as members of the m groups looked at, or twice that, makes both passes short.
    size = min(_GROUP, 1 << int(np.log2(2 * n_rows / m) / 2))
    groups = scores.reshape(size, -1)  # group g of column j is column g * n + j: every (n_rows / size)-th row
    minima = groups.min(axis=0).reshape(-1, n)
    # Minima of several groups bound it as well, hardly less closely while they are many times m, and sort faster.
    together = max(1, len(minima) // (_MINIMA * m))
    fewer = len(minima) // together
    least = minima[: together * fewer].reshape(together, fewer, n).min(axis=0)
    return groups, minima, np.sort(np.ascontiguousarray(least.T), axis=1)[:, m - 1]


def slack_of(vectors: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return how close to these scores another one of the vector has to be for rounding to decide which is less.

    vectors, scores : float32 (n, dim), float32 (n,)
    returns         : float32 (n,)
    """
    squared = np.einsum("ij,ij->i", vectors, vectors)
    norms = np.sqrt(squared)
    # No centre of a score like that, |c|^2 - 2 c.x, is longer.
    longest = norms + np.sqrt(np.maximum(scores + squared, 0))
    return np.float32(_ROUNDINGS * (min(vectors.shape[1], _TERMS) + 1) ** 0.5) * (longest + norms) ** 2


def in_order(
    vectors: np.ndarray, centres: np.ndarray, entries: tuple[np.ndarray, ...], m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the m nearest centres of each vector among its entries, nearest first, ties by number.

    Where rounding may have decided the order, distances by differences do: they have the same bits in any block.

    entries : int (n_entries,) vectors, float32 scores, int centres; the m + 1 of least score of each vector, and all
              others within the slack of the m-th, see slack_of
    returns : int32 (n, m), without meaning where a vector has fewer than m entries; int (n,), entries a vector
    """
    vector, score, centre = entries
    n = len(vectors)
    found, scores, count = first_of_each(vector, score, centre, n, m + 1)
    slack = slack_of(vectors, scores[:, m - 1])
    unclear = (scores[:, 1:] - scores[:, :-1] <= slack[:, None]) & (np.arange(1, m + 1) < count[:, None])
    again = np.flatnonzero(unclear.any(axis=1))
    found = found[:, :m]
    if len(again):
        limit = np.full(n, -np.inf, np.float32)
        limit[again] = scores[again, np.minimum(m, count[again]) - 1] + slack[again]
        some = np.flatnonzero(score <= limit.take(vector))
        place = np.searchsorted(again, vector.take(some))
        distance = squared_distances(vectors, vector.take(some), centres, centre.take(some), vectors.shape[1])
        found[again] = first_of_each(place, distance, centre.take(some), len(again), m)[0]
    return found, count


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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the m rows of smallest score of each column, smallest first, ties by row, and how many each has.

    column, row : int64 (n_entries,), bits of n and of the largest row at most 32 together
    score       : float32 (n_entries,), not nan
    returns     : int32 (n, m) and float32 (n, m), without meaning where a column has fewer than m entries; int (n,),
                  entries a column
    """
    # Sorted as integers: column | bits of the score | row.  One plain sort of them costs a tenth of an argsort.
    row_bits = np.uint64(int(row.max(initial=0)).bit_length())
    keys = (column.view(np.uint64) << np.uint64(DISTANCE_BITS) | ordered_bits(score)) << row_bits | row.view(np.uint64)
    keys.sort()
    count = np.bincount(column, minlength=n)
    place = (np.cumsum(count) - count)[:, None] + np.arange(m)
    first = keys.take(place, mode="clip")
    return (first & low_bits(row_bits)).astype(np.int32), from_ordered_bits(first >> row_bits), count


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

    left, right : float32 or float64, both the same, (n, dim or more), of which the first dim columns count
    i, j        : int (m,)
    returns     : (m,), in the precision of the vectors
    """
    step = max(1, _DIFFERENCE_BYTES // (left.itemsize * left.shape[1]))
    out = np.empty(len(i), left.dtype)
    scratch = [np.empty((min(step, len(i)), side.shape[1]), left.dtype) for side in (left, right)]
    for start in range(0, len(i), step):
        end = min(start + step, len(i))
        one, other = (part[: end - start] for part in scratch)
        # "clip" lets take write to its place directly; the indices are in range.
        np.take(left, i[start:end], axis=0, out=one, mode="clip")
        np.take(right, j[start:end], axis=0, out=other, mode="clip")
        one -= other
        np.einsum("ij,ij->i", one[:, :dim], one[:, :dim], out=out[start:end])
    return out
