"""The forest: trees of hyperplane splits, grown on the driver from a sample, kept as leaf centres."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.routes import Routes
from annspark.core.space import PLAIN, Space, span_space
from annspark.core.two_level import Groups, group_centres, nearest_grouped
from annspark.core.visit import TOGETHER, count_candidates, find_routes, find_ways

SPLITS = ("two_means", "two_points")
_LLOYD_STEPS = 3  # relaxing the centres finds some 5 % more pairs at the same probes; further steps add little
_MEANS_STEPS = 6  # 2-means steps of one split
_MEANS_ROWS = 2048  # rows a split looks at to place its plane


@dataclass(frozen=True)
class CentreForest:
    """Trees of leaves, each leaf held by its centre.

    A vector's home in a tree is the leaf with the nearest centre, so the boundary between two leaves is the hyperplane
    equidistant between two points, as in Annoy.  Leaves are numbered in tree order, so that consecutive leaves are
    neighbors in space and may share a partition.

    origin : float32 (dim,), subtracted from every point before routing (float32 loses digits far from 0)
    trees  : one float32 (n_leaves, dim) per tree
    space  : how vectors become points
    """

    origin: np.ndarray
    trees: tuple[np.ndarray, ...]
    space: Space = PLAIN

    @cached_property
    def groups(self) -> tuple[Groups, ...]:
        """The centres of each tree, grouped: found where they are needed, as they are twice the size of the trees."""
        return tuple(group_centres(centres) for centres in self.trees)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Leaves of each tree."""
        return tuple(len(centres) for centres in self.trees)

    @property
    def gains_by_trees(self) -> bool:
        """More probes are cheaper."""
        return False

    def first(self, n_trees: int) -> "CentreForest":
        """Return the forest of the first trees."""
        return replace(self, trees=self.trees[:n_trees])

    def residents(self, vectors: np.ndarray) -> np.ndarray:
        """Return the points where vectors live, around the origin: float32 (n, dim)."""
        return self.space.residents(vectors) - self.origin

    def visitors(self, vectors: np.ndarray) -> np.ndarray | None:
        """Return the points from where vectors look for neighbors; None where it is the points where they live."""
        points = self.space.visitors(vectors)
        return None if points is None else points - self.origin

    def find_routes(self, vectors: np.ndarray, probes: float) -> list[Routes]:
        """Return per tree where vectors live and what they may visit."""
        residents, visitors, hubs = self.residents(vectors), self.visitors(vectors), self.are_hubs(vectors)
        return [find_routes(residents, visitors, hubs, groups, probes) for groups in self.groups]

    def find_chances(
        self, left: np.ndarray, i: np.ndarray, right: np.ndarray, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ranks and margins of left[i] and right[j] as Chances has them, ways in the order of the trees.

        left, right : float32 (n, dim), prepared
        i, j        : int (n_pairs,)
        returns     : int32 and float32 (n_pairs, 2 * trees)
        """
        pairs = left.take(i, axis=0), right.take(j, axis=0)
        ends = [(self.residents(end), self.visitors(end)) for end in pairs]
        found = [find_ways(ends, groups) for groups in self.groups]
        ranks, margins = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        meet_all = self.are_hubs(pairs[0]) | self.are_hubs(pairs[1])
        ranks[meet_all], margins[meet_all] = 0, TOGETHER
        return ranks, margins

    def are_hubs(self, vectors: np.ndarray) -> np.ndarray:
        """Return which vectors visit every leaf of the first tree: bool (n,)."""
        return self.space.are_hubs(vectors)

    def most_probes(self, sample: np.ndarray) -> float:
        """Return how many leaves of a tree vectors like the sampled ones can go to on average."""
        return max(self.sizes)

    def candidates(self, probes: float) -> int:
        """Return how many leaves of a tree a vector may go to at most."""
        return count_candidates(probes, max(self.sizes))

    def __getstate__(self) -> dict[str, object]:
        return {"origin": self.origin, "trees": self.trees, "space": self.space}


def grow_forest(
    sample: np.ndarray, n_leaves: int, *, trees: int, split: str, seed: int, metric: str, first_tree: int = 0
) -> CentreForest:
    """Grow a forest from sampled vectors.

    sample     : float32 (n_sample, dim), prepared, in an order that is a function of the seed; at least one
    n_leaves   : about how many leaves a tree should have; a tree has fewer when the sample has fewer distinct vectors
    split      : "two_means" (plane between two 2-means centres) or "two_points" (plane between two random points)
    first_tree : number of the first tree; tree t is the same however many trees are grown

    Source: random projection trees as in Annoy (github.com/spotify/annoy); routing to the nearest centre and Lloyd
    steps as in inverted-file indexes.
    """
    space = span_space(sample, metric)
    points = space.residents(sample)
    # The median, as one outlier moves a mean far.
    origin = np.median(points, axis=0) if METRICS[metric].centred else np.zeros(points.shape[1], np.float32)
    shifted = points - origin
    grown = (_grow_tree(shifted, n_leaves, split, np.random.default_rng([seed, first_tree + t])) for t in range(trees))
    return CentreForest(origin, tuple(grown), space)


def grow_limb(sample: np.ndarray, n_leaves: int, *, split: str, seed: int, limb: int) -> np.ndarray:
    """Grow what takes the place of one leaf of a trunk.

    sample  : float32 (n_sample, dim), around the trunk's origin, in an order that is a function of the seed
    limb    : number of the leaf through all trees of the trunk
    returns : float32 (about n_leaves, dim), centres in tree order
    """
    return _grow_tree(sample, n_leaves, split, np.random.default_rng([seed, limb, 1]))


def graft_limbs(trunk: CentreForest, limbs: dict[int, np.ndarray]) -> CentreForest:
    """Replace leaves of a trunk, by their number through all trees, by the leaves grown in their place.

    A leaf without a limb, where no sampled vector was at home, is left out: nobody lives there.
    """
    trees, first = [], 0
    for centres in trunk.trees:
        grown = [limbs[limb] for limb in range(first, first + len(centres)) if limb in limbs]
        trees.append(np.concatenate(grown))
        first += len(centres)
    return CentreForest(trunk.origin, tuple(trees), trunk.space)


def _grow_tree(sample: np.ndarray, n_leaves: int, split: str, rng: np.random.Generator) -> np.ndarray:
    """Return the relaxed leaf centres of one tree, in tree order: float32 (n_leaves, dim)."""
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
    """Split the sample by planes until no part is much above its share; return the parts in tree order."""
    # Halving a part just above the limit gives two of 0.71 of the mean: the average comes out near n_leaves.
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
    """Say which rows lie right of a plane equidistant between two points; None when all rows are the same vector."""
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
    # A lopsided plane (heavy duplicates, an outlier) costs depth and gains nothing: halve at random, as Annoy does.
    return right if 0.02 < right.mean() < 0.98 else _halves(len(rows), rng)


def _halves(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(n) < n // 2


def _margin(rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Positive where a row is nearer to a than to b.  einsum, not BLAS: the same bits on any number of cores."""
    return np.einsum("ij,j->i", rows, a - b) - np.einsum("j,j->", (a + b) / 2, a - b)
