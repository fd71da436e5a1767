"""Vectors, dense or sparse, from NAME.npz to Parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from bench.arrays import write_vectors

SPARSE_COLUMNS = {"vector_col": "indices", "values_col": "values"}
Rows = np.ndarray | csr_array


def load(source: str) -> tuple[str, Rows]:
    """Return the name and the vectors of PATH/NAME.npz[:ROWS]: X, or data, indices, indptr and shape; float32."""
    path, _, limit = source.rpartition(":") if source.rpartition(":")[2].isdigit() else (source, "", "")
    arrays = np.load(path)
    if "X" in arrays:
        rows: Rows = arrays["X"][: int(limit)] if limit else arrays["X"]
        rows = rows.astype(np.float32)
    else:
        rows = sparse(*(arrays[name] for name in ("data", "indices", "indptr")), tuple(arrays["shape"]))
        rows = rows[: int(limit)] if limit else rows
    return Path(path).name.removesuffix(".npz") + (f":{limit}" if limit else ""), rows


def sparse(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Return float32 sparse rows."""
    return csr_array((data.astype(np.float32), indices.astype(np.int32), indptr.astype(np.int64)), shape)


def as_bits(rows: np.ndarray) -> np.ndarray:
    """Return 1 for what is above the middle of a byte, or above zero where numbers have signs."""
    return (rows > (0 if rows.min() < 0 else 127)).astype(np.float32)


def write_rows(path: Path, rows: Rows) -> dict[str, Any]:
    """Write user_id = row number and the vectors, in eight row groups; return the settings that name their columns."""
    if isinstance(rows, np.ndarray):
        write_vectors(path, rows)
        return {}
    n = rows.shape[0]
    schema = pa.schema([("user_id", pa.int64()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, -(-n // 8)):
            part = rows[start : start + -(-n // 8)]
            ends = pa.array(part.indptr, pa.int32())
            lists = [pa.ListArray.from_arrays(ends, pa.array(one)) for one in (part.indices, part.data)]
            writer.write_table(pa.table([np.arange(start, start + part.shape[0]), *lists], schema=schema))
    return SPARSE_COLUMNS


def read_rows(path: Path) -> csr_array:
    """Return the sparse rows of a table that write_rows wrote."""
    table = pq.read_table(path).combine_chunks()
    lists = table["indices"].combine_chunks()
    indices, values = (table[name].combine_chunks().flatten().to_numpy() for name in ("indices", "values"))
    width = int(indices.max(initial=0)) + 1
    return sparse(values, indices, lists.offsets.to_numpy(), (len(lists), width))
