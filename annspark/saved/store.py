"""The rows of a saved index, read leaf by leaf when they are asked for."""

import threading
from typing import Any

import numpy as np
import pyarrow as pa

from annspark.core.vectors import Vectors, slice_rows
from annspark.errors import InputError, reason_of
from annspark.saved.manifest import FIRST, Manifest
from annspark.saved.parts import open_part, read_batch


class Store:
    """The parts of an index.  Batches are opened when they are first asked for, and stay open.

    Any number of threads may ask at once.
    """

    def __init__(self, folder: str, manifest: Manifest):
        self._folder, self._manifest = folder, manifest
        self._leaf_starts = np.cumsum(manifest.leaf_rows) - manifest.leaf_rows
        self._batch_starts = np.cumsum(manifest.batch_rows) - manifest.batch_rows
        self._part_starts = np.cumsum(manifest.part_batches) - manifest.part_batches
        self._readers: dict[str, Any] = {}
        self._batches: dict[int, tuple[pa.Array, Vectors]] = {}
        self._lock = threading.Lock()

    def rows_of(self, leaf: int) -> tuple[pa.Array, Vectors]:
        """Return the ids and vectors of a leaf; dense vectors of a local file are not copied."""
        rows, start = int(self._manifest.leaf_rows[leaf]), int(self._leaf_starts[leaf])
        number = int(np.searchsorted(self._batch_starts, start, side="right")) - 1
        ids, vectors = self._batch(number)
        first = start - int(self._batch_starts[number])
        if first + rows > len(ids):
            raise InputError(
                f"index {self._folder!r}: leaf {leaf} is not where its manifest says. The files are damaged: save the "
                "index again, or copy the whole folder again."
            )
        return ids.slice(first, rows), slice_rows(vectors, first, first + rows)

    def first_rows(self) -> tuple[pa.Array, Vectors] | None:
        """Return the ids and vectors of the rows that every vector is compared with; None where there are none."""
        if not self._manifest.has_first:
            return None
        with self._lock:
            return self._read(FIRST, 0)

    def first_tree(self) -> list[tuple[pa.Array, int, int]]:
        """Return the ids of all rows, in pieces: ids of a batch that belong to the first tree, batch, first row."""
        rows = self._manifest.rows  # those of the first tree come first
        pieces = []
        for number, start in enumerate(self._batch_starts.tolist()):
            if start < rows:
                ids = self._batch(number)[0]
                pieces.append((ids.slice(0, min(len(ids), rows - start)), number, start))
        return pieces

    def vector_at(self, row: int) -> Vectors:
        """Return the vector of a row, counted through all batches, as one row."""
        number = int(np.searchsorted(self._batch_starts, row, side="right")) - 1
        first = row - int(self._batch_starts[number])
        return slice_rows(self._batch(number)[1], first, first + 1)

    def _batch(self, number: int) -> tuple[pa.Array, Vectors]:
        found = self._batches.get(number)
        if found is None:
            part = int(np.searchsorted(self._part_starts, number, side="right")) - 1
            with self._lock:
                found = self._read(self._manifest.parts[part], number - int(self._part_starts[part]))
                self._batches[number] = found
        return found

    def _read(self, name: str, number: int) -> tuple[pa.Array, Vectors]:
        manifest = self._manifest
        try:
            if name not in self._readers:
                self._readers[name] = open_part(f"{self._folder}/{name}")
            batch = self._readers[name].get_batch(number)
            ids, _, vectors = read_batch(batch, manifest.dim, sparse=manifest.sparse)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(
                f"index {self._folder!r}: its file {name!r} cannot be read ({reason_of(error)}). Copy the whole folder "
                "again, or save the index again."
            ) from error
        return ids, vectors
