"""The plan of the join: which run of leaves shares a partition, decided from the sample before anything is shipped."""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.two_level import nearest_grouped

_SAMPLED_PER_LEAF = 40
_SAMPLED_AT_LEAST = 10_000
_SAMPLE_BYTES = 512 << 20
_EXPECTED_COPIES = 3  # partitions a vector is shipped to
_PARTITION_BYTES = 192 << 20  # a worker holds a partition about three times over while it joins


@dataclass(frozen=True)
class Plan:
    """Where leaves are joined.

    probes            : leaves each vector goes to in each tree, its home included
    first_leaf        : int (trees + 1,), number of the first leaf of each tree; leaves are numbered through all trees
    partition_of_leaf : int32 (n_leaves,), ascending
    n_partitions      : partitions of the join, over all trees
    """

    probes: tuple[int, ...]
    first_leaf: np.ndarray
    partition_of_leaf: np.ndarray
    n_partitions: int

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees together."""
        return len(self.partition_of_leaf)


def plan_join(forest: Forest, sample: np.ndarray, probes: int, *, rows: int, cores: int) -> Plan:
    """Cut the leaves, in tree order, into partitions of about equal work.

    A run of consecutive leaves is a subtree or nearly so: most leaves a vector visits lie in few partitions, and the
    vector is shipped once to each.  Work is the pairs a leaf will compare, estimated from the sample's own routing.

    sample : float32 (n_sample, dim), prepared
    rows   : users to be joined
    cores  : tasks that run at once
    """
    copies = _EXPECTED_COPIES * len(forest.trees)
    n_partitions = _count_partitions(rows, copies * 4 * (sample.shape[1] + probes), cores)
    first_leaf = np.cumsum([0] + [len(centres) for centres in forest.trees])
    per_tree = max(1, round(n_partitions / len(forest.trees)))
    # A few thousand vectors tell the leaves' shares well enough to balance runs of many leaves.
    shown = sample[:20_000] - forest.origin
    partitions, made, used = [], 0, []
    for centres, groups in zip(forest.trees, forest.groups, strict=True):
        m = min(probes, len(centres))
        near = nearest_grouped(shown, groups, m)
        residents = np.bincount(near[:, 0], minlength=len(centres)) + 1e-3
        met = np.bincount(near.ravel(), minlength=len(centres)) + 1e-3
        work = np.cumsum(residents * met)
        runs = min(per_tree, len(centres))
        cut = np.searchsorted(work, work[-1] * np.arange(1, runs) / runs)
        # Every run keeps at least one leaf, whatever the shares.
        place = np.arange(1, runs)
        cut = np.maximum.accumulate(np.maximum(cut - place, 0)) + place
        cut = np.minimum(cut, len(centres) - runs + place)
        partitions.append(made + np.searchsorted(cut, np.arange(len(centres)), side="right"))
        made += runs
        used.append(m)
    return Plan(tuple(used), first_leaf, np.concatenate(partitions).astype(np.int32), made)


def count_leaves(rows: int, leaf_rows: int, k: int) -> int:
    """Return how many leaves a tree should have; a leaf holds at least four times the neighbors wanted."""
    return max(1, round(rows / max(leaf_rows, 4 * k)))


def count_sampled(rows: int, dim: int, n_leaves: int) -> int:
    """Return how many rows the forest is grown from: enough to place every leaf, within the driver's memory."""
    return min(rows, max(_SAMPLED_PER_LEAF * n_leaves, _SAMPLED_AT_LEAST), max(n_leaves, _SAMPLE_BYTES // (4 * dim)))


def count_merge_partitions(rows: int, trees: int, k: int, id_bytes: float, cores: int) -> int:
    """Return how many partitions to merge in, each user's lists being about as many as the user's copies."""
    list_bytes = id_bytes + k * (4 + id_bytes)
    return _count_partitions(rows, int(_EXPECTED_COPIES * trees * list_bytes), cores)


def _count_partitions(rows: int, row_bytes: int, cores: int) -> int:
    """Return how many partitions to use for rows that bring row_bytes each.

    Few, because every partition a vector is shipped to costs a copy; two a core, so that no core waits long for the
    last one; more when a partition would not fit a worker comfortably.
    """
    wanted = max(2 * cores, -(-rows * row_bytes // _PARTITION_BYTES))
    return min(-(-wanted // cores) * cores, max(1, rows // 500))
