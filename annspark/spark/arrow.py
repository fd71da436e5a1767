"""Arrow columns to NumPy arrays and back."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

OUT_ROWS = 20_000  # rows of an outgoing batch
Batches = Iterator[pa.RecordBatch]
Mapper = Callable[[Batches], Batches]  # a function that mapInArrow calls once for every partition


def gathered(batches: Batches) -> pa.Table | None:
    """Return all rows of a partition; None where it has no row."""
    received = [batch for batch in batches if batch.num_rows]
    return pa.Table.from_batches(received) if received else None


def numbers(column: pa.Array | pa.ChunkedArray, dtype: type[np.generic]) -> np.ndarray:
    """Read the numbers in a binary column; without a copy where the column is a single chunk.

    column  : binary; every value is a whole number of items long; a null has no items
    returns : the items of all values in one flat array
    """
    if isinstance(column, pa.ChunkedArray):
        parts = [numbers(chunk, dtype) for chunk in column.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, dtype)
    if len(column) == 0:
        return np.empty(0, dtype)
    # With spark.sql.execution.arrow.useLargeVarTypes offsets are 64 bits wide.
    width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    offsets = np.frombuffer(column.buffers()[1], width)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].view(dtype)


def elements(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the elements of a column of lists as one array."""
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return pa.array([], column.type.value_type)
        return pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    return column.flatten()


def to_binary(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """Pack numbers into a binary column, lengths[i] of them into value i.

    values : sum(lengths) numbers of one type
    """
    offsets = _offsets(values.itemsize * lengths.astype(np.int64))
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), data])


def to_lists(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Cut an array into consecutive lists of the given lengths."""
    return pa.ListArray.from_arrays(pa.array(_offsets(lengths)), values)


def ranks_of_ids(*columns: pa.Array) -> tuple[pa.Array, list[np.ndarray]]:
    """Replace the ids of several columns by their ranks, which NumPy can sort.

    columns : ids of one type that has an order, no nulls
    returns : the distinct ids of all columns in ascending order; per column int64 (n,), each id's place among them
    """
    encoded = pc.dictionary_encode(pa.concat_arrays(columns))
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = rank[encoded.indices.to_numpy()]
    return encoded.dictionary.take(pa.array(order)), np.split(codes, np.cumsum([len(c) for c in columns])[:-1])


def collect(table: DataFrame) -> pa.Table:
    """Collect a table on the driver."""
    if hasattr(table, "toArrow"):
        return table.toArrow()
    rows = table.mapInArrow(_as_streams, "stream binary").collect()  # Spark 3.5 has no toArrow
    parts = [_read_stream(row[0]) for row in rows]
    return pa.concat_tables(parts) if parts else to_arrow_schema(table.schema).empty_table()


def distribute(spark: SparkSession, batches: list[pa.RecordBatch]) -> DataFrame:
    """Return Arrow batches of one schema, at least one, as a table; Spark 3.5 takes none by itself."""
    table = spark.createDataFrame([(_write_stream(batch),) for batch in batches], "stream binary")
    return table.mapInArrow(_from_streams, from_arrow_schema(batches[0].schema))


def _as_streams(batches: Batches) -> Batches:
    for batch in batches:
        yield pa.RecordBatch.from_arrays([pa.array([_write_stream(batch)], pa.binary())], ["stream"])


def _from_streams(batches: Batches) -> Batches:
    for batch in batches:
        for stream in batch.column(0):
            yield from _read_stream(stream.as_py()).to_batches()


def _write_stream(batch: pa.RecordBatch) -> bytes:
    """Return a batch in Arrow's own format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _read_stream(stream: bytes) -> pa.Table:
    return pa.ipc.open_stream(stream).read_all()


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """Return int32 (n + 1,) offsets; ValueError for more than Arrow's 2 GB."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"an Arrow batch of {offsets[-1]:,} bytes; lower spark.sql.execution.arrow.maxRecordsPerBatch")
    return offsets.astype(np.int32)
