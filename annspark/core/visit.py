"""Which leaves a vector visits besides its home: those whose boundary with its home is near.

Between a vector's home and another leaf lies the plane equidistant between their centres.  A neighbor across it is the
likelier the nearer the plane, so visits are given by that distance, the margin, and not by rank: a vector in the middle
of its leaf visits few, one at a corner many.  At the same number of visits this finds a quarter to three quarters of
the neighbors that equal numbers of visits miss.
Source: multi-probe search by the distance to a boundary (Lv et al. 2007, VLDB), here for Voronoi cells.
"""

from math import ceil

import numpy as np

from annspark.core.two_level import Groups, nearest_grouped

# Of the leaves nearest to a vector, how many times the mean number of visits it may visit.  Three or four times find
# less: crowded vectors then use up the visits of all others.
_MOST = 2
_DIFFERENCES = 1 << 16  # differences of centres in flight, 256 KB: they stay in the second-level cache


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


def reach_for(margins: np.ndarray, probes: float) -> float:
    """Return the margin up to which leaves are visited, so that vectors visit so many on average, home included.

    margins : float32 (n_sample, m), of near_leaves
    """
    n, m = margins.shape
    if probes >= m:
        return float("inf")
    others = np.sort(margins[:, 1:], axis=None)
    visits = round(n * (probes - 1))
    return float(others[visits - 1]) if visits > 0 else -1.0


def goes_to(margins: np.ndarray, reach: float) -> np.ndarray:
    """Return which of near_leaves a vector goes to: bool (n, m); home always."""
    visited = margins <= np.float32(reach)
    visited[:, 0] = True
    return visited
