"""The nearest centres of vectors: routing sends a vector to the leaves with the nearest centres."""

import numpy as np

from annspark.core.distance import squared_distances
from annspark.core.selection import MOST_GROUP_ROWS, entries_within, first_of_each, grouped_bounds

# The score of a centre c for a vector x is |c|^2 - 2 c.x, which orders centres as |x - c| does.  It comes out of a
# float32 product, whose last bits depend on the place in the block on some processors, and on the number of threads.
# So two scores decide nothing when they differ by no more than
#     _ROUNDINGS * sqrt(min(dim, _TERMS) + 1) * (|x| + |c|)^2.
# The rounding errors of two scores and two distances together were seen to take a quarter to two thirds of that.  A sum
# of more than _TERMS terms is made in pieces, and loses no more.
_ROUNDINGS, _TERMS = 3 * 2.0**-23, 256
_BLOCK = 1 << 19  # scores of one product: 2 MB; smaller ones save little of the cache misses and repeat the packing


def nearest_centres(vectors: np.ndarray, centres: np.ndarray, m: int) -> np.ndarray:
    """Return the m nearest centres of each vector, nearest first, ties by number.

    The boundary between two leaves is therefore the plane equidistant between their centres.  A vector's answer does
    not depend on the other vectors of the call: all blocks have one shape, and the last one is padded.

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
    # Several blocks are ordered by one call, as many as first_of_each has bits for: a call costs as much as its work.
    step = 1 << min(11, 32 - len(centres).bit_length())
    for first in range(0, n, step):
        some, entries = vectors[first : first + step], []
        for start in range(0, len(some), size):
            block = some[start : start + size]
            right[:dim, : len(block)] = block.T
            np.matmul(left, right, out=scores)
            # One centre more than asked for, to see whether rounding may have decided which is the last of m.
            groups, minima, bound = grouped_bounds(scores, min(m + 1, len(centres)))
            limit = np.full(size, -np.inf, np.float32)
            limit[: len(block)] = bound[: len(block)] + slack_of(block, bound[: len(block)])
            row, column, score = entries_within(groups, minima, limit)
            entries.append((column + start, score, row))
        column, score, row = (np.concatenate(part) for part in zip(*entries, strict=True))
        found[first : first + step] = nearest_of_entries(some, centres, (column, score, row), m)[0]
    return found


def count_nearer_centres(vectors: np.ndarray, centres: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return how many centres are nearer to each vector than the one chosen for it.

    vectors : float32 (n, dim)
    centres : float32 (n_centres, dim)
    chosen  : int (n,), a centre for each vector
    returns : int32 (n,)
    """
    n, dim = vectors.shape
    left = scoring_rows(centres)
    size = _block_rows(len(centres))
    right = np.zeros((dim + 1, size), np.float32)  # a row per term: OpenBLAS packs it faster than one per vector
    right[dim] = 1
    scores = np.empty((len(left), size), np.float32)
    counts = np.empty(n, np.int32)
    for start in range(0, n, size):
        block = vectors[start : start + size]
        right[:dim, : len(block)] = block.T
        np.matmul(left, right, out=scores)
        used, its_choice = scores[:, : len(block)], chosen[start : start + size]
        limit = used[its_choice, np.arange(len(block))]
        slack = slack_of(block, limit)
        counts[start : start + size] = np.count_nonzero(used < limit - slack, axis=0)
        # Where rounding may have decided, exact distances do.
        row, column = np.nonzero(np.abs(used - limit) <= slack)
        pairs = ((block, column, centres, centre, dim) for centre in (row, its_choice.take(column)))
        nearer = np.less(*(squared_distances(*some) for some in pairs))
        counts[start : start + size] += np.bincount(column[nearer], minlength=len(block)).astype(np.int32)
    return counts


def nearest_of_one(
    vector: np.ndarray, centres: np.ndarray, m: int, scores: np.ndarray, numbers: np.ndarray | None = None
) -> np.ndarray:
    """Return the m nearest centres of one vector: those of nearest_centres, the nearest first, others in any order.

    vector  : float32 (dim,)
    centres : float32 (n_centres, dim)
    m       : at most as many as there are scores of centres
    scores  : float32 (n,), products of some scoring_rows and [vector, 1]
    numbers : int (n,), the centre of each score; without them, score i is of centre i
    returns : int (m,)
    """
    size = float(vector @ vector)
    bound = float(np.partition(scores, m - 1)[m - 1])
    near = (scores <= bound + _slack_of_one(vector, size, bound)).nonzero()[0]
    few = scores.take(near)
    least = int(few.argmin())
    nearest = float(few[least])
    at_edge = len(near) > m
    if at_edge or np.count_nonzero(few <= nearest + _slack_of_one(vector, size, nearest)) > 1:
        # Where rounding may have decided, exact distances do.
        centre = near if numbers is None else numbers.take(near)
        distance = squared_distances(vector[None], np.zeros(len(near), np.intp), centres, centre, len(vector))
        return centre[np.lexsort((centre, distance))[:m]]
    near[0], near[least] = near[least], near[0]
    return near if numbers is None else numbers.take(near)


def _slack_of_one(vector: np.ndarray, size: float, score: float) -> float:
    """Return slack_of a single vector, whose squared length is given."""
    norm = size**0.5
    return _ROUNDINGS * (min(len(vector), _TERMS) + 1) ** 0.5 * (norm + max(score + size, 0.0) ** 0.5 + norm) ** 2


def _block_rows(n_centres: int) -> int:
    """Return how many vectors are scored at once: a power of two, which depends on the number of centres alone."""
    # Never fewer than 128: packing thousands of centres anew for so few vectors costs what the cache saves.
    return 1 << min(max((_BLOCK // n_centres).bit_length() - 1, 7), 11)


def scoring_rows(centres: np.ndarray) -> np.ndarray:
    """Return a row [-2c, |c|^2] for each centre c: its product with [x, 1] is the score |c|^2 - 2 c.x.

    centres : float32 (n_centres, dim)
    returns : float32 (n_centres rounded up to a multiple of 32, dim + 1); the score of a row without a centre is inf
    """
    n, dim = centres.shape
    rows = np.zeros((-(-n // MOST_GROUP_ROWS) * MOST_GROUP_ROWS, dim + 1), np.float32)
    np.multiply(centres, -2, out=rows[:n, :dim])
    rows[:, dim] = np.inf
    np.einsum("ij,ij->i", centres, centres, out=rows[:n, dim])
    return rows


def slack_of(vectors: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return by how much another score of the same vector must differ from the given one to be surely less or more.

    vectors : float32 (n, dim)
    scores  : float32 (n,), one of each vector
    returns : float32 (n,), the formula at the top of this file
    """
    squared = np.einsum("ij,ij->i", vectors, vectors)
    norms = np.sqrt(squared)
    # |c| <= |x| + |x - c|, where |x - c|^2 = score + |x|^2.
    longest = norms + np.sqrt(np.maximum(scores + squared, 0))
    return rounding_of(vectors.shape[1]) * (longest + norms) ** 2


def rounding_of(dim: int) -> np.float32:
    """Return the slack of vectors and centres whose lengths are 1 together."""
    return np.float32(_ROUNDINGS * (min(dim, _TERMS) + 1) ** 0.5)


def nearest_of_entries(
    vectors: np.ndarray, centres: np.ndarray, entries: tuple[np.ndarray, ...], m: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the m nearest centres of each vector among its entries, nearest first, ties by number.

    Where rounding may have decided the order of scores, distances by differences decide: their bits do not depend on
    the block.

    vectors : float32 (n, dim)
    centres : float32 (n_centres, dim)
    entries : int (n_entries,) vectors, float32 scores, int centres; of each vector the m + 1 of least score, and all
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
