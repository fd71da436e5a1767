"""The rows that a vector is compared with: all of a saved index, or those of a group."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from annspark.core.arrays import stretches
from annspark.core.centre_forest import CentreForest
from annspark.core.column_forest import ColumnForest
from annspark.core.grouped_forest import GroupedForest
from annspark.core.query_leaves import Extent, centre_router, column_leaves
from annspark.core.search import Leaf, Space, leaf_of
from annspark.core.search_sparse import SparseLeaf, sparse_leaf_of
from annspark.core.vectors import Vectors, is_sparse, plain, take_rows
from annspark.saved.manifest import Manifest
from annspark.saved.parts import numbers_in
from annspark.saved.store import Store

_SCANNED = 1 << 16  # rows yielded at once where all are
_Rows = tuple[pa.Array, Vectors]  # ids, and vectors as in the input


@dataclass(frozen=True, slots=True)
class Held:
    """A leaf that was searched before, with the ids of its rows: int64, or as Arrow has them."""

    leaf: Any
    ids: Any


class Region:
    """Rows in leaves, which are numbered through all trees.  A leaf is read at first, and kept.

    leaf_rows : int64 (n_leaves,), rows of each leaf
    rows      : number of rows
    """

    def __init__(
        self,
        forest: CentreForest | ColumnForest | None,
        leaf_rows: np.ndarray,
        read: Callable[[int], _Rows],
        read_first: Callable[[], _Rows | None],
        space: Space,
    ):
        """Make a region.

        forest     : None where there is only one leaf, to which every vector goes
        read       : reads a leaf
        read_first : reads the rows that every vector is compared with; returns None where there are none
        """
        self._forest, self.leaf_rows = forest, leaf_rows
        self._first_tree = forest.sizes[0] if forest else 1
        self.rows = int(leaf_rows[: self._first_tree].sum())
        self._read, self._read_first, self._space = read, read_first, space
        self._router = centre_router(forest, leaf_rows) if isinstance(forest, CentreForest) else None
        self._held: list[Held | None] = [None] * len(leaf_rows)
        self._first: list[Held] | None = None

    @property
    def copies(self) -> int:
        """How often a row may be met: once a tree, and once more among the first rows."""
        return (len(self._forest.sizes) if self._forest else 1) + len(self.first())

    def leaves_of_one(self, routed: Any, extent: Extent, m: int) -> np.ndarray:
        """Return the leaves that a vector goes to: int (n,).

        routed : prepared for routing
        m      : rows that the leaves of a dense vector hold together at least
        """
        if self._router is not None:
            return self._router.leaves_of_one(routed, extent, m)
        if isinstance(self._forest, ColumnForest):
            return column_leaves(self._forest, routed, extent)
        return np.zeros(1, np.int64)

    def leaves_of_many(self, routed: np.ndarray, extent: Extent, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the leaves with rows that dense vectors go to: int (n_pairs,) each, vectors, ascending, and leaves."""
        if self._router is None:
            return np.arange(len(routed)), np.zeros(len(routed), np.int64)
        asker, number = self._router.leaves_of_many(routed, extent, m)
        some = self.leaf_rows.take(number) > 0
        return asker[some], number[some]

    def leaves(self, numbers: np.ndarray) -> list[Held]:
        """Return those of some leaves that have rows."""
        held, rows = self._held, self.leaf_rows
        return [held[number] or self._holding(number) for number in numbers.tolist() if rows[number]]

    def _holding(self, number: int) -> Held:
        # Two threads may both read it, and one of the two is kept.
        held = self._held[number] = _hold(*self._read(number), self._space)
        return held

    def first(self) -> list[Held]:
        """Return the rows that every vector is compared with, as one leaf or none."""
        if self._first is None:
            found = self._read_first()
            self._first = [_hold(*found, self._space)] if found else []
        return self._first

    def pieces(self) -> Iterator[list[Held]]:
        """Yield the leaves of all rows, some at a time."""
        with_rows = np.flatnonzero(self.leaf_rows[: self._first_tree])
        for start, end in stretches(self.leaf_rows[with_rows], _SCANNED):
            yield self.leaves(with_rows[start:end])


def _hold(ids: pa.Array, vectors: Vectors, space: Space) -> Held:
    rows = plain(vectors)
    made: Leaf | SparseLeaf = sparse_leaf_of(rows, space.coordinates) if is_sparse(rows) else leaf_of(rows, space)
    return Held(leaf=made, ids=plain_ids(ids))


def plain_ids(ids: pa.Array) -> Any:
    """Return integers as int64 (n,), other ids as they are."""
    return numbers_in(ids).astype(np.int64, copy=False) if pa.types.is_integer(ids.type) else ids


def whole_region(manifest: Manifest, store: Store, space: Space) -> Region:
    """Return all rows of an index without groups; none is read."""
    assert not isinstance(manifest.forest, GroupedForest)
    forest: Any = manifest.forest
    return Region(forest, manifest.leaf_rows, store.rows_of, store.first_rows, space)


def region_of_group(manifest: Manifest, store: Store, space: Space, group: int) -> Region:
    """Return the rows of a group: of a large one none is read; of an unknown one there are none."""
    forest, leaf_rows = manifest.forest, manifest.leaf_rows
    assert isinstance(forest, GroupedForest)
    number = forest.number_of(group)
    if number is None:
        return _small_group(forest, leaf_rows, store, space, group)
    of_group: Any = forest.forests[number]
    leaves = forest.leaves_of(number)

    def read(leaf: int) -> _Rows:
        return store.rows_of(int(leaves[leaf]))

    return Region(of_group, leaf_rows[leaves], read, partial(_first_of_group, store, group), space)


def _small_group(forest: GroupedForest, leaf_rows: np.ndarray, store: Store, space: Space, group: int) -> Region:
    """Return the rows of a small group, which are among those of other groups in one leaf."""
    leaf = int(forest.shared_leaf_of(np.array([group]))[0])
    if leaf_rows[leaf] == 0:
        return Region(None, leaf_rows[[leaf]], store.rows_of, lambda: None, space)
    found = _rows_of_group(*store.rows_of(leaf), group)
    return Region(None, np.array([len(found[0])]), lambda _: found, lambda: None, space)


def _first_of_group(store: Store, group: int) -> _Rows | None:
    found = store.first_rows()
    found = _rows_of_group(*found, group) if found else None
    return found if found and len(found[0]) else None


def _rows_of_group(ids: pa.Array, vectors: Vectors, group: int) -> _Rows:
    row = np.flatnonzero(vectors.group == group)
    return ids.take(pa.array(row)), take_rows(vectors, row)
