"""Tables as arrays: the vectors a library reads, the neighbors it writes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.ladders import K


def write_vectors(path: Path, vectors: np.ndarray) -> None:
    """Write vectors (n, dim), row number = id, in eight row groups that the cores can share."""
    rows, dim = vectors.shape
    size = -(-rows // 8)
    schema = pa.schema([("user_id", pa.int64()), ("vector", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, size):
            block = vectors[start : start + size]
            lists = pa.ListArray.from_arrays(pa.array(np.arange(len(block) + 1) * dim, pa.int32()), block.ravel())
            writer.write_table(pa.table([np.arange(start, start + len(block)), lists], schema=schema))


def read_vectors(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (n,) and float32 vectors (n, dim)."""
    table = pq.read_table(path).combine_chunks()
    ids = table["user_id"].to_numpy()
    return ids, table["vector"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_neighbors(path: str, ids: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> None:
    """Write each user's first K neighbors but itself; row -1 stands for none."""
    kept = (rows >= 0) & (rows != np.arange(len(rows))[:, None])
    kept &= np.cumsum(kept, axis=1) <= K
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    columns = [pa.array(ids[rows[kept]]), pa.array(distances[kept].astype(np.float32))]
    each = pa.StructArray.from_arrays(columns, ["neighbor_id", "distance"])
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), each)
    pq.write_table(pa.table({"user_id": ids, "neighbors": lists}), path)
