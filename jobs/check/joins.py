"""The leaf join and another implementation of it, on the same vectors and leaves."""

from dataclasses import dataclass
from typing import Any

from annspark.core import kernels  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip

from annspark.core.best import nobody_met
from annspark.core.centre_forest import grow_forest
from annspark.core.exact import meet
from annspark.core.join_dense import join_leaves
from annspark.core.nearest import nearest_centres
from annspark.core.routes import visits_of

USERS = 1_000  # whose exact neighbors are found


@dataclass(frozen=True)
class Beside:
    """Microseconds a row on one core, medians of runs that take turns, and recall of USERS rows.

    product : what a bare matrix product of the pairs compared takes
    pairs   : compared, a row
    """

    ours: float
    theirs: float
    product: float
    our_recall: float
    their_recall: float
    pairs: float


def route(vectors: np.ndarray, leaf_rows: int, probes: int) -> np.ndarray:
    """Return the leaves that unit vectors go to, home first: int32 (n, probes)."""
    n, n_leaves = len(vectors), max(1, len(vectors) // leaf_rows)
    sample = vectors[np.random.default_rng(0).permutation(n)[: 40 * n_leaves]]
    forest = grow_forest(sample, n_leaves, trees=1, split="two_means", seed=0, metric="cosine")
    return nearest_centres(vectors - forest.origin, forest.trees[0], min(probes, len(forest.trees[0])))


def compare(vectors: np.ndarray, leaf: np.ndarray, other: Any, k: int, repeats: int) -> Beside:
    """Time both.

    vectors : float32 (n, dim), of length 1
    leaf    : int32 (n, probes), home first
    other   : has join(vectors, leaf, k), which returns int (n, k) neighbors first
    """
    n, scratch = len(vectors), np.empty(1 << 18, np.float32)
    home, visits = leaf[:, 0].copy(), visits_of(leaf[:, 1:])
    sides = [(vectors[(leaf == one).any(axis=1)], vectors[home == one]) for one in range(leaf.max() + 1)]

    def product() -> None:
        for visitors, residents in sides:
            kernels.multiply(visitors, residents, scratch)

    ways = (lambda: join_leaves(vectors, home, visits, k, "cosine"), lambda: other.join(vectors, leaf, k), product)
    spent = np.median([[kernels.seconds(way, 1) for way in ways] for _ in range(repeats)], axis=0) / n * 1e6
    users = np.random.default_rng(1).permutation(n)[:USERS]
    exact = meet(vectors[users], vectors, np.arange(n), nobody_met(len(users), k + 1), "cosine").hashes
    recalls = (_recall(near[users], exact, users, k) for near in (ways[0]().neighbors, ways[1]()[0]))
    return Beside(*spent, *recalls, pairs=sum(len(left) * len(right) for left, right in sides) / n)


def _recall(near: np.ndarray, exact: np.ndarray, users: np.ndarray, k: int) -> float:
    """Return the share of exact neighbors found; exact has a column more, as a row is nearest to itself."""
    found = [np.isin(row[row != user][:k], mine).sum() for mine, row, user in zip(near, exact, users, strict=True)]
    return float(np.sum(found) / (k * len(users)))
