"""The only place where Arrow columns become NumPy arrays and back."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

OUT_ROWS = 20_000  # rows of an outgoing batch


def vectors_from_binary(column: pa.Array | pa.ChunkedArray, dim: int) -> np.ndarray:
    """Read vectors that travel as bytes, without a copy where the column is one piece.

    column  : binary, every value dim * 4 bytes, no nulls
    returns : float32 (n, dim)
    """
    if isinstance(column, pa.ChunkedArray):
        parts = [vectors_from_binary(chunk, dim) for chunk in column.chunks]
        return np.concatenate(parts) if parts else np.empty((0, dim), np.float32)
    return _binary_values(column).view(np.float32).reshape(len(column), dim)


def ints_from_binary(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """Read int32 lists of different lengths that travel as bytes, padded with -1.

    column  : binary, every value a multiple of 4 bytes long, no nulls
    returns : int32 (n, width)
    """
    count = np.concatenate([np.diff(_offsets(c)) for c in column.chunks] or [np.empty(0, np.int32)]) // 4
    values = np.concatenate([_binary_values(c).view(np.int32) for c in column.chunks] or [np.empty(0, np.int32)])
    out = np.full((len(count), width), -1, np.int32)
    out[np.arange(width) < count[:, None]] = values
    return out


def to_binary(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """Pack numbers as bytes, lengths[i] of them in value i.

    values  : 4-byte numbers, sum(lengths) of them
    """
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(4 * lengths, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"an Arrow batch of {offsets[-1]:,} bytes; lower spark.sql.execution.arrow.maxRecordsPerBatch")
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets.astype(np.int32)), data])


def to_lists(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Cut an array into consecutive lists of the given lengths."""
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def ranks_of_ids(*columns: pa.ChunkedArray) -> tuple[pa.Array, list[np.ndarray]]:
    """Number ids by their order, over several columns at once, so that NumPy can sort what stands for them.

    columns : ids of one orderable type, no nulls
    returns : the distinct ids in ascending order, and per column int64 (n,), each id's place among them
    """
    chunks = [chunk for column in columns for chunk in column.chunks]
    if not chunks:
        return pa.array([]), [np.empty(0, np.int64) for _ in columns]
    encoded = pc.dictionary_encode(pa.concat_arrays(chunks))
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[encoded.indices.to_numpy()]
    return encoded.dictionary.take(pa.array(order)), np.split(codes, np.cumsum([len(c) for c in columns])[:-1])


def collect(table: DataFrame) -> pa.Table:
    """Bring a small table to the driver."""
    if hasattr(table, "toArrow"):
        return table.toArrow()
    rows = [tuple(row) for row in table.collect()]  # Spark 3.5 has no toArrow
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(table.columns)})


def _offsets(column: pa.Array) -> np.ndarray:
    start = column.offset
    # spark.sql.execution.arrow.useLargeVarTypes makes offsets 64 bits wide.
    width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    return np.frombuffer(column.buffers()[1], width)[start : start + len(column) + 1]


def _binary_values(column: pa.Array) -> np.ndarray:
    if len(column) == 0:
        return np.empty(0, np.uint8)
    offsets = _offsets(column)
    return np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
