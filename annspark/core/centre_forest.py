"""The forest of dense vectors: trees of hyperplane splits, grown from a sample, of which the leaf centres are kept."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from annspark.core.boundaries import (
    home_distances_in_tree,
    most_leaves,
    near_leaves,
    query_distances_in_tree,
    routes_in_tree,
)
from annspark.core.metric import METRICS
from annspark.core.reached import inverse_distances, reached_in_tree, saves_time
from annspark.core.routes import SAME_LEAF, Routes, routes_of, within_reaches
from annspark.core.routing_space import PLAIN, RoutingSpace, choose_space
from annspark.core.two_level import Groups, group_centres, nearest_grouped

SPLITS = ("two_means", "two_points")
_LLOYD_STEPS = 3  # they find some 5 % more pairs at the same probes; further steps add little
_MEANS_STEPS = 6  # 2-means steps of one split
_MEANS_ROWS = 2048  # rows that a split places its plane by


@dataclass(frozen=True)
class CentreForest:
    """Trees of leaves, each leaf known by its centre.

    A vector's home in a tree is the leaf with the nearest centre.  So the boundary between two leaves is the hyperplane
    equidistant between two points, as in Annoy.  Leaves are numbered in tree order, so that consecutive leaves are
    near each other in space and may share a partition.

    origin : float32 (dim,), subtracted from every point before routing, since float32 loses digits far from 0
    trees  : for each tree float32 (n_leaves, dim), centres around the origin
    space  : how vectors become points
    """

    origin: np.ndarray
    trees: tuple[np.ndarray, ...]
    space: RoutingSpace = PLAIN

    @cached_property
    def groups(self) -> tuple[Groups, ...]:
        """The centres of each tree in groups.  They are twice the size of the trees, so each process makes its own."""
        return tuple(group_centres(centres) for centres in self.trees)

    @cached_property
    def inverse_distances(self) -> tuple[np.ndarray, ...]:
        """Of each tree, what reached_in_tree needs; each process makes its own."""
        return tuple(inverse_distances(centres) for centres in self.trees)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of leaves of each tree."""
        return tuple(len(centres) for centres in self.trees)

    @property
    def shared_leaves(self) -> range:
        """None: there are no groups."""
        return range(0)

    @property
    def gains_by_trees(self) -> bool:
        """False: more probes are cheaper than more trees."""
        return False

    def first(self, n_trees: int) -> "CentreForest":
        """Return the forest of the first trees."""
        return replace(self, trees=self.trees[:n_trees])

    def home_points(self, vectors: np.ndarray) -> np.ndarray:
        """Return the points that decide homes, around the origin: float32 (n, dim)."""
        return self.space.home_points(vectors) - self.origin

    def visit_points(self, vectors: np.ndarray) -> np.ndarray | None:
        """Return the points that decide visits, around the origin; None where they are the home points."""
        points = self.space.visit_points(vectors)
        return None if points is None else points - self.origin

    def find_routes(self, vectors: np.ndarray, probes: float) -> list[Routes]:
        """Return for each tree the home of every vector, and the leaves it may visit, see Forest."""
        home_points, visit_points, hubs = self.home_points(vectors), self.visit_points(vectors), self.are_hubs(vectors)
        return [routes_in_tree(home_points, visit_points, hubs, groups, probes) for groups in self.groups]

    def find_reached(self, vectors: np.ndarray, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the home of every vector and the leaves within reach, see Forest."""
        plain = self.visit_points(vectors[:1]) is None and not self.are_hubs(vectors).any()
        if plain and self._saves_time(len(vectors), probes):
            return self._reached(self.home_points(vectors), probes, reach)
        return within_reaches(self.find_routes(vectors, probes), reach)

    def find_query_reached(self, queries: np.ndarray, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the leaves that queries go to, see Forest."""
        if self._saves_time(len(queries), probes):
            return self._reached(self.query_points(queries), probes, reach)
        return within_reaches(self.find_query_routes(queries, probes), reach)

    def _saves_time(self, n: int, probes: float) -> bool:
        return n > 0 and all(saves_time(groups, probes) for groups in self.groups)

    def _reached(self, points: np.ndarray, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        trees = zip(self.groups, self.inverse_distances, reach, strict=True)
        return [reached_in_tree(points, groups, inverse, probes, margin) for groups, inverse, margin in trees]

    def query_points(self, queries: np.ndarray) -> np.ndarray:
        """Return the points that decide which leaves queries go to, around the origin: float32 (n, dim)."""
        points = self.visit_points(queries)
        return self.home_points(queries) if points is None else points

    def find_query_routes(self, queries: np.ndarray, probes: float) -> list[Routes]:
        """Return for each tree the leaves that queries may go to, see Forest."""
        points = self.query_points(queries)
        return [routes_of(*near_leaves(points, groups, probes)) for groups in self.groups]

    def find_query_distances(
        self, queries: np.ndarray, i: np.ndarray, rows: np.ndarray, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return leaves_nearer and margins of queries[i] and the homes of rows[j], see Forest."""
        asking, found = self.query_points(queries).take(i, axis=0), rows.take(j, axis=0)
        points = self.home_points(found)
        distances = [query_distances_in_tree(asking, points, groups) for groups in self.groups]
        leaves_nearer, margins = (np.stack(parts, axis=1) for parts in zip(*distances, strict=True))
        hubs = self.are_hubs(found)
        leaves_nearer[hubs], margins[hubs] = 0, SAME_LEAF
        return leaves_nearer, margins

    def find_home_distances(
        self, left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return leaves_nearer and margins of left[i] and right[j], see Forest."""
        pairs = left.take(i, axis=0), right.take(j, axis=0)
        ends = [(self.home_points(end), self.visit_points(end)) for end in pairs]
        found = [home_distances_in_tree(ends, groups) for groups in self.groups]
        leaves_nearer, margins = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        has_hub = self.are_hubs(pairs[0]) | self.are_hubs(pairs[1])
        leaves_nearer[has_hub], margins[has_hub] = 0, SAME_LEAF
        return leaves_nearer, margins

    def are_hubs(self, vectors: np.ndarray) -> np.ndarray:
        """Return which vectors are hubs, which visit every leaf of the first tree: bool (n,)."""
        return self.space.are_hubs(vectors)

    def most_probes(self, sample: np.ndarray) -> float:
        """Return how many leaves of a tree vectors like the sampled ones can go to on average."""
        # Any vector may visit any leaf, whatever the sample; a ColumnForest needs it to count the columns of rows.
        return max(self.sizes)

    def most_leaves(self, probes: float) -> int:
        """Return how many leaves of a tree a vector may go to at most, when it goes to probes leaves on average."""
        return most_leaves(probes, max(self.sizes))

    def __getstate__(self) -> dict[str, object]:
        return {"origin": self.origin, "trees": self.trees, "space": self.space}


def grow_forest(
    sample: np.ndarray, n_leaves: int, *, trees: int, split: str, seed: int, metric: str, first_tree: int = 0
) -> CentreForest:
    """Grow a forest from sampled vectors.

    sample     : float32 (n_sample, dim), prepared, in an order that is a function of the seed; at least one
    n_leaves   : about how many leaves a tree should have; a tree has fewer when the sample has fewer distinct vectors
    trees      : how many trees to grow
    split      : "two_means" (plane between two 2-means centres) or "two_points" (plane between two random points)
    first_tree : number of the first tree; tree t is the same however many trees are grown

    Source: random projection trees as in Annoy (github.com/spotify/annoy); routing to the nearest centre and Lloyd
    steps as in inverted-file indexes.
    """
    space = choose_space(sample, metric)
    points = space.home_points(sample)
    # The median, since one outlier would move a mean far.
    origin = np.median(points, axis=0) if METRICS[metric].centred else np.zeros(points.shape[1], np.float32)
    shifted = points - origin
    grown = (_grow_tree(shifted, n_leaves, split, np.random.default_rng([seed, first_tree + t])) for t in range(trees))
    return CentreForest(origin, tuple(grown), space)


def grow_limb(sample: np.ndarray, n_leaves: int, *, split: str, seed: int, limb: int) -> np.ndarray:
    """Grow a limb: the leaves that replace one leaf of a trunk.

    A trunk is a small forest that the driver grows first, where a tree has too many leaves for the driver's sample.

    sample  : float32 (n_sample, dim), around the trunk's origin, in an order that is a function of the seed
    limb    : number of the trunk's leaf, counted through all of its trees
    returns : float32 (about n_leaves, dim), centres in tree order
    """
    return _grow_tree(sample, n_leaves, split, np.random.default_rng([seed, limb, 1]))


def graft_limbs(trunk: CentreForest, limbs: dict[int, np.ndarray]) -> CentreForest:
    """Return the forest in which each leaf of a trunk is replaced by the leaves of its limb.

    A leaf that was the home of no sampled vector has no limb.  It is left out.

    limbs : for a leaf's number, counted through all trees, the centres that grow_limb returned
    """
    trees, first = [], 0
    for centres in trunk.trees:
        grown = [limbs[limb] for limb in range(first, first + len(centres)) if limb in limbs]
        trees.append(np.concatenate(grown))
        first += len(centres)
    return CentreForest(trunk.origin, tuple(trees), trunk.space)


def _grow_tree(sample: np.ndarray, n_leaves: int, split: str, rng: np.random.Generator) -> np.ndarray:
    """Return the leaf centres of one tree, after Lloyd steps, in tree order: float32 (n_leaves, dim)."""
    leaves = _split_rows(sample, n_leaves, split, rng)
    centres = np.stack([sample[rows].mean(axis=0, dtype=np.float64) for rows in leaves]).astype(np.float32)
    for _ in range(_LLOYD_STEPS if len(centres) > 1 else 0):
        home = nearest_grouped(sample, group_centres(centres), 1)[:, 0]
        order = np.argsort(home, kind="stable")
        ids, first = np.unique(home[order], return_index=True)
        counts = np.diff(np.append(first, len(home)))
        centres[ids] = np.add.reduceat(sample[order], first, axis=0) / counts[:, None]
    return centres


def _split_rows(sample: np.ndarray, n_leaves: int, split: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Split the sample by planes until no part is much larger than its share; return the parts in tree order."""
    # A part just above the limit is halved into two of 0.71 of the mean size: about n_leaves parts come out.
    limit = max(1.0, 1.42 * len(sample) / n_leaves)
    waiting = [np.arange(len(sample))]
    leaves = []
    while waiting:
        rows = waiting.pop()
        right = _right_side(sample, rows, split, rng) if len(rows) > limit else None
        if right is None:
            leaves.append(rows)
        else:
            waiting += [rows[right], rows[~right]]
    return leaves


def _right_side(sample: np.ndarray, rows: np.ndarray, split: str, rng: np.random.Generator) -> np.ndarray | None:
    """Return which rows lie right of a plane equidistant between two points; None when all rows are the same vector."""
    few = sample[rows[rng.choice(len(rows), min(_MEANS_ROWS, len(rows)), replace=False)]]
    different = np.flatnonzero((few != few[0]).any(axis=1))
    if len(different) == 0:
        return None if len(few) == len(rows) else _halves(len(rows), rng)
    a, b = few[0], few[different[0]]
    if split == "two_means":
        total = few.sum(axis=0)
        for _ in range(_MEANS_STEPS):
            right = _margin(few, a, b) > 0
            n_right = int(np.count_nonzero(right))
            if n_right in (0, len(few)):
                break
            # A weighted sum takes a quarter of the time of two means of picked rows.
            inside = np.einsum("i,ij->j", right.astype(np.float32), few)
            a, b = inside / n_right, (total - inside) / (len(few) - n_right)
    right = _margin(sample[rows], a, b) > 0
    # A lopsided plane, which many equal rows or an outlier cause, makes the tree deeper for nothing.  The rows are then
    # halved at random, as Annoy does.
    return right if 0.02 < right.mean() < 0.98 else _halves(len(rows), rng)


def _halves(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(n) < n // 2


def _margin(rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return numbers that are positive where a row is nearer to a than to b.

    By einsum and not BLAS, for the same bits on any number of cores.
    """
    return np.einsum("ij,j->i", rows, a - b) - np.einsum("j,j->", (a + b) / 2, a - b)
