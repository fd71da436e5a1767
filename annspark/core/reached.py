"""The leaves within reach of vectors, where the reach is known and vectors go to many leaves.

They are those that routes_in_tree finds.  With 83 probes among 1,268 leaves of 128 numbers they take 15 us a vector,
and 37 to 43 there; with 200 probes 20 and 115.

A product gives the scores of all centres.  With the distances between centres these give all margins, but for rounding.
Where rounding may matter, exact margins decide, or routes_in_tree does.
"""

import numpy as np

from annspark.core.boundaries import boundary_margins, most_leaves, routes_in_tree
from annspark.core.nearest_centres import rounding_of, scoring_rows
from annspark.core.routes import Routes, within_reach
from annspark.core.two_level import Groups

# Leaves of a tree up to which the inverse distances of all pairs of centres, 144 MB then, are kept at hand.  At 5,859
# leaves and 134 probes routing takes 74 us a vector with them, and 101 without.
_MOST_LEAVES = 6_000
_FEWEST_PROBES = 24  # with fewer, scores of all centres cost more than they save
_CENTRES = 256  # whose distances to all others are made at once
_BLOCK = 1 << 18  # scores of one product, 1 MB: they stay in the second-level cache


def saves_time(groups: Groups, probes: float) -> bool:
    """Return whether reached_in_tree takes less time than routes_in_tree."""
    return probes >= _FEWEST_PROBES and len(groups.centres) <= _MOST_LEAVES and not groups.members


def reached_in_tree(points: np.ndarray, groups: Groups, inverse: np.ndarray, probes: float, reach: float) -> Routes:
    """Return the home of each vector and the leaves within reach: what within_reach leaves of routes_in_tree.

    The leaves of a vector are in any order, and their margins are nan.

    points  : float32 (n, dim), around the forest's origin
    inverse : float32 (n_leaves, n_leaves), inverse_distances of the centres
    """
    n, n_leaves = len(points), len(groups.centres)
    scoring, m = scoring_rows(groups.centres)[:n_leaves], most_leaves(probes, n_leaves)
    longest = float(np.sqrt(np.einsum("ij,ij->i", groups.centres, groups.centres).max()))
    step = max(16, _BLOCK // n_leaves)
    found = [
        _reached_of_block(points[start : start + step], groups.centres, scoring, inverse, longest, m, np.float32(reach))
        for start in range(0, n, step)
    ]
    counts = np.concatenate([some for some, _, _ in found])
    leaf = np.concatenate([some for _, some, _ in found])
    home = np.concatenate([some for _, _, some in found])
    again = np.flatnonzero(counts < 0)
    no_hubs = np.zeros(len(again), bool)
    exact = within_reach(routes_in_tree(points[again], None, no_hubs, groups, probes), reach)
    number = np.maximum(counts, 0)
    number[again] = np.bincount(exact.row, minlength=len(again))
    row = np.repeat(np.arange(n), number)
    of_again = np.repeat(counts < 0, number)
    leaves, homes = np.empty(len(row), np.int32), np.empty(len(row), bool)
    leaves[~of_again], homes[~of_again] = leaf, home
    leaves[of_again], homes[of_again] = exact.leaf, exact.home
    return Routes(n_rows=n, row=row, leaf=leaves, margin=np.full(len(row), np.nan, np.float32), home=homes)


def inverse_distances(centres: np.ndarray) -> np.ndarray:
    """Return 1 / (2 |c - h|) for each two centres, 0 where they are nearly equal: float32 (n, n)."""
    exact = centres.astype(np.float64)
    squared = np.einsum("ij,ij->i", exact, exact)
    inverse = np.empty((len(centres), len(centres)), np.float32)
    for start in range(0, len(centres), _CENTRES):
        some = slice(start, start + _CENTRES)
        both = squared[some, None] + squared
        apart = both - 2 * (exact[some] @ exact.T)
        # A difference of nearly equal centres has no digits left.
        apart[apart <= 1e-10 * both] = np.inf
        inverse[some] = 0.5 / np.sqrt(apart)
    return inverse


def _reached_of_block(
    points: np.ndarray,
    centres: np.ndarray,
    scoring: np.ndarray,
    inverse: np.ndarray,
    longest: float,
    m: int,
    reach: np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each vector how many leaves it goes to, -1 where that is unclear; those leaves, and which are homes.

    scoring : float32 (n_leaves, dim + 1), scoring_rows of the centres
    longest : the largest length of a centre
    m       : leaves that a vector may go to at most
    """
    n, n_leaves = len(points), len(scoring)
    scores = points @ scoring[:, :-1].T
    scores += scoring[:, -1]
    everyone = np.arange(n)
    first = scores.argmin(axis=1)
    scores -= scores[everyone, first][:, None]
    length = np.sqrt(np.einsum("ij,ij->i", points, points))
    each = rounding_of(points.shape[1])
    slack = each * (length + longest) ** 2  # of the difference of two scores
    margins = (scores - slack[:, None]) * inverse[first]
    # What boundary_margins itself may round: sums of products of numbers up to these lengths.
    edge = each * (length + 2 * longest)
    margins[everyone, first] = -np.inf
    hits = np.flatnonzero(margins <= (reach + edge)[:, None])
    row, leaf = np.divmod(hits, n_leaves)
    of_first = leaf == first[row]
    above = scores.take(hits)
    bad = np.count_nonzero(scores <= slack[:, None], axis=1) > 1  # another leaf may be the home
    # Where rounding may have decided, exact margins do.
    scale = inverse.take(first[row] * n_leaves + leaf)
    upper = margins.take(hits) + 2 * slack[row] * scale
    near = np.flatnonzero(((upper > (reach - edge)[row]) | (scale == 0)) & ~of_first)
    exact = boundary_margins(points[row[near]], centres, first[row[near]], leaf[near][:, None])[:, 0]
    goes = np.ones(len(hits), bool)
    goes[near] = exact <= reach
    # A leaf that is not among the m nearest is not gone to.
    count = np.bincount(row, minlength=n)
    farthest = np.maximum.reduceat(above, np.cumsum(count) - count)
    many = np.flatnonzero(np.count_nonzero(scores <= (farthest + slack)[:, None], axis=1) > m)
    if len(many):
        last = np.partition(scores[many], (m - 1, m), axis=1)[:, m - 1 : m + 1]
        limits = np.full((n, 2), np.inf, np.float32)
        limits[many] = last
        within, beyond = above + slack[row] < limits[row, 1], above - slack[row] > limits[row, 0]
        bad[row[goes & ~(within | beyond)]] = True
        goes &= ~beyond
    goes &= ~bad[row]
    count = np.bincount(row[goes], minlength=n)
    count[bad] = -1
    return count, leaf[goes].astype(np.int32), of_first[goes]
