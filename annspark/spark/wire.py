"""Wire: how the columns of blocks store vectors, dense or sparse."""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from annspark.core.vectors import Grouped, Vectors, is_sparse, sparse_rows, width_of
from annspark.spark.arrow import numbers, to_binary
from annspark.tables import COLUMNS, GROUPS, HASHES, N_VALUES, VECTORS


@dataclass(frozen=True)
class Wire:
    """The binary columns that store the vectors of a block.

    One column has the numbers of all vectors; its length tells whether they are float32 or float64.  Sparse rows have
    two more: the column of each number, and the number of values of each row (int32).

    Vectors of groups have one more, the group of each vector (int64).

    dim     : length of a dense vector; for sparse rows a number that is above all columns
    sparse  : whether vectors are sparse rows
    grouped : whether vectors have groups
    """

    dim: int
    sparse: bool = False
    grouped: bool = False

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [VECTORS, *([COLUMNS, N_VALUES] if self.sparse else []), *([GROUPS] if self.grouped else [])]

    @property
    def fields(self) -> list[T.StructField]:
        """The columns and their types."""
        return [T.StructField(name, T.BinaryType()) for name in self.names]

    def read(self, blocks: pa.RecordBatch | pa.Table) -> Vectors:
        """Return the vectors of all blocks: float64 if those of any block are, else float32.

        blocks : the columns of this record, and for dense vectors hashes, whose length tells the number of vectors
        """
        if self.grouped:
            return Grouped(replace(self, grouped=False).read(blocks), numbers(blocks[GROUPS], np.int64))
        if not self.sparse:
            rows = _sizes(blocks[HASHES]) // 8
            return _values(blocks[VECTORS], rows * self.dim).reshape(-1, self.dim)
        columns = numbers(blocks[COLUMNS], np.int32)
        values = _values(blocks[VECTORS], _sizes(blocks[COLUMNS]) // 4)
        return sparse_rows(numbers(blocks[N_VALUES], np.int32), columns, values, self.dim)

    def write(self, vectors: Vectors, lengths: np.ndarray) -> list[pa.Array]:
        """Pack vectors into columns, lengths[i] of them into block i."""
        if isinstance(vectors, Grouped):
            return [*self.write(vectors.vectors, lengths), to_binary(vectors.group, lengths)]
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
        """Return n vectors of length 0."""
        if self.grouped:
            return Grouped(replace(self, grouped=False).no_numbers(n), np.zeros(n, np.int64))
        if not self.sparse:
            return np.empty((n, 0), np.float32)
        return sparse_rows(np.zeros(n, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), 1)


def _sizes(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the number of bytes of every value, 0 for a null: int64 (n_blocks,)."""
    return pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)


def _values(column: pa.Array | pa.ChunkedArray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers of all blocks: float32, or float64 if those of any block are.

    counts : int (n_blocks,), how many numbers each block has
    """
    wide = _sizes(column) > 4 * counts
    if not wide.any():
        return numbers(column, np.float32)
    if wide[counts > 0].all():
        return numbers(column, np.float64)
    # A batch of the input is stored in float32 if that holds all its numbers.  Read each run of blocks of one type.
    cuts = np.flatnonzero(np.diff(wide)) + 1
    runs = zip([0, *cuts], [*cuts, len(wide)], strict=True)
    kinds = (np.float32, np.float64)
    parts = [numbers(column.slice(a, b - a), kinds[int(wide[a])]).astype(np.float64) for a, b in runs]
    return np.concatenate(parts)


def row_bytes(vectors: Vectors) -> int:
    """Return about how many bytes a vector takes in a block, with its hash and id."""
    return 4 * ceil(width_of(vectors)) + 16
