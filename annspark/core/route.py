"""Routing: which leaves each vector calls home or visits, and what is shipped where."""

from dataclasses import dataclass

import numpy as np

from annspark.core.plan import AnyForest, Plan
from annspark.core.rows import Vectors
from annspark.core.visit import goes_to

_GOAL_BITS = 40


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


def route_vectors(forest: AnyForest, plan: Plan, vectors: Vectors) -> Copies:
    """Send each vector once to every partition that joins its home or a leaf it visits.

    vectors : n, dense or sparse, prepared
    """
    leaves, rows, homes = [], [], []
    for tree, (near, margins) in enumerate(forest.find_goals(vectors, plan.probes)):
        row, place = np.nonzero(goes_to(margins, plan.reach[tree]))
        leaves.append(near[row, place] + np.int32(plan.first_leaf[tree]))
        rows.append(row)
        homes.append(place == 0)
    leaf, row, home = (np.concatenate(parts) for parts in (leaves, rows, homes))
    # Trees share no partition, so goals are ordered by row within each.  One plain sort of partition | goal costs a
    # third of an argsort and its gathers.
    keys = plan.partition_of_leaf[leaf].astype(np.int64) << _GOAL_BITS | np.arange(len(leaf))
    keys.sort()
    partition, goal = keys >> _GOAL_BITS, keys & ((1 << _GOAL_BITS) - 1)
    leaf, row, home = leaf[goal], row[goal], home[goal]
    begins = np.ones(len(keys), bool)
    begins[1:] = (row[1:] != row[:-1]) | (partition[1:] != partition[:-1])
    first = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    home_leaf = np.full(len(first), -1, np.int32)
    home_leaf[number[home]] = leaf[home]
    n_visits = np.bincount(number[~home], minlength=len(first)).astype(np.int32)
    return Copies(row[first], partition[first].astype(np.int32), home_leaf, leaf[~home], n_visits)
