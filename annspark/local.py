"""Search in a saved index in this process, without Spark: one vector, or many."""

import os
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annspark.core.arrays import stretches
from annspark.core.metric import METRICS
from annspark.core.query_leaves import Extent
from annspark.core.search import (
    Query,
    TooLong,
    least,
    least_of_many,
    measure,
    published,
    queries_of,
    score_many,
    score_one,
    space_of,
)
from annspark.core.search_sparse import SparseQuery, nearest_rows, sparse_query_of
from annspark.core.vectors import Vectors, len_of, plain, slice_rows, take_rows
from annspark.errors import InputError, SettingsError
from annspark.saved.asked import asked_dense, asked_sparse, asked_weighted, names_columns
from annspark.saved.asked_groups import asked_groups
from annspark.saved.manifest import Manifest, find_index, manifest_as_text, read_manifest
from annspark.saved.parts import numbers_in
from annspark.saved.region import Held, Region, plain_ids, region_of_group, whole_region
from annspark.saved.store import Store

_FEW = 10  # so many vectors, given together, are still searched one by one
_AT_ONCE = 4096  # vectors that are routed together
_IN_FLIGHT = 1 << 23  # scores of vectors searched together: 32 MB

Found = tuple[np.ndarray, np.ndarray]


def open_index(path: str) -> "LocalIndex":
    """Open a saved index for searches in this process; Spark is not needed.

    Nothing but its manifest is read.  Vectors of a local index are mapped into memory when they are first compared, so
    that processes share them.

    path : folder of an index that annspark saved, local or on a file system that PyArrow knows

    Raises InputError where there is no index, or one that is newer than this annspark, damaged or not whole.
    """
    if not isinstance(path, str) or not path.strip():
        path_like = getattr(path, "__fspath__", None)
        if path_like is None:
            raise SettingsError(f"'path' is {path!r}; it must be the path of a folder.")
        path = str(path_like())
    folder = find_index(path)
    manifest = read_manifest(folder)
    return LocalIndex(path, manifest, Store(folder, manifest))


class LocalIndex:
    """A saved index, opened by open_index.  Any number of threads may search it at once."""

    def __init__(self, path: str, manifest: Manifest, store: Store):
        self._path, self._manifest, self._store = path, manifest, store
        self._coordinates = manifest.coordinates
        self._lock = threading.Lock()
        # A search of one vector is some sixty short calls of NumPy, each of which lets go of Python's lock and takes it
        # again.  Two threads that do so at once answer 40 % less than one alone, so they take turns.
        self._turn = threading.Lock() if _has_gil() else nullcontext()
        # The first of these that is there sets how many threads OpenBLAS has.
        told = (os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if name in os.environ)
        self._one_thread = next(told, "") == "1"
        self._by_id: tuple[Any, np.ndarray] | None = None
        probes = manifest.query.probes if manifest.query else manifest.settings.get("probes") or 1
        self._extent = Extent(float(probes), tuple(manifest.reach.tolist()))
        self._space = space_of(manifest.coordinates, manifest.dim, manifest.numbers)
        self._whole = None if manifest.grouped else whole_region(manifest, store, self._space)
        self._groups: dict[int, Region] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens it again, and maps the same files.
        return open_index, (self._path,)

    def __len__(self) -> int:
        return self._manifest.rows

    def __repr__(self) -> str:
        kind = "sparse" if self._manifest.sparse else "dense"
        return f"<LocalIndex {self._path!r}: {len(self):,} {kind} vectors, {self.metric}>"

    @property
    def metric(self) -> str:
        """How vectors are compared."""
        return self._manifest.metric

    @property
    def dim(self) -> int:
        """How many numbers a vector has; of sparse rows one more than the largest column."""
        return self._manifest.dim

    @property
    def manifest(self) -> Manifest:
        """What is known of the index without reading vectors."""
        return self._manifest

    def info(self) -> str:
        """Return some lines for a person: what the index holds, and what recall is expected of it."""
        return manifest_as_text(self._manifest)

    def search(self, vectors: Any, k: int = 10, probes: int | None = None, within: Any = None) -> Found:
        """Return the ids of the k nearest vectors of the index, and their distances, nearest first, ties by id.

        vectors : one vector, or several.  Dense ones as an array or list of dim numbers, or of n rows of them.  Sparse
                  ones as {column: number} or a list of them, or as rows of scipy.sparse; for jaccard as sets or lists
                  of members or a list of those.  Bits also as bytes, 8 to a byte.  An index of several vector columns
                  also takes {name of a column: its vector or vectors}, with all of its columns
        k       : how many neighbors; all vectors where the index holds fewer
        probes  : how many leaves of each tree to search; without it as many as the recall needs that the index was
                  calibrated for
        within  : for an index of groups, the group that is searched: the value of its column, or {column: value}; for
                  several vectors a list of values, or {column: list of values}.  Values are texts, whole numbers,
                  booleans, dates, or None for null; any other as the text that Spark casts it to.  Null of a single
                  column is given as {column: None}
        returns : ids (m,) and float32 distances (m,) for one vector, (n, m) for several; m is k, or the number of
                  vectors in the index if that is less.  Ids are int64, or of type object where they are no integers.
                  Under inner_product the products come in place of distances, the largest first.  Where the group of
                  one vector has fewer than m, there are as many as it has, and none for an unknown group.  For several
                  vectors the rest of the row has the id -1, or None for type object, and the distance inf (the product
                  -inf)

        Raises InputError for vectors and groups that do not fit the index, SettingsError for k and probes.
        """
        _require_whole("k", k)
        extent = self._extent
        if probes is not None:
            _require_whole("probes", probes)
            extent = Extent(float(probes), None)
        m = min(int(k), len(self))
        if names_columns(vectors, self._manifest.weights):
            asked, single = asked_weighted(vectors, self._manifest)
        else:
            read = asked_sparse if self._manifest.sparse else asked_dense
            asked, single = read(vectors, self.dim, self.metric)
        groups = asked_groups(within, self._manifest, len_of(asked), single=single)
        if groups is None or single:
            region = self._whole if groups is None else self._region_of(int(groups[0]))
            assert region is not None
            ids, distances = self._search_region(region, asked, np.arange(len_of(asked)), m, extent)
        else:
            ids, distances = self._search_groups(asked, groups, m, extent)
        if single:
            ids, distances = ids[0], distances[0]
        return ids, published(distances, self._coordinates)

    def _search_groups(self, asked: Vectors, groups: np.ndarray, m: int, extent: Extent) -> Found:
        """Return what search returns for several vectors, each of a group: int64 (n,)."""
        shape, kind = (len(groups), m), self._kind_of_ids
        ids = np.full(shape, -1 if kind is np.int64 else None, kind)
        distances = np.full(shape, np.inf, np.float32)
        order = np.argsort(groups, kind="stable")
        for numbers in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            if len(numbers):
                region = self._region_of(int(groups[numbers[0]]))
                found = self._search_region(region, take_rows(asked, numbers), numbers, m, extent)
                for part, of_group in zip((ids, distances), found, strict=True):
                    part[numbers, : of_group.shape[1]] = of_group
        return ids, distances

    def _search_region(self, region: Region, asked: Vectors, numbers: np.ndarray, m: int, extent: Extent) -> Found:
        """Return the m nearest vectors of a region, or all that it has: (n, m) each.

        numbers : int (n,), the numbers of the vectors, for messages
        """
        m, n = min(m, region.rows), len(numbers)
        if m == 0 or n == 0:
            return np.empty((n, m), self._kind_of_ids), np.empty((n, m), np.float32)
        if self._manifest.sparse:
            rows = (slice_rows(asked, row, row + 1) for row in range(n))
            found = [self._search_sparse(region, *one, m, extent) for one in zip(rows, numbers, strict=True)]
        elif n <= _FEW:
            found = []
            for row in range(n):
                with self._turn:
                    found.append(self._search_one(region, asked[row : row + 1], numbers[row : row + 1], m, extent))
        else:
            found = list(self._search_many(region, asked, numbers, m, extent))
        if len(found) == 1:
            ids, distances = found[0]
            return ids.reshape(n, m), distances.reshape(n, m)
        ids, distances = (np.vstack(part) for part in zip(*found, strict=True))
        return ids, distances

    def _region_of(self, group: int) -> Region:
        """Return the rows of a group; of a group that the index does not have there are none."""
        found = self._groups.get(group)
        if found is None:
            found = region_of_group(self._manifest, self._store, self._space, group)
            if found.rows:  # callers may ask for any number of unknown groups
                self._groups[group] = found
        return found

    def vector(self, id: Any) -> Any:
        """Return the vector of an id, as it was in the input: an array, {column: number}, or a set for jaccard.

        Where several vector columns were put together, it is the vector made of them.
        Raises KeyError where the index does not hold the id.
        """
        if self._by_id is None:
            with self._lock:
                if self._by_id is None:
                    self._by_id = self._sort_ids()
        ids, rows = self._by_id
        place = _find(ids, id)
        if place < 0:
            raise KeyError(id)
        found = plain(self._store.vector_at(int(rows[place])))
        if not self._manifest.sparse:
            return found[0].copy()
        columns = found.indices.tolist()
        return set(columns) if METRICS[self.metric].sets else dict(zip(columns, found.data.tolist(), strict=True))

    def _sort_ids(self) -> tuple[Any, np.ndarray]:
        """Return all ids in ascending order, and the row of each, counted through all batches: int64 (n,)."""
        pieces = self._store.first_tree()
        ids = [plain_ids(some) for some, _, _ in pieces]
        rows = np.concatenate([np.arange(start, start + len(some)) for some, _, start in pieces])
        if all(isinstance(some, np.ndarray) for some in ids):
            numbers = np.concatenate(ids)
            order = np.argsort(numbers, kind="stable")
            return numbers[order], rows[order]
        together = pa.chunked_array([some for some, _, _ in pieces]).combine_chunks()
        order = pc.sort_indices(together)
        return together.take(order), rows[numbers_in(order)]

    @cached_property
    def _kind_of_ids(self) -> Any:
        ids, _ = self._store.rows_of(int(np.argmax(self._manifest.leaf_rows)))
        return np.int64 if pa.types.is_integer(ids.type) else object

    def _search_one(self, region: Region, vector: np.ndarray, number: np.ndarray, m: int, extent: Extent) -> Found:
        space = self._space
        query = self._queries(vector, number)[0]
        held = region.leaves(region.leaves_of_one(query.routed, extent, m)) + region.first()
        leaves = [one.leaf for one in held]
        scores = score_one(query, leaves, space)
        near = least(scores, m * region.copies, query, max([leaf.longest for leaf in leaves]), space)
        begins, at = [], 0
        for leaf in leaves:
            begins.append(at)
            at += len(leaf.values)
        places = _places(near, begins)
        vectors = np.empty((len(places), self.dim), leaves[0].vectors.dtype)
        for to, (leaf, at) in enumerate(places):
            vectors[to] = leaves[leaf].vectors[at]
        distances = measure(query.joined, np.zeros(len(places), np.intp), vectors, space)
        return self._nearest(held, places, distances, m)

    def _search_many(
        self, region: Region, vectors: np.ndarray, numbers: np.ndarray, m: int, extent: Extent
    ) -> Iterator[Found]:
        """Yield what _search_one returns for each vector, many at a time.

        A leaf is multiplied by all vectors that go to it at once.  Calls of NumPy on large blocks also leave Python's
        lock to other threads for longer.
        """
        for start in range(0, len(vectors), _AT_ONCE):
            queries = self._queries(vectors[start : start + _AT_ONCE], numbers[start : start + _AT_ONCE])
            routed = np.stack([query.routed for query in queries])
            asker, number = region.leaves_of_many(routed, extent, m)
            rows = np.bincount(asker, region.leaf_rows.take(number), minlength=len(queries))
            for first, last in stretches(rows, _IN_FLIGHT):
                here = slice(*np.searchsorted(asker, (first, last)))
                yield self._search_together(region, queries[first:last], asker[here] - first, number[here], m)

    def _search_together(
        self, region: Region, queries: Sequence[Query], asker: np.ndarray, number: np.ndarray, m: int
    ) -> Found:
        """Return what _search_one returns for each query, one below the other.

        asker  : int (n_pairs,), a query, ascending
        number : int (n_pairs,), a leaf with rows that it goes to
        """
        space = self._space
        order = np.argsort(number, kind="stable")
        asker, number = asker[order], number[order]
        numbers, counts = np.unique(number, return_counts=True)
        held = region.leaves(numbers) + region.first()
        if len(held) > len(numbers):
            asker = np.concatenate([asker, np.arange(len(queries))])
            counts = np.append(counts, len(queries))
        leaves = [one.leaf for one in held]
        cuts = np.concatenate([[0], np.cumsum(counts)])
        scores, begins = score_many(queries, asker, leaves, cuts, space, one_thread=self._one_thread)
        longest = np.zeros(len(queries))
        np.maximum.at(longest, asker, np.repeat([leaf.longest for leaf in leaves], counts))
        near = least_of_many(scores, begins, asker, m * region.copies, queries, longest, space)
        pair = np.searchsorted(begins, near, side="right") - 1
        of_leaf = np.searchsorted(pair, cuts).tolist()
        asker, at = asker.take(pair), near - begins.take(pair)
        vectors = np.empty((len(near), self.dim), leaves[0].vectors.dtype)
        ids = np.empty(len(near), self._kind_of_ids)
        for one, start, end in zip(held, of_leaf[:-1], of_leaf[1:], strict=True):
            if start < end:
                one.leaf.vectors.take(at[start:end], axis=0, out=vectors[start:end], mode="clip")
                ids[start:end] = _take_ids(one.ids, at[start:end])
        joined = np.concatenate([query.joined for query in queries])
        return _sorted_by_query(asker, ids, measure(joined, asker, vectors, space), m)

    def _queries(self, vectors: np.ndarray, numbers: np.ndarray) -> list[Query]:
        try:
            return queries_of(vectors, self._space)
        except TooLong as error:
            raise InputError(_too_long(int(numbers[error.args[0]]))) from error

    def _search_sparse(self, region: Region, row: Vectors, number: int, m: int, extent: Extent) -> Found:
        try:
            query = sparse_query_of(row, self._coordinates)
        except TooLong as error:
            raise InputError(_too_long(number)) from error
        held = region.leaves(region.leaves_of_one(query.routed, extent, m)) + region.first()
        found = self._compare_sparse(query, held, m, region.copies) if held else None
        if found is not None and len(found[0]) == m:
            return found
        # It is related to too few, and more are wanted than there are first rows: it is compared with all rows.
        pieces = [self._compare_sparse(query, some, m, 1) for some in region.pieces()]
        ids, values = (np.concatenate(part) for part in zip(*pieces, strict=True))
        return _sorted(ids, values, m)

    def _compare_sparse(self, query: SparseQuery, held: Sequence[Held], m: int, copies: int) -> Found:
        leaves = [one.leaf for one in held]
        near, distances = nearest_rows(query, leaves, m * copies, self._coordinates)
        begins = np.cumsum([0, *(len(leaf.counts) for leaf in leaves[:-1])]).tolist()
        return self._nearest(held, _places(near, begins), distances, m)

    def _nearest(self, held: Sequence[Held], places: Sequence[tuple[int, int]], distances: np.ndarray, m: int) -> Found:
        """Return ids and distances of the m nearest of some rows, each once.

        places    : a leaf and a row of it, n times
        distances : float32 (n,)
        """
        if isinstance(held[0].ids, np.ndarray):
            ids = np.array([held[leaf].ids[at] for leaf, at in places], np.int64)
        else:
            ids = np.empty(len(places), object)
            ids[:] = [held[leaf].ids[at].as_py() for leaf, at in places]
        return _sorted(ids, distances, m)


def _sorted(ids: np.ndarray, distances: np.ndarray, m: int) -> Found:
    """Return the m nearest ids, each once, by (distance, id), and their distances.

    distances : float32 (n,), the smaller the nearer; copies of a row have the same
    """
    if ids.dtype == object:
        keys = distances.tolist()
        order = np.array(sorted(range(len(ids)), key=lambda at: (keys[at], ids[at])), np.intp)
    else:
        order = np.lexsort((ids, distances))
    ids, distances = ids[order], distances[order]
    again = ids[1:] == ids[:-1]
    if again.any():
        new = np.append(True, ~again)
        ids, distances = ids[new], distances[new]
    return ids[:m], distances[:m]


def _sorted_by_query(asker: np.ndarray, ids: np.ndarray, distances: np.ndarray, m: int) -> Found:
    """Return what _sorted returns for the rows of each query, one below the other: (n_queries, m) each.

    asker : int (n,), a query; each of them has m different ids or more
    """
    if ids.dtype == object:
        order = np.argsort(asker, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(asker.take(order))) + 1)
        found = [_sorted(ids[part], distances[part], m) for part in parts]
        return np.stack([some for some, _ in found]), np.stack([some for _, some in found])
    order = np.lexsort((ids, distances, asker))
    asker, ids, distances = asker.take(order), ids.take(order), distances.take(order)
    new = np.ones(len(ids), bool)
    new[1:] = (ids[1:] != ids[:-1]) | (asker[1:] != asker[:-1])
    asker, ids, distances = asker[new], ids[new], distances[new]
    begins = np.flatnonzero(np.diff(asker, prepend=-1))
    first = begins[:, None] + np.arange(m)
    return ids.take(first), distances.take(first)


def _places(rows: np.ndarray, begins: list[int]) -> list[tuple[int, int]]:
    """Return the leaf of each row, and its place in the leaf.

    rows   : int (n,), counted through some leaves
    begins : the first row of each leaf; none is empty
    """
    leaves = [bisect_right(begins, row) - 1 for row in rows.tolist()]
    return [(leaf, row - begins[leaf]) for leaf, row in zip(leaves, rows.tolist(), strict=True)]


def _take_ids(ids: Any, at: np.ndarray) -> Any:
    """Return some ids of a leaf: int64 (n,), or a list of Python's values."""
    return ids.take(at) if isinstance(ids, np.ndarray) else ids.take(pa.array(at)).to_pylist()


def _find(ids: Any, wanted: Any) -> int:
    """Return the place of an id among ascending ones, -1 where it is not there."""
    if isinstance(ids, np.ndarray):
        if isinstance(wanted, (bool, np.bool_)) or not isinstance(wanted, (int, np.integer)):
            return -1
        if not -(2**63) <= wanted < 2**63:
            return -1
        place = int(np.searchsorted(ids, np.int64(wanted)))
        return place if place < len(ids) and ids[place] == wanted else -1
    try:
        key = pa.scalar(wanted, ids.type).as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return -1
    if key is None:
        return -1
    place = bisect_left(range(len(ids)), key, key=lambda at: ids[at].as_py())
    return place if place < len(ids) and ids[place].as_py() == key else -1


def _has_gil() -> bool:
    """Return whether only one thread at a time runs Python's code: always before Python 3.13."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _require_whole(name: str, value: Any) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or value < 1:
        raise SettingsError(f"{name!r} is {value!r}; it must be a whole number, 1 or more.")


def _too_long(row: int) -> str:
    return (
        f"vectors: row {row} is so long that distances to it are beyond what float32 holds. Give vectors of about the "
        "lengths of those in the index."
    )
