"""The parts of a saved index: Arrow files of rows, leaf after leaf."""

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from annspark.core.vectors import (
    Grouped,
    Slices,
    Vectors,
    concatenate_rows,
    groups_of,
    is_sparse,
    plain,
    sparse_rows,
)
from annspark.filesystem import open_place

BATCH_ROWS = 512  # a batch takes further leaves until it has so many rows
_GROUP = "group"


def part_schema(id_type: pa.DataType, dim: int, numbers: str, *, sparse: bool, grouped: bool = False) -> pa.Schema:
    """Return the columns of a part.

    id_type : of the ids
    dim     : numbers of a dense vector
    numbers : "float32" or "float64", the type of stored numbers
    grouped : whether rows have groups
    """
    number = pa.float64() if numbers == "float64" else pa.float32()
    if sparse:
        kept = [("columns", pa.list_(pa.int32())), ("values", pa.list_(number))]
    else:
        kept = [("vector", pa.list_(number, dim))]
    return pa.schema([("id", id_type), ("hash", pa.int64()), *kept, *([(_GROUP, pa.int64())] if grouped else [])])


def write_part(
    path: str, leaf: np.ndarray, ids: pa.Array, hashes: np.ndarray, vectors: Slices, numbers: str
) -> np.ndarray:
    """Write the rows of some leaves as one Arrow file, and return how many rows each of its batches has.

    A batch holds whole leaves: one, or several until it has about BATCH_ROWS rows.

    leaf    : int (n,), ascending
    ids     : n of any type
    hashes  : int64 (n,)
    vectors : n, as in the input, dense or sparse; asked for batch by batch
    numbers : "float32" or "float64", the type in which numbers are stored
    returns : int64 (n_batches,)
    """
    cuts = _cuts_of(leaf)
    none = vectors(0, 0)
    dim, grouped = int(none.shape[1]), isinstance(none, Grouped)
    schema = part_schema(ids.type, dim, numbers, sparse=is_sparse(none), grouped=grouped)
    system, inside = open_place(path)
    with system.open_output_stream(inside) as stream, pa.ipc.new_file(stream, schema) as writer:
        for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            columns = _columns_of(vectors(start, end), numbers)
            hashed = pa.array(hashes[start:end].astype(np.int64, copy=False))
            arrays = [ids.slice(start, end - start), hashed, *columns]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return np.diff(cuts)


def _cuts_of(leaf: np.ndarray) -> np.ndarray:
    """Return where batches begin, and where the last one ends: int64 (n_batches + 1,)."""
    ends = np.append(np.flatnonzero(np.diff(leaf)) + 1, len(leaf)) if len(leaf) else np.zeros(0, np.int64)
    cuts = [0]
    while cuts[-1] < len(leaf):
        # The last end within the limit, or that of the next leaf where it alone is above the limit.
        at = int(np.searchsorted(ends, cuts[-1] + BATCH_ROWS, side="right")) - 1
        following = int(np.searchsorted(ends, cuts[-1], side="right"))
        cuts.append(int(ends[max(at, following)]))
    return np.array(cuts, np.int64)


def _columns_of(vectors: Vectors, numbers: str) -> list[pa.Array]:
    kind, group, vectors = np.float64 if numbers == "float64" else np.float32, groups_of(vectors), plain(vectors)
    last = [] if group is None else [pa.array(group)]
    if not is_sparse(vectors):
        flat = pa.array(np.ascontiguousarray(vectors, kind).ravel())
        return [pa.FixedSizeListArray.from_arrays(flat, int(vectors.shape[1])), *last]
    ends = pa.array(vectors.indptr.astype(np.int32))
    columns, values = (
        pa.array(part.astype(type_, copy=False)) for part, type_ in ((vectors.indices, np.int32), (vectors.data, kind))
    )
    return [pa.ListArray.from_arrays(ends, columns), pa.ListArray.from_arrays(ends, values), *last]


def open_part(path: str) -> Any:
    """Return a reader of a part, pyarrow.ipc.RecordBatchFileReader; nothing but its footer is read.

    A local file is mapped into memory.  Of any other file each batch is read when it is asked for.
    """
    system, inside = open_place(path)
    local = isinstance(system, fs.LocalFileSystem)
    return pa.ipc.open_file(pa.memory_map(inside) if local else system.open_input_file(inside))


def read_batch(batch: pa.RecordBatch, dim: int, *, sparse: bool) -> tuple[pa.Array, np.ndarray, Vectors]:
    """Return the ids, hashes and vectors of a batch; neither hashes nor vectors are copied.

    dim     : numbers of a vector
    returns : n ids; int64 (n,); dense (n, dim), or n sparse rows, with their groups where they have some
    """
    if sparse:
        columns, values = batch.column(2), batch.column(3)
        counts = np.diff(numbers_in(columns.offsets))
        vectors = sparse_rows(counts, numbers_in(columns.flatten()), numbers_in(values.flatten()), dim)
    else:
        vectors = numbers_in(batch.column(2).flatten()).reshape(len(batch), dim)
    if _GROUP in batch.schema.names:
        vectors = Grouped(vectors, numbers_in(batch[_GROUP]))
    return batch.column(0), numbers_in(batch.column(1)), vectors


def read_part(path: str, dim: int, *, sparse: bool) -> tuple[pa.Array, np.ndarray, Vectors]:
    """Return the ids, hashes and vectors of a whole part, as read_batch does."""
    ids, hashes, pieces = read_pieces(path, dim, sparse=sparse)
    return ids, hashes, concatenate_rows(pieces)


def read_pieces(path: str, dim: int, *, sparse: bool) -> tuple[pa.Array, np.ndarray, list[Vectors]]:
    """Return the ids, hashes and vectors of a whole part; dense vectors come in pieces that follow each other.

    No piece is copied.
    """
    reader = open_part(path)
    batches = [read_batch(reader.get_batch(i), dim, sparse=sparse) for i in range(reader.num_record_batches)]
    ids, hashes, vectors = zip(*batches, strict=True)
    pieces = [concatenate_rows(list(vectors))] if sparse else list(vectors)
    return pa.concat_arrays(ids), np.concatenate(hashes), pieces


def numbers_in(array: pa.Array) -> np.ndarray:
    """Return the numbers of an array without nulls; they are not copied.

    Array.to_numpy would import pandas where it is installed, which takes a quarter of a second.
    """
    if len(array) == 0:
        return np.empty(0, array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())[array.offset : array.offset + len(array)]
