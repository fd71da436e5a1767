"""Which leaves a vector visits besides its home: those whose boundary with its home is near.

The boundary between a vector's home and another leaf is the plane equidistant between their centres.  The nearer the
plane, the likelier a neighbor lies beyond it.  So visits are chosen by the distance to the plane, the margin, and not
by how many leaves are nearer: a vector in the middle of its leaf visits few leaves, one at a corner many.  Of the
neighbors that equal numbers of visits for all vectors miss, this finds a quarter to three quarters at the same mean
number.
Source: multi-probe search by the distance to a boundary (Lv et al. 2007, VLDB), here for Voronoi cells.
"""

from math import ceil

import numpy as np

from annspark.core.nearest_centres import count_nearer_centres
from annspark.core.routes import SAME_LEAF, Routes, routes_of
from annspark.core.two_level import Groups, nearest_grouped

# A vector may go to this many times the mean number of leaves, at most.  Three or four times find less: vectors in
# crowded regions then use up the visits of all others.
_MOST = 2
_DIFFERENCES = 1 << 16  # differences of centres in flight, 256 KB: they stay in the second-level cache


def routes_in_tree(
    home_points: np.ndarray, visit_points: np.ndarray | None, hubs: np.ndarray, groups: Groups, probes: float
) -> Routes:
    """Return the home of each vector in one tree, and the leaves it may visit.

    home_points  : float32 (n, dim), around the forest's origin; the nearest centre is the home
    visit_points : float32 (n, dim), None where they are the home points; the leaf of the nearest centre is visited
                   first, with a margin of 0; margins of other leaves are distances to the boundary with that one
    hubs         : bool (n,), vectors without visits of their own, as they visit every leaf
    groups       : the centres of the tree
    probes       : mean number of leaves a vector goes to, its home included
    """
    near, margin = near_leaves(home_points if visit_points is None else visit_points, groups, probes)
    if visit_points is not None:
        home = nearest_grouped(home_points, groups, 1)
        margin[near == home] = np.nan
        near = np.concatenate([home, near], axis=1)
        margin = np.concatenate([np.zeros((len(home), 1), np.float32), margin], axis=1)
    margin[hubs, 1:] = np.nan
    return routes_of(near, margin)


def home_distances_in_tree(
    ends: list[tuple[np.ndarray, np.ndarray | None]], groups: Groups
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each vector of a pair is from the home of the other, in one tree; see calibrate.HomeDistances.

    ends    : for the first and for the second vectors of the pairs, home and visit points as for routes_in_tree
    groups  : the centres of the tree
    returns : leaves_nearer int32 (n_pairs, 2), how many leaves are nearer to the first vector than the home of the
              second, and the other way round; margins float32 (n_pairs, 2), to the home of the other, SAME_LEAF where
              that is the vector's own
    """
    leaves_nearer, margins = [], []
    homes = [nearest_grouped(home_points, groups, 1)[:, 0] for home_points, _ in ends]
    for (home_points, visit_points), home, other_home in zip(ends, homes, homes[::-1], strict=True):
        points, start = home_points, home
        if visit_points is not None:
            points, start = visit_points, nearest_grouped(visit_points, groups, 1)[:, 0]
        margin = boundary_margins(points, groups.centres, start, other_home[:, None])[:, 0]
        margins.append(np.where(home == other_home, np.float32(SAME_LEAF), margin))
        leaves_nearer.append(
            np.where(home == other_home, np.int32(0), count_nearer_centres(points, groups.centres, other_home))
        )
    return np.stack(leaves_nearer, axis=1), np.stack(margins, axis=1)


def query_distances_in_tree(
    queries: np.ndarray, home_points: np.ndarray, groups: Groups
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each query of a pair is from the home of the other, in one tree; see calibrate.HomeDistances.

    queries     : float32 (n_pairs, dim), points that decide which leaves the queries go to
    home_points : float32 (n_pairs, dim), home points of the rows they are paired with
    groups      : the centres of the tree
    returns     : leaves_nearer int32 (n_pairs,) and margins float32 (n_pairs,), SAME_LEAF where the home is the leaf
                  that the query goes to first
    """
    first, home = (nearest_grouped(points, groups, 1)[:, 0] for points in (queries, home_points))
    margins = boundary_margins(queries, groups.centres, first, home[:, None])[:, 0]
    leaves_nearer = count_nearer_centres(queries, groups.centres, home)
    same = first == home
    return np.where(same, np.int32(0), leaves_nearer), np.where(same, np.float32(SAME_LEAF), margins)


def near_leaves(vectors: np.ndarray, groups: Groups, probes: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the leaves that each vector may go to, and its distance to the boundary with each.

    vectors : float32 (n, dim), around the forest's origin
    probes  : mean number of leaves a vector goes to, its home included
    returns : int32 (n, m) leaves, home first; float32 (n, m) margins, 0 for the home
    """
    near = nearest_grouped(vectors, groups, most_leaves(probes, len(groups.centres)))
    margin = np.zeros(near.shape, np.float32)
    margin[:, 1:] = boundary_margins(vectors, groups.centres, near[:, 0], near[:, 1:])
    return near, margin


def most_leaves(probes: float, n_leaves: int) -> int:
    """Return how many leaves a vector may go to at most, its home included."""
    return min(ceil(_MOST * probes) if probes > 1 else 1, n_leaves)


def boundary_margins(vectors: np.ndarray, centres: np.ndarray, home: np.ndarray, leaves: np.ndarray) -> np.ndarray:
    """Return each vector's distance to the boundaries between its home and some leaves.

    With h and c the centres of home and leaf, that is (|c - h|^2 / 2 - (c - h).(x - h)) / |c - h|.

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
        # Equal centres have no boundary between them: their margin is 0.
        margin[here] = (squared / 2 - along) / np.sqrt(np.where(squared > 0, squared, np.inf))
    return margin


def boundary_margins_of_one(vector: np.ndarray, centres: np.ndarray, home: int, leaves: np.ndarray) -> np.ndarray:
    """Return the boundary_margins of a single vector, to the last bit, in half of the time.

    vector  : float32 (dim,)
    leaves  : int (m,)
    returns : float32 (m,)
    """
    centre = centres[home]
    apart = centres.take(leaves, axis=0)
    apart -= centre
    squared = np.einsum("md,md->m", apart, apart)
    margin = squared / 2
    margin -= np.einsum("md,d->m", apart, vector - centre)
    squared[squared == 0] = np.inf
    margin /= np.sqrt(squared, out=squared)
    return margin
