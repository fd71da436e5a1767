"""The forest of groups: vectors may only be neighbors within their group, and each large group has trees of its own.

A small group needs no tree.  All of it is at home in one leaf, which other small groups share, and is compared there.
So its neighbors are exact, and half a million groups of three cost no more than a thousand leaves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from annspark.core.forest import Forest
from annspark.core.routes import SAME_LEAF, Routes
from annspark.core.vectors import Grouped, Vectors, take_rows

LARGE = 4  # a group of so many times the rows of a leaf has trees
_Distances = tuple[np.ndarray, np.ndarray]
_Entries = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # row, leaf, margin and home of routes


@dataclass(frozen=True)
class GroupedForest:
    """Trees with the leaves of each large group in turn.  In the first tree, those that small groups share come last.

    names    : int64 (n_large,), ascending, the large groups
    forests  : the forest of each large group, all of as many trees
    n_shared : leaves that small groups share
    """

    names: np.ndarray
    forests: tuple[Forest, ...]
    n_shared: int

    @cached_property
    def first_leaf(self) -> list[np.ndarray]:
        """For each tree the first leaf of each large group, and the end of the last one's: int (n_large + 1,)."""
        by_group = [forest.sizes for forest in self.forests]
        return [np.cumsum([0, *of_tree]) for of_tree in (zip(*by_group, strict=True) if by_group else [()])]

    @property
    def shared_leaves(self) -> range:
        """The leaves that small groups share."""
        start = int(self.first_leaf[0][-1])
        return range(start, start + self.n_shared)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of leaves of each tree."""
        return (self.shared_leaves.stop, *(int(first[-1]) for first in self.first_leaf[1:]))

    @property
    def gains_by_trees(self) -> bool:
        """Whether the large groups gain by trees."""
        return any(forest.gains_by_trees for forest in self.forests)

    def first(self, n_trees: int) -> "GroupedForest":
        """Return the forest of the first trees."""
        return replace(self, forests=tuple(forest.first(n_trees) for forest in self.forests))

    def find_routes(self, vectors: Grouped, probes: float) -> list[Routes]:
        """Return the home of every vector, and the leaves of its group that it may visit, see Forest."""
        return self._routes(vectors, lambda forest, rows: forest.find_routes(rows, probes))

    def find_reached(self, vectors: Grouped, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return the home of every vector and the leaves within reach, see Forest."""
        return self._routes(vectors, lambda forest, rows: forest.find_reached(rows, probes, reach))

    def find_query_routes(self, queries: Grouped, probes: float) -> list[Routes]:
        """Return the leaves that queries may go to, see Forest."""
        return self._routes(queries, lambda forest, rows: forest.find_query_routes(rows, probes))

    def find_query_reached(self, queries: Grouped, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return the leaves that queries go to, see Forest."""
        return self._routes(queries, lambda forest, rows: forest.find_query_reached(rows, probes, reach))

    def find_query_distances(self, queries: Grouped, i: np.ndarray, rows: Grouped, j: np.ndarray) -> _Distances:
        """Return leaves_nearer and margins of queries[i] and the homes of rows[j], see Forest."""
        return self._distances(queries, i, rows, j, lambda forest, *pairs: forest.find_query_distances(*pairs), 1)

    def find_home_distances(self, left: Grouped, i: np.ndarray, right: Grouped, j: np.ndarray) -> _Distances:
        """Return leaves_nearer and margins of left[i] and right[j], see Forest."""
        return self._distances(left, i, right, j, lambda forest, *pairs: forest.find_home_distances(*pairs), 2)

    def are_hubs(self, vectors: Grouped) -> np.ndarray:
        """Return which vectors are hubs of their group: bool (n,)."""
        hubs = np.zeros(len(vectors.group), bool)
        for forest, _, rows in self._large(vectors.group):
            hubs[rows] = forest.are_hubs(take_rows(vectors.vectors, rows))
        return hubs

    def most_probes(self, sample: Grouped) -> float:
        """Return how many leaves of a tree vectors like the sampled ones can go to on average."""
        each = np.ones(len(sample.group))
        for forest, _, rows in self._large(sample.group):
            each[rows] = forest.most_probes(take_rows(sample.vectors, rows))
        return float(each.mean())

    def most_leaves(self, probes: float) -> int:
        """Return how many leaves of a tree a vector may go to at most, when it goes to probes leaves on average."""
        return max([1, *(forest.most_leaves(probes) for forest in self.forests)])

    def number_of(self, group: int) -> int | None:
        """Return the number of a large group, None for a small one."""
        number = int(self._number_of(np.array([group]))[0])
        return number if number < len(self.names) else None

    def leaves_of(self, number: int) -> np.ndarray:
        """Return the leaves of a large group, tree after tree, numbered through the trees of all groups: int (n,)."""
        starts = np.cumsum([0, *self.sizes[:-1]])
        trees = zip(starts, self.first_leaf, strict=True)
        return np.concatenate([start + np.arange(*first[number : number + 2]) for start, first in trees])

    def shared_leaf_of(self, group: np.ndarray) -> np.ndarray:
        """Return the leaf of each small group: int64 (n,) to int64 (n,)."""
        shared = group.view(np.uint64) % np.uint64(max(1, self.n_shared))
        return shared.astype(np.int64) + self.shared_leaves.start

    def _number_of(self, group: np.ndarray) -> np.ndarray:
        """Return the number of the large group of each vector, len(names) for small groups: int (n,)."""
        if len(self.names) == 0:
            return np.zeros(len(group), np.int64)
        place = np.searchsorted(self.names, group).clip(max=len(self.names) - 1)
        return np.where(self.names[place] == group, place, len(self.names))

    def _large(self, group: np.ndarray) -> Iterator[tuple[Forest, int, np.ndarray]]:
        """Yield the large groups that vectors are of: forest, its number, and int (n_rows,), ascending, the vectors."""
        number = self._number_of(group)
        order = np.argsort(number, kind="stable")
        names, first = np.unique(number[order], return_index=True)
        for name, rows in zip(names.tolist(), np.split(order, first[1:]), strict=len(names) > 0):
            if name < len(self.names):
                yield self.forests[name], name, rows

    def _routes(self, vectors: Grouped, find: Callable[[Forest, Vectors], list[Routes]]) -> list[Routes]:
        small = np.flatnonzero(self._number_of(vectors.group) == len(self.names))
        at_home = self.shared_leaf_of(vectors.group.take(small))
        # A vector of a small group has a home in the first tree only.
        trees = [[_homes(small, at_home)], *([_homes(small[:0], at_home[:0])] for _ in self.first_leaf[1:])]
        for forest, number, rows in self._large(vectors.group):
            for parts, first, found in zip(
                trees, self.first_leaf, find(forest, take_rows(vectors.vectors, rows)), strict=True
            ):
                parts.append((rows.take(found.row), found.leaf + first[number], found.margin, found.home))
        return [_routes_of(parts, len(vectors.group)) for parts in trees]

    def _distances(
        self, left: Grouped, i: np.ndarray, right: Grouped, j: np.ndarray, find: Callable[..., _Distances], ways: int
    ) -> _Distances:
        """Return leaves_nearer and margins of pairs of one group each: as in one leaf for small groups.

        ways : of the pairs in each tree
        """
        shape = len(i), ways * len(self.sizes)
        leaves_nearer, margins = np.zeros(shape, np.int32), np.full(shape, SAME_LEAF, np.float32)
        for forest, _, pairs in self._large(left.group.take(i)):
            # Of either side only the rows of this group are routed.
            ends = [np.unique(end.take(pairs), return_inverse=True) for end in (i, j)]
            some = [take_rows(side.vectors, rows) for side, (rows, _) in zip((left, right), ends, strict=True)]
            found = find(forest, some[0], ends[0][1].reshape(-1), some[1], ends[1][1].reshape(-1))
            leaves_nearer[pairs], margins[pairs] = found
        return leaves_nearer, margins


def _homes(rows: np.ndarray, leaves: np.ndarray) -> _Entries:
    """Return the entries of routes of vectors that have a home and visit no leaf."""
    return rows, leaves, np.zeros(len(rows), np.float32), np.ones(len(rows), bool)


def _routes_of(parts: list[_Entries], n_rows: int) -> Routes:
    """Return entries of the groups as the routes of a tree."""
    row, leaf, margin, home = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return Routes(
        n_rows=n_rows,
        row=row[order],
        leaf=leaf[order].astype(np.int32),
        margin=margin[order].astype(np.float32),
        home=home[order],
    )


def grow_grouped(
    sample: Grouped,
    large: dict[int, int],
    small_rows: int,
    count_leaves: Callable[[int], int],
    grow: Callable[[Vectors, int], Forest],
) -> GroupedForest:
    """Grow a forest from sampled vectors of groups.

    sample       : float32, prepared, in an order that is a function of the seed; at least one
    large        : the rows of each large group
    small_rows   : rows of all small groups together
    count_leaves : returns how many leaves so many rows should have
    grow         : grows the forest of a large group, from sampled vectors of it and the number of its rows

    A large group of which the sample has no vector is treated as a small one.
    """
    order = np.argsort(sample.group, kind="stable")
    names, first = np.unique(sample.group[order], return_index=True)
    rows_of = dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))
    grown = {
        name: grow(take_rows(sample.vectors, rows_of[name]), large[name]) for name in sorted(large) if name in rows_of
    }
    small_rows += sum(rows for name, rows in large.items() if name not in grown)
    # Queries may be of groups that no indexed row is of.  They go to a shared leaf, so there is always one.
    n_shared = count_leaves(small_rows) if small_rows else 1
    return GroupedForest(np.array(sorted(grown), np.int64), tuple(grown.values()), n_shared)
