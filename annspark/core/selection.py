"""The few smallest entries of each column of a matrix, without sorting it.

Selection costs more than the matrix product whose entries are selected from.  A threshold replaces argpartition, which
costs 14 to 19 ns an entry.  The threshold comes from minima: rows are divided into groups, and the m-th smallest of the
groups' minima is an upper bound of the m-th smallest entry.
"""

import numpy as np

from annspark.core.packing import DISTANCE_BITS, from_ordered_bits, low_bits, ordered_bits

MOST_GROUP_ROWS = 32  # rows of a group; upper_bounds needs a number of rows that is a multiple of it
_MINIMA = 4  # times m: the number of minima that a bound of the m-th smallest entry is taken from


def upper_bounds(scores: np.ndarray, m: int) -> np.ndarray:
    """Return an upper bound, usually close, of the m-th smallest entry of each column.

    scores  : float32 (n_rows, n), n_rows a multiple of 32; none is nan
    returns : float32 (n,)
    """
    return grouped_bounds(scores, m)[2]


def grouped_bounds(scores: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return groups of rows, the minima of each group, and upper bounds of the m-th smallest entry of each column.

    Only a group whose minimum is within the bound has entries within it; but for ties, those are m groups a column.

    scores  : as for upper_bounds
    returns : groups float32 (group_rows, n_groups * n), of which group g of column j is column g * n + j and holds
              every n_groups-th row from row g on; minima float32 (n_groups, n); bounds float32 (n,)
    """
    n_rows, n = scores.shape
    # Both passes are short when there are about as many groups as rows in the m groups within the bound, or twice that.
    group_rows = min(MOST_GROUP_ROWS, 1 << int(np.log2(2 * n_rows / m) / 2))
    groups = scores.reshape(group_rows, -1)
    # Minima over rows, since NumPy takes those of adjacent columns together.
    minima = groups.min(axis=0).reshape(-1, n)
    # Minima of several groups together give a bound as well.  It is hardly looser while there are many times m of them,
    # and they sort faster.
    together = max(1, len(minima) // (_MINIMA * m))
    fewer = len(minima) // together
    least = minima[: together * fewer].reshape(together, fewer, n).min(axis=0)
    return groups, minima, np.sort(np.ascontiguousarray(least.T), axis=1)[:, m - 1]


def upper_bounds_or_inf(block: np.ndarray, m: int) -> np.ndarray:
    """Return an upper bound, usually close, of the m-th smallest entry of each column of any number of rows.

    block   : float32 (n_rows, n)
    returns : float32 (n,); inf where there are too few rows for a bound to help
    """
    n_rows, n = block.shape
    if n_rows < _MINIMA * m:
        return np.full(n, np.inf, np.float32)
    size = min(16, n_rows // (_MINIMA * m))
    groups = n_rows // size
    # Minima over rows, since NumPy takes those of adjacent columns together.
    minima = np.ascontiguousarray(block[: size * groups].reshape(size, groups, n).min(axis=0).T)
    minima.partition(m - 1, axis=1)
    return minima[:, m - 1]


def few_at_most(scores: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and score of the entries that are at most their column's limit; fast where those are few.

    Minima of groups of rows are compared first: a minimum costs half of a comparison and a search.

    scores  : float32 (n_rows, n), fast if n_rows is a multiple of 16
    limit   : float32 (n,)
    returns : int (n_found,), int (n_found,), float32 (n_found,)
    """
    groups = scores.reshape(16 if len(scores) % 16 == 0 else 1, -1)
    return entries_within(groups, groups.min(axis=0).reshape(-1, len(limit)), limit)


def entries_within(
    groups: np.ndarray, minima: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and score of the entries within the limits, read only in groups whose minimum is within.

    groups, minima : as grouped_bounds returns them
    limit          : float32 (n,)
    """
    near = np.flatnonzero(minima <= limit)
    group = near // len(limit)
    column = near - group * len(limit)
    entries = groups.take(near, axis=1)
    found = np.flatnonzero(entries <= limit[column])
    member = found // max(1, len(near))
    pair = found - member * len(near)
    return group[pair] + member * len(minima), column[pair], entries.ravel()[found]


def first_of_each(
    column: np.ndarray, score: np.ndarray, row: np.ndarray, n: int, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the m rows of smallest score of each column, smallest first, ties by row, and how many entries each has.

    column, row : int64 (n_entries,); the bits of n and of the largest row are 32 together at most
    score       : float32 (n_entries,), not nan
    returns     : int32 (n, m) and float32 (n, m), without meaning where a column has fewer than m entries; int (n,),
                  entries a column
    """
    # Entries are sorted as integers: column | bits of the score | row.  A plain sort costs a tenth of an argsort.
    row_bits = np.uint64(int(row.max(initial=0)).bit_length())
    keys = (column.view(np.uint64) << np.uint64(DISTANCE_BITS) | ordered_bits(score)) << row_bits | row.view(np.uint64)
    keys.sort()
    count = np.bincount(column, minlength=n)
    place = (np.cumsum(count) - count)[:, None] + np.arange(m)
    first = keys.take(place, mode="clip")
    return (first & low_bits(row_bits)).astype(np.int32), from_ordered_bits(first >> row_bits), count
