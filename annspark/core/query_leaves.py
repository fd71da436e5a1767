"""Which leaves vectors go to that only ask: they have no home, and no other vector comes to them.

A dense vector starts at the leaf whose centre is nearest to its visit point, and goes to the leaves whose boundary with
that one is within reach.  A sparse row goes to the leaves of its columns, the most worth first.  A single vector is
routed without the blocks that routes of many take, which would cost it a hundred times more.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from annspark.core.boundaries import boundary_margins_of_one, most_leaves
from annspark.core.centre_forest import CentreForest
from annspark.core.column_forest import ColumnForest
from annspark.core.routes import within_reach
from annspark.core.two_level import Groups, nearest_grouped, nearest_grouped_of_one, top_scoring
from annspark.core.vectors import Vectors


@dataclass(frozen=True)
class Extent:
    """How many leaves of a tree vectors go to.

    probes : the mean number of leaves
    reach  : for each tree, the margin up to which leaves are visited; None where every vector goes to the very number
             of leaves that probes says, those of the nearest centres.  At equal numbers these find about as much as
             those of the least margins (one million synthetic vectors, 6 leaves: 0.969 and 0.961), for less work
    """

    probes: float
    reach: tuple[float, ...] | None


@dataclass(frozen=True)
class CentreRouter:
    """A forest of dense vectors, with what routing a single one takes.

    forest    : the trees
    tops      : for each tree float32, top_scoring of its groups
    first     : for each tree the number of its first leaf, counted through all trees
    leaf_rows : int64 (n_leaves,), rows of each leaf
    """

    forest: CentreForest
    tops: tuple[np.ndarray, ...]
    first: tuple[int, ...]
    leaf_rows: np.ndarray

    def leaves_of_one(self, vector: np.ndarray, extent: Extent, wanted: int) -> np.ndarray:
        """Return the leaves that a vector goes to, counted through all trees; one with rows at least.

        vector  : float32 (dim,), prepared for routing
        wanted  : rows that the leaves of the first tree should hold together; it goes on to further leaves until then
        returns : int (n_leaves,), the nearest of each tree first
        """
        points = self.forest.visit_points(vector[None])
        point = vector - self.forest.origin if points is None else points[0]
        chosen = [self._of_tree(point, tree, extent) for tree in range(len(self.first))]
        if self.leaf_rows.take(chosen[0]).sum() < wanted:
            chosen[0] = self._enough(point, chosen[0], wanted)
        return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)

    def _of_tree(self, point: np.ndarray, tree: int, extent: Extent) -> np.ndarray:
        groups = self.forest.groups[tree]
        near = nearest_grouped_of_one(point, groups, _count_near(extent, groups), self.tops[tree])
        if extent.reach is not None and len(near) > 1:
            margins = boundary_margins_of_one(point, groups.centres, int(near[0]), near[1:])
            goes = np.empty(len(near), bool)
            goes[0] = True
            goes[1:] = margins <= np.float32(extent.reach[tree])
            near = near[goes]
        return near + self.first[tree] if self.first[tree] else near

    def _enough(self, point: np.ndarray, chosen: np.ndarray, wanted: int) -> np.ndarray:
        """Return leaves of the first tree that hold wanted rows, or all leaves: those chosen and the next nearest."""
        apart = self.forest.trees[0] - point
        order = np.argsort(np.einsum("ij,ij->i", apart, apart), kind="stable")
        order = np.concatenate([chosen, order[~np.isin(order, chosen)]])
        enough = int(np.searchsorted(np.cumsum(self.leaf_rows.take(order)), wanted)) + 1
        return order[:enough]

    def leaves_of_many(self, vectors: np.ndarray, extent: Extent, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the leaves that each of many vectors goes to, the same as leaves_of_one.

        vectors : float32 (n, dim), prepared for routing
        returns : int (n_pairs,), vectors, ascending; int (n_pairs,), leaves
        """
        went = [
            (row, leaf.astype(np.int64) + first)
            for (row, leaf), first in zip(self._leaves_by_tree(vectors, extent), self.first, strict=True)
        ]
        row, leaf = went[0]
        rows = np.bincount(row, self.leaf_rows.take(leaf), minlength=len(vectors))
        points = self.forest.query_points(vectors) if (rows < wanted).any() else vectors
        for short in np.flatnonzero(rows < wanted).tolist():
            more = self._enough(points[short], leaf[row == short], wanted)
            leaf = np.concatenate([leaf[row != short], more])
            row = np.concatenate([row[row != short], np.full(len(more), short)])
        row, leaf = (np.concatenate(part) for part in zip((row, leaf), *went[1:], strict=True))
        order = np.argsort(row, kind="stable")
        return row[order], leaf[order]

    def _leaves_by_tree(self, vectors: np.ndarray, extent: Extent) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each tree vectors, ascending, and leaves that they go to, numbered in the tree."""
        if extent.reach is not None:
            routes = self.forest.find_query_reached(vectors, extent.probes, extent.reach)
            return [(of_tree.row, of_tree.leaf) for of_tree in routes]
        points = self.forest.query_points(vectors)
        nearest = [nearest_grouped(points, groups, _count_near(extent, groups)) for groups in self.forest.groups]
        return [(np.repeat(np.arange(len(near)), near.shape[1]), near.ravel()) for near in nearest]


def _count_near(extent: Extent, groups: Groups) -> int:
    """Return how many of the nearest leaves of a tree are looked at."""
    n_leaves = len(groups.centres)
    return most_leaves(extent.probes, n_leaves) if extent.reach is not None else min(ceil(extent.probes), n_leaves)


def centre_router(forest: CentreForest, leaf_rows: np.ndarray) -> CentreRouter:
    """Return the router of a forest.

    leaf_rows : int64 (n_leaves,), rows of each leaf
    """
    first = np.cumsum([0, *forest.sizes[:-1]]).tolist()
    return CentreRouter(forest, tuple(top_scoring(groups) for groups in forest.groups), tuple(first), leaf_rows)


def column_leaves(forest: ColumnForest, row: Vectors, extent: Extent) -> np.ndarray:
    """Return the leaves that a sparse row goes to, counted through all trees.

    row : one row, prepared for routing
    """
    routes = forest.find_query_routes(row, extent.probes)
    if extent.reach is None:
        went = [of_tree.leaf[: ceil(extent.probes)] for of_tree in routes]
    else:
        went = [within_reach(*one).leaf for one in zip(routes, extent.reach, strict=True)]
    return np.concatenate([leaf + tree * forest.sizes[0] for tree, leaf in enumerate(went)])
