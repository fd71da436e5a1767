"""Routing: which leaves each vector calls home or visits, and what is shipped where."""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.routes import within
from annspark.core.vectors import Vectors
from annspark.core.visit import EVERY_LEAF

_GOAL_BITS = 40


@dataclass(frozen=True)
class Copies:
    """Vectors as they are shipped: one per vector and partition, in ascending order of partition, then row.

    row       : int (n,), the vector's row in the batch
    partition : int32 (n,)
    home      : int32 (n,), its home leaf when that is joined in this partition, else -1
    visits    : int32 (sum of n_visits,), the other leaves it visits there, copy after copy; EVERY_LEAF for all
    n_visits  : int32 (n,)
    """

    row: np.ndarray
    partition: np.ndarray
    home: np.ndarray
    visits: np.ndarray
    n_visits: np.ndarray


def route_vectors(forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Send each vector once to every partition that joins its home or a leaf it visits.

    vectors : n, dense or sparse, prepared
    """
    parts, hubs = [], np.flatnonzero(forest.are_hubs(vectors))
    for tree, found in enumerate(forest.find_routes(vectors, plan.probes)):
        going = within(found, plan.reach[tree])
        leaf = going.leaf + np.int32(plan.first_leaf[tree])
        goals: tuple[np.ndarray, ...] = (going.row, leaf, going.home, plan.partition_of_leaf[leaf])
        if len(hubs) and tree == 0:  # where everybody has a home
            goals = _with_hubs(goals, hubs, np.arange(plan.n_home_partitions))
        parts.append(goals)
    row, leaf, home, partition = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Trees share no partition, so goals are ordered by row within each.  One plain sort of partition | goal costs a
    # third of an argsort and its gathers.
    keys = partition.astype(np.int64) << _GOAL_BITS | np.arange(len(leaf))
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


def _with_hubs(goals: tuple[np.ndarray, ...], hubs: np.ndarray, partitions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Add to goals, in the order of rows, that hubs visit all leaves of partitions."""
    n = len(hubs) * len(partitions)
    more = (
        np.repeat(hubs, len(partitions)),
        np.full(n, EVERY_LEAF, np.int32),
        np.zeros(n, bool),
        np.tile(partitions, len(hubs)),
    )
    together = [np.concatenate(both) for both in zip(goals, more, strict=True)]
    order = np.argsort(together[0], kind="stable")
    return tuple(part[order] for part in together)
