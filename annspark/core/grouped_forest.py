"""The forest of groups: vectors may only be neighbors within their group, and each large group has a tree of its own.

A small group needs no tree.  All of it is at home in one leaf, which other small groups share.  So its neighbors are
exact, and half a million groups of three cost no more than a thousand leaves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from annspark.core.boundaries import most_leaves
from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.plan import count_leaves
from annspark.core.routes import SAME_LEAF, Routes
from annspark.core.vectors import Grouped

LARGE = 4  # a group of so many times the rows of a leaf has a tree
_Distances = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class GroupedForest:
    """One tree of leaves.  First come the leaves of each large group in turn, then those that small groups share.

    names    : int64 (n_large,), ascending, the large groups
    forests  : the forest of each large group, of one tree
    n_shared : leaves that small groups share
    """

    names: np.ndarray
    forests: tuple[CentreForest, ...]
    n_shared: int

    @cached_property
    def first_leaf(self) -> np.ndarray:
        """The first leaf of each large group, and the first of the shared ones: int (n_large + 1,)."""
        return np.cumsum([0, *(forest.sizes[0] for forest in self.forests)])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of leaves."""
        return (int(self.first_leaf[-1]) + self.n_shared,)

    @property
    def gains_by_trees(self) -> bool:
        """False: there is one tree."""
        return False

    def first(self, n_trees: int) -> "GroupedForest":
        """Return this forest, which has a single tree."""
        return self

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
        return self._distances(queries, i, rows, j, CentreForest.find_query_distances, 1)

    def find_home_distances(self, left: Grouped, i: np.ndarray, right: Grouped, j: np.ndarray) -> _Distances:
        """Return leaves_nearer and margins of left[i] and right[j], see Forest."""
        return self._distances(left, i, right, j, CentreForest.find_home_distances, 2)

    def are_hubs(self, vectors: Grouped) -> np.ndarray:
        """Return which vectors are hubs of their group: bool (n,)."""
        hubs = np.zeros(len(vectors.group), bool)
        for number, rows in self._large(vectors.group):
            hubs[rows] = self.forests[number].are_hubs(vectors.vectors.take(rows, axis=0))
        return hubs

    def most_probes(self, sample: Grouped) -> float:
        """Return how many leaves vectors like the sampled ones can go to on average."""
        number = self._number_of(sample.group)
        return float(np.append(np.diff(self.first_leaf), 1)[number].mean())

    def most_leaves(self, probes: float) -> int:
        """Return how many leaves a vector may go to at most, when it goes to probes leaves on average."""
        return most_leaves(probes, max([1, *np.diff(self.first_leaf).tolist()]))

    def _number_of(self, group: np.ndarray) -> np.ndarray:
        """Return the number of the large group of each vector, len(names) for small groups: int (n,)."""
        if len(self.names) == 0:
            return np.zeros(len(group), np.int64)
        place = np.searchsorted(self.names, group).clip(max=len(self.names) - 1)
        return np.where(self.names[place] == group, place, len(self.names))

    def _large(self, group: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the large groups that vectors are of: number, and int (n_rows,), ascending, the vectors."""
        number = self._number_of(group)
        order = np.argsort(number, kind="stable")
        names, first = np.unique(number[order], return_index=True)
        for name, rows in zip(names.tolist(), np.split(order, first[1:]), strict=len(names) > 0):
            if name < len(self.names):
                yield name, rows

    def _routes(self, vectors: Grouped, find: Callable[[CentreForest, np.ndarray], list[Routes]]) -> list[Routes]:
        small = np.flatnonzero(self._number_of(vectors.group) == len(self.names))
        shared = vectors.group.take(small).view(np.uint64) % np.uint64(max(1, self.n_shared))
        parts = [_homes(small, shared.astype(np.int64) + self.first_leaf[-1])]
        for number, rows in self._large(vectors.group):
            (found,) = find(self.forests[number], vectors.vectors.take(rows, axis=0))
            parts.append((rows.take(found.row), found.leaf + self.first_leaf[number], found.margin, found.home))
        row, leaf, margin, home = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")
        return [
            Routes(
                n_rows=len(vectors.group),
                row=row[order],
                leaf=leaf[order].astype(np.int32),
                margin=margin[order].astype(np.float32),
                home=home[order],
            )
        ]

    def _distances(
        self,
        left: Grouped,
        i: np.ndarray,
        right: Grouped,
        j: np.ndarray,
        find: Callable[[CentreForest, np.ndarray, np.ndarray, np.ndarray, np.ndarray], _Distances],
        ways: int,
    ) -> _Distances:
        """Return leaves_nearer and margins of pairs of one group each: as in one leaf for small groups."""
        leaves_nearer = np.zeros((len(i), ways), np.int32)
        margins = np.full((len(i), ways), SAME_LEAF, np.float32)
        for number, pairs in self._large(left.group.take(i)):
            found = find(self.forests[number], left.vectors, i.take(pairs), right.vectors, j.take(pairs))
            leaves_nearer[pairs], margins[pairs] = found
        return leaves_nearer, margins


def _homes(rows: np.ndarray, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the entries of routes of vectors that have a home and visit no leaf: row, leaf, margin, home."""
    return rows, leaves, np.zeros(len(rows), np.float32), np.ones(len(rows), bool)


def grow_grouped(
    sample: Grouped,
    large: dict[int, int],
    small_rows: int,
    *,
    leaf_rows: int,
    k: int,
    split: str,
    seed: int,
    metric: str,
) -> GroupedForest:
    """Grow a forest from sampled vectors of groups.

    sample     : float32, prepared, in an order that is a function of the seed; at least one
    large      : the rows of each large group
    small_rows : rows of all small groups together
    leaf_rows  : rows of a leaf, as for count_leaves; k too
    split, seed, metric : as for grow_forest

    A large group of which the sample has no vector is treated as a small one.
    """
    order = np.argsort(sample.group, kind="stable")
    names, first = np.unique(sample.group[order], return_index=True)
    rows_of = dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))
    grown = {
        name: grow_forest(
            sample.vectors.take(rows_of[name], axis=0),
            count_leaves(large[name], leaf_rows, k),
            trees=1,
            split=split,
            seed=seed,
            metric=metric,
        )
        for name in sorted(large)
        if name in rows_of
    }
    small_rows += sum(rows for name, rows in large.items() if name not in grown)
    n_shared = count_leaves(small_rows, leaf_rows, k) if small_rows or not grown else 0
    # Queries may be of groups that no indexed row is of; they go to a leaf, and find nobody there.
    return GroupedForest(
        np.array(sorted(grown), np.int64), tuple(grown[name] for name in sorted(grown)), max(1, n_shared)
    )
