"""Routing: which leaves each vector calls home or visits, and what is shipped where."""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.two_level import nearest_grouped

_PLACE_BITS = 40


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
    shifted = vectors - forest.origin
    leaves, is_home = [], []
    for tree, (groups, probes) in enumerate(zip(forest.groups, plan.probes, strict=True)):
        leaves.append(nearest_grouped(shifted, groups, probes) + np.int32(plan.first_leaf[tree]))
        is_home.append(np.arange(probes) == 0)
    leaf = np.concatenate(leaves, axis=1).ravel()
    n_goals = sum(plan.probes)
    # One plain sort of partition | row, place in the row: a third of the cost of an argsort and its gathers.
    keys = plan.partition_of_leaf[leaf].astype(np.int64) << _PLACE_BITS | np.arange(leaf.size)
    keys.sort()
    partition, goal = keys >> _PLACE_BITS, keys & ((1 << _PLACE_BITS) - 1)
    row = goal // n_goals
    leaf, home = leaf[goal], np.concatenate(is_home)[goal - row * n_goals]
    begins = np.ones(len(keys), bool)
    begins[1:] = (row[1:] != row[:-1]) | (partition[1:] != partition[:-1])
    first = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    home_leaf = np.full(len(first), -1, np.int32)
    home_leaf[number[home]] = leaf[home]
    n_visits = np.bincount(number[~home], minlength=len(first)).astype(np.int32)
    return Copies(row[first], partition[first].astype(np.int32), home_leaf, leaf[~home], n_visits)
