"""Copies: which partitions a vector is shipped to, and which leaves it goes to in each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annspark.core.arrays import distinct, ranges
from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.routes import EVERY_LEAF, Routes
from annspark.core.vectors import Vectors

_ENTRY_BITS = 40


@dataclass(frozen=True)
class Copies:
    """Vectors as they are shipped: one copy for each vector and partition, by (partition, row).

    row       : int (n,), the vector's row in the batch
    partition : int32 (n,)
    home      : int32 (n,), its home leaf when that is joined in this partition, else -1
    visits    : int32 (sum of n_visits,), the leaves it visits there, copy after copy; EVERY_LEAF stands for all
    n_visits  : int32 (n,)
    """

    row: np.ndarray
    partition: np.ndarray
    home: np.ndarray
    visits: np.ndarray
    n_visits: np.ndarray


Router = Callable[[Forest, Plan, Vectors], Copies]  # one of the four functions below
_Entries = tuple[np.ndarray, ...]  # row, leaf, home and partition, by row


def route_vectors(forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Return one copy of each vector for every partition that joins its home or a leaf it visits.

    vectors : n, dense or sparse, prepared
    """
    parts, hubs = [], np.flatnonzero(forest.are_hubs(vectors))
    for tree, reached in enumerate(forest.find_reached(vectors, plan.probes, plan.reach)):
        entries = _entries_of(reached, plan, tree)
        if len(hubs) and tree == 0:  # the tree in which every vector has a home
            entries = _with_hubs(entries, hubs, np.arange(plan.n_home_partitions))
        parts.append(entries)
    return _copies_of(parts)


def route_residents(forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Return one copy of each vector for the partition of its home in every tree; it visits no leaf."""
    routes = forest.find_routes(vectors, 1)
    return _copies_of([_entries_of(of_tree.take(of_tree.home), plan, tree) for tree, of_tree in enumerate(routes)])


def route_homes(forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Return one copy of each vector for the partition of its home in every tree, with all leaves that it visits.

    What a vector visits in a tree in which it has no home goes with its copy of the first tree, in which each has one.
    A tree for which the plan has no reach is visited by none.
    """
    hubs, n_joined = np.flatnonzero(forest.are_hubs(vectors)), len(plan.reach)
    reached = forest.first(n_joined).find_reached(vectors, plan.probes, plan.reach)
    further = forest.find_routes(vectors, 1)[n_joined:] if len(forest.sizes) > n_joined else []
    trees: list[_Entries] = []
    for tree, of_tree in enumerate([*reached, *(one.take(one.home) for one in further)]):
        entries = _entries_of(of_tree, plan, tree)
        row, _, home, partition = entries
        at_home = np.full(of_tree.n_rows, -1, np.int32)
        at_home[row[home]] = partition[home]
        if tree == 0:
            first = at_home
            entries = _with_hubs(entries, hubs, np.zeros(1, np.int32)) if len(hubs) else entries
        row = entries[0]
        trees.append((*entries[:3], np.where(at_home[row] < 0, first[row], at_home[row])))
    entries = tuple(np.concatenate(part) for part in zip(*trees, strict=True))
    by_row = np.argsort(entries[0], kind="stable")
    return _copies_of([tuple(part[by_row] for part in entries)])


@dataclass(frozen=True)
class Callers:
    """The partitions with residents that visit a leaf.

    first     : int64 (n_leaves + 1,), where those of each leaf begin
    partition : int32, leaf after leaf
    hubs      : int32 (n,), partitions with residents that visit every leaf of the first tree
    """

    first: np.ndarray
    partition: np.ndarray
    hubs: np.ndarray

    def of(self, homes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return who calls some leaves: int (n_found,), the place of a leaf in homes; int32 (n_found,), partitions."""
        counts = np.diff(self.first)[homes]
        return np.repeat(np.arange(len(homes)), counts), self.partition[ranges(self.first[homes], counts)]


def callers_of(partition: np.ndarray, visited: np.ndarray, n_leaves: int) -> Callers:
    """Return the callers of all leaves.

    partition, visited : int32 (n,), pairs of a partition and a leaf that residents of it visit, or EVERY_LEAF
    """
    every = visited == EVERY_LEAF
    keys = distinct(visited[~every].astype(np.int64) << 32 | partition[~every])
    first = np.searchsorted(keys >> 32, np.arange(n_leaves + 1))
    return Callers(first=first, partition=keys.astype(np.int32), hubs=distinct(partition[every]))


def route_changed(callers: Callers, forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Return one copy of each vector for every partition in which it is compared with residents.

    visits are the leaves that the vector goes to, its homes included, and in the form -3 - leaf its homes that are
    visited by residents of the partition.  -3 - EVERY_LEAF stands for residents that visit all leaves.  home is -1.
    """
    hubs = np.flatnonzero(forest.are_hubs(vectors))
    parts: list[tuple[np.ndarray, ...]] = []
    for tree, reached in enumerate(forest.find_reached(vectors, plan.probes, plan.reach)):
        row, leaf, at_home, _ = _entries_of(reached, plan, tree)
        owner, homes = row[at_home], leaf[at_home]
        if tree == 0 and len(hubs):
            others = ~np.isin(row, hubs)
            # Hubs are of large groups, of which nobody is in the leaves of small ones.
            every = np.setdiff1d(np.arange(plan.first_leaf[1], dtype=np.int32), np.array(plan.shared, np.int32))
            row = np.concatenate([row[others], np.repeat(hubs, len(every))])
            leaf = np.concatenate([leaf[others], np.tile(every, len(hubs))])
        parts.append((row, leaf, plan.partition_of_leaf[leaf]))
        place, calling = callers.of(homes)
        parts.append((owner[place], -3 - homes[place], calling))
        if tree == 0:
            calling = np.tile(callers.hubs, len(owner))
            parts.append((np.repeat(owner, len(callers.hubs)), np.full(len(calling), -3 - EVERY_LEAF), calling))
    row, leaf, partition = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return _copies_of([(row[order], leaf[order].astype(np.int32), np.zeros(len(row), bool), partition[order])])


def route_queries(forest: Forest, plan: Plan, vectors: Vectors) -> Copies:
    """Return one copy of each query for every partition that joins a leaf it goes to; it is at home in none."""
    parts: list[_Entries] = []
    for tree, reached in enumerate(forest.find_query_reached(vectors, plan.probes, plan.reach)):
        row, leaf, home, partition = _entries_of(reached, plan, tree)
        parts.append((row, leaf, np.zeros_like(home), partition))
    return _copies_of(parts)


def _entries_of(routes: Routes, plan: Plan, tree: int) -> _Entries:
    leaf = routes.leaf + np.int32(plan.first_leaf[tree])
    return routes.row, leaf, routes.home, plan.partition_of_leaf[leaf]


def _copies_of(parts: list[_Entries]) -> Copies:
    """Return the copies of vectors from the entries of each tree."""
    row, leaf, home, partition = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Trees share no partition, so the entries of each partition are in the order of rows already.  A plain sort of
    # partition | number of the entry costs a third of an argsort and its gathers.
    keys = partition.astype(np.int64) << _ENTRY_BITS | np.arange(len(leaf))
    keys.sort()
    partition, entry = keys >> _ENTRY_BITS, keys & ((1 << _ENTRY_BITS) - 1)
    leaf, row, home = leaf[entry], row[entry], home[entry]
    begins = np.ones(len(keys), bool)
    begins[1:] = (row[1:] != row[:-1]) | (partition[1:] != partition[:-1])
    first = np.flatnonzero(begins)
    number = np.cumsum(begins) - 1
    home_leaf = np.full(len(first), -1, np.int32)
    home_leaf[number[home]] = leaf[home]
    n_visits = np.bincount(number[~home], minlength=len(first)).astype(np.int32)
    return Copies(
        row=row[first],
        partition=partition[first].astype(np.int32),
        home=home_leaf,
        visits=leaf[~home],
        n_visits=n_visits,
    )


def _with_hubs(entries: _Entries, hubs: np.ndarray, partitions: np.ndarray) -> _Entries:
    """Return entries (row, leaf, home, partition), by row, with a visit of EVERY_LEAF for each hub and partition."""
    n = len(hubs) * len(partitions)
    more = (
        np.repeat(hubs, len(partitions)),
        np.full(n, EVERY_LEAF, np.int32),
        np.zeros(n, bool),
        np.tile(partitions, len(hubs)),
    )
    together = [np.concatenate(both) for both in zip(entries, more, strict=True)]
    order = np.argsort(together[0], kind="stable")
    return tuple(part[order] for part in together)
