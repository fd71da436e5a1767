"""Routing: which leaves each vector calls home or visits, and what is shipped where."""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.nearest import nearest_centres
from annspark.core.plan import Plan


@dataclass(frozen=True)
class Copies:
    """Vectors as they are shipped: one per vector and partition, in ascending order of partition, then row.

    row       : int (n,), the vector's row in the batch
    partition : int32 (n,)
    home      : int32 (n,), its home leaf when that is joined in this partition, else -1
    visits    : int32 (sum of n_visits,), the other leaves it visits there, copy after copy
    n_visits  : int32 (n,)
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
    copy = plan.partition_of_leaf[leaf] * np.int64(n) + row
    order = np.argsort(copy, kind="stable")
    leaf, home, copy = leaf[order], home[order], copy[order]
    begins = np.diff(copy, prepend=-1) != 0
    first = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    home_leaf = np.full(len(first), -1, np.int32)
    home_leaf[number[home]] = leaf[home]
    n_visits = np.bincount(number[~home], minlength=len(first)).astype(np.int32)
    partition, row = np.divmod(copy[first], max(n, 1))
    return Copies(row, partition.astype(np.int32), home_leaf, leaf[~home], n_visits)
