"""Wire: how vectors travel in the columns of blocks, dense or sparse."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from annspark.core.vectors import Vectors, is_sparse, sparse_rows, width_of
from annspark.spark.arrow import numbers, to_binary
from annspark.tables import COLUMNS, HASHES, N_VALUES, VECTORS


@dataclass(frozen=True)
class Wire:
    """Binary columns: the numbers of all vectors of a block, float32 or float64, as their lengths tell; of sparse rows
    also the columns of the numbers and how many each row has (int32).

    dim : numbers of a dense vector; of sparse rows a bound that all columns are below
    """

    dim: int
    sparse: bool = False

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [VECTORS, COLUMNS, N_VALUES] if self.sparse else [VECTORS]

    @property
    def fields(self) -> list[T.StructField]:
        """The columns and their types."""
        return [T.StructField(name, T.BinaryType()) for name in self.names]

    def read(self, blocks: pa.RecordBatch | pa.Table) -> Vectors:
        """Return the vectors of all blocks, which have hashes too: float64 if the numbers of any block are."""
        if not self.sparse:
            rows = _sizes(blocks[HASHES]) // 8
            return _values(blocks[VECTORS], rows * self.dim).reshape(-1, self.dim)
        columns = numbers(blocks[COLUMNS], np.int32)
        values = _values(blocks[VECTORS], _sizes(blocks[COLUMNS]) // 4)
        return sparse_rows(numbers(blocks[N_VALUES], np.int32), columns, values, self.dim)

    def write(self, vectors: Vectors, lengths: np.ndarray) -> list[pa.Array]:
        """Pack vectors, lengths[i] of them in block i."""
        if not is_sparse(vectors):
            return [to_binary(vectors, lengths * vectors.shape[1])]
        counts = np.diff(vectors.indptr).astype(np.int32)
        ends = vectors.indptr[np.cumsum(lengths)]
        per_block = np.diff(ends, prepend=0)
        return [
            to_binary(vectors.data, per_block),
            to_binary(vectors.indices.astype(np.int32, copy=False), per_block),
            to_binary(counts, lengths),
        ]

    def no_numbers(self, n: int) -> Vectors:
        """Return vectors without numbers."""
        if not self.sparse:
            return np.empty((n, 0), np.float32)
        return sparse_rows(np.zeros(n, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), 1)


def _sizes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return how many bytes every value has: int64 (n_blocks,)."""
    return pc.binary_length(column).to_numpy().astype(np.int64)


def _values(column: pa.Array | pa.ChunkedArray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers of blocks that hold so many each: float32, or float64 if those of any block are."""
    wide = _sizes(column) > 4 * counts
    if not wide.any():
        return numbers(column, np.float32)
    if wide[counts > 0].all():
        return numbers(column, np.float64)
    # Runs of blocks of one kind: a batch of the input whose numbers all fit float32 is stored in that.
    cuts = np.flatnonzero(np.diff(wide)) + 1
    runs = zip([0, *cuts], [*cuts, len(wide)], strict=True)
    kinds = (np.float32, np.float64)
    parts = [numbers(column.slice(a, b - a), kinds[int(wide[a])]).astype(np.float64) for a, b in runs]
    return np.concatenate(parts)


def row_bytes(vectors: Vectors) -> int:
    """Return about how many bytes a vector brings, its hash and more included."""
    return 4 * ceil(width_of(vectors)) + 16
