"""The sets of vectors: made or read once, then kept as Parquet, as an array and with exact distances of some rows."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmark.synthetic import KINDS, chunks
from jobs.benchmark.systems import K
from tests.oracle import exact_distances

QUERIES = 1_000  # rows whose exact neighbors are found


@dataclass(frozen=True)
class Data:
    """A set: its folder holds vectors.parquet, vectors.npy and truth.npz (query_rows, distances, metric)."""

    name: str
    folder: Path
    rows: int
    dim: int
    metric: str


def prepare(source: str, cache: Path) -> Data:
    """Return a set by its name: KIND:ROWSxDIM of a synthetic one, the path of an .npz, or of one and how many rows."""
    name = name_of(source)
    folder = cache / name.replace(":", "-")
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        vectors = load(source)
        np.save(part / "vectors.npy", vectors)
        _write_truth(part / "truth.npz", source, vectors)
        write_vectors(part / "vectors.parquet", vectors)
        part.rename(folder)
    rows, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
    return Data(name, folder, rows, dim, str(np.load(folder / "truth.npz")["metric"]))


def name_of(source: str) -> str:
    """Return what a set is called in the results."""
    return source if shape_of(source) else Path(source).name.replace(".npz", "")


def shape_of(source: str) -> tuple[str, int, int] | None:
    """Return the kind, the rows and the dimension that the name of a synthetic set tells; None for a real set."""
    kind, _, shape = source.partition(":")
    if kind not in KINDS:
        return None
    rows, dim = map(int, shape.split("x"))
    return kind, rows, dim


def load(source: str) -> np.ndarray:
    """Return the vectors of a set by its name: float32 (rows, dim)."""
    shape = shape_of(source)
    if shape:
        return np.concatenate(list(chunks(*shape)))
    path, _, rows = source.partition("@")
    return np.load(path)["X"][: int(rows) if rows else None].astype(np.float32)


def metric_of(source: str) -> str:
    """Return the metric of a set by its name: that of the truth beside an .npz, cosine for a synthetic one."""
    if shape_of(source):
        return "cosine"
    return str(np.load(Path(source.partition("@")[0]).with_suffix(".truth.npz"))["metric"])


def _write_truth(path: Path, source: str, vectors: np.ndarray) -> None:
    """Write the exact distances of some rows: those that came with a whole set, or of rows drawn with a fixed seed."""
    file, _, rows = source.partition("@")
    given = Path(file).with_suffix(".truth.npz")
    if not shape_of(source) and not rows:
        shutil.copy(given, path)
        return
    metric = metric_of(source)
    asked = np.sort(np.random.default_rng(1).choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
    np.savez(path, query_rows=asked, distances=exact_distances(vectors, asked, K, metric), metric=metric)


def write_vectors(path: Path, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
    """Write vectors (n, dim) in eight row groups that the cores can share; without ids the id is the row number."""
    rows, dim = vectors.shape
    size = -(-rows // 8)
    schema = pa.schema([("user_id", pa.int64()), ("vector", pa.list_(pa.float32()))])
    ids = np.arange(rows) if ids is None else ids
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, size):
            block = vectors[start : start + size]
            lists = pa.ListArray.from_arrays(pa.array(np.arange(len(block) + 1) * dim, pa.int32()), block.ravel())
            writer.write_table(pa.table([ids[start : start + size], lists], schema=schema))
