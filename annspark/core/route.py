"""Routing: which leaves each vector calls home or visits, and what is shipped where."""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.nearest import nearest_centres
from annspark.core.plan import Plan


@dataclass(frozen=True)
class Copies:
    """Vectors as they are shipped: one row per vector and partition.

    row       : int (n,), the vector's row in the batch
    partition : int32 (n,)
    home      : int32 (n,), its home leaf when that is joined in this partition, else -1
    visits    : int32 (sum of n_visits,), the other leaves it visits there, copy after copy
    n_visits  : int (n,)
    """

    row: np.ndarray
    partition: np.ndarray
    home: np.ndarray
    visits: np.ndarray
    n_visits: np.ndarray


def route_vectors(forest: Forest, plan: Plan, vectors: np.ndarray) -> Copies:
    """Send each vector once to every partition that joins one of its leaves.

    vectors : float32 (n, dim), prepared
    """
    n = len(vectors)
    shifted = vectors - forest.origin
    leaves, is_home = [], []
    for tree, (centres, probes) in enumerate(zip(forest.trees, plan.probes, strict=True)):
        leaves.append(nearest_centres(shifted, centres, probes) + np.int32(plan.first_leaf[tree]))
        is_home.append(np.arange(probes) == 0)
    leaf = np.concatenate(leaves, axis=1).ravel()
    home = np.tile(np.concatenate(is_home), n)
    row = np.repeat(np.arange(n), leaf.size // max(n, 1))
    partition = plan.partition_of_leaf[leaf]
    order = np.argsort(row * plan.n_partitions + partition, kind="stable")
    leaf, home, row, partition = leaf[order], home[order], row[order], partition[order]
    first = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(partition, prepend=-1) != 0))
    copy = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(row))))
    home_leaf = np.full(len(first), -1, np.int32)
    home_leaf[copy[home]] = leaf[home]
    return Copies(row[first], partition[first], home_leaf, leaf[~home], np.bincount(copy[~home], minlength=len(first)))
