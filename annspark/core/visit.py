"""Which leaves a vector visits besides its home: those whose boundary with its home is near.

Between a vector's home and another leaf lies the plane equidistant between their centres.  A neighbor across it is the
likelier the nearer the plane, so visits are given by that distance, the margin, and not by rank: a vector in the middle
of its leaf visits few, one at a corner many.  At the same number of visits this finds a quarter to three quarters of
the neighbors that equal numbers of visits miss.
Source: multi-probe search by the distance to a boundary (Lv et al. 2007, VLDB), here for Voronoi cells.
"""

from math import ceil

import numpy as np

from annspark.core.nearest import ranks_of
from annspark.core.routes import Routes, routes_of
from annspark.core.two_level import Groups, nearest_grouped

# Of the leaves nearest to a vector, how many times the mean number of visits it may visit.  Three or four times find
# less: crowded vectors then use up the visits of all others.
_MOST = 2
EVERY_LEAF = -2  # a visit that stands for all leaves of a partition
TOGETHER = -2.0  # margin of two who live in one leaf: within the reach, -1, even of those who visit nobody
_DIFFERENCES = 1 << 16  # differences of centres in flight, 256 KB: they stay in the second-level cache


def find_routes(
    residents: np.ndarray, visitors: np.ndarray | None, hubs: np.ndarray, groups: Groups, probes: float
) -> Routes:
    """Return where vectors live and may visit.

    residents : float32 (n, dim), the points where they live, around the forest's origin
    visitors  : the points from where they look around, None where it is the same; the leaf nearest to it is the first
                to visit, with a margin of 0, and the margins of others are the distances to the boundary with that one
    hubs      : bool (n,), those that visit nothing in particular
    """
    near, margin = near_leaves(residents if visitors is None else visitors, groups, probes)
    if visitors is not None:
        home = nearest_grouped(residents, groups, 1)
        margin[near == home] = np.nan
        near = np.concatenate([home, near], axis=1)
        margin = np.concatenate([np.zeros((len(home), 1), np.float32), margin], axis=1)
    margin[hubs, 1:] = np.nan
    return routes_of(near, margin)


def find_ways(ends: list[tuple[np.ndarray, np.ndarray | None]], groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the one end of pairs of vectors is from the home of the other, in one tree.

    ends    : points of the ones and of the others, residents and visitors as find_routes takes them
    returns : int32 (n_pairs, 2), leaves nearer to where the one looks than the home of the other, and the other way
              round; float32 (n_pairs, 2), margins, TOGETHER where both live in one leaf
    """
    ranks, margins = [], []
    homes = [nearest_grouped(residents, groups, 1)[:, 0] for residents, _ in ends]
    for (residents, visitors), home, goal in zip(ends, homes, homes[::-1], strict=True):
        points, start = residents, home
        if visitors is not None:
            points, start = visitors, nearest_grouped(visitors, groups, 1)[:, 0]
        margin = boundary_margins(points, groups.centres, start, goal[:, None])[:, 0]
        margins.append(np.where(home == goal, np.float32(TOGETHER), margin))
        ranks.append(np.where(home == goal, np.int32(0), ranks_of(points, groups.centres, goal)))
    return np.stack(ranks, axis=1), np.stack(margins, axis=1)


def near_leaves(vectors: np.ndarray, groups: Groups, probes: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the leaves that a vector may visit, and its distance to the boundary with each.

    vectors : float32 (n, dim), around the forest's origin
    probes  : mean number of leaves a vector goes to, its home included
    returns : int32 (n, m) leaves, home first; float32 (n, m), 0 for home
    """
    near = nearest_grouped(vectors, groups, count_candidates(probes, len(groups.centres)))
    margin = np.zeros(near.shape, np.float32)
    margin[:, 1:] = boundary_margins(vectors, groups.centres, near[:, 0], near[:, 1:])
    return near, margin


def count_candidates(probes: float, n_leaves: int) -> int:
    """Return how many leaves a vector may visit at most, its home included."""
    return min(ceil(_MOST * probes) if probes > 1 else 1, n_leaves)


def boundary_margins(vectors: np.ndarray, centres: np.ndarray, home: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Return each vector's distance to the boundaries between its home and some leaves.

    vectors : float32 (n, dim)
    home    : int (n,)
    leaves  : int (n, m)
    returns : float32 (n, m); 0 for home itself
    """
    n, m = leaves.shape
    margin = np.empty((n, m), np.float32)
    step = max(1, _DIFFERENCES // (max(1, m) * vectors.shape[1]))
    for start in range(0, n, step):
        here = slice(start, start + step)
        centre = centres[home[here]]
        apart = centres[leaves[here]] - centre[:, None]
        squared = np.einsum("nmd,nmd->nm", apart, apart)
        along = np.einsum("nmd,nd->nm", apart, vectors[here] - centre)
        # Equal centres have no boundary: one is as good as the other.
        margin[here] = (squared / 2 - along) / np.sqrt(np.where(squared > 0, squared, np.inf))
    return margin
