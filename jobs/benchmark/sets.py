"""The sets of vectors: made or read once, then kept as Parquet, as an array and with exact distances of some rows.

The synthetic ones are shaped like the vectors of recommenders, as hard as real ones. Interests are mixed from a few
themes, so that neighboring ones blend. A popular interest has many users, most have few. Within an interest users
differ along some directions of its own, and a little along all. Active users have long vectors. Row i is the same in a
set of any size: a smaller set is the beginning of a larger one.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmark.systems import K
from tests.oracle import exact_distances

QUERIES = 1_000  # rows whose exact neighbors are found
CHUNK = 10_000
THEMES, INTERESTS, THEME_DIM = 64, 4_000, 24
INNER = (8, 16)
# Next to vectors of ALS and GloVe these give about the same distances, intrinsic dimension and recall of an IVF index.
SPREAD, NOISE, ZIPF = 1.2, 0.6, 0.8


@dataclass(frozen=True)
class Data:
    """A set: its folder holds vectors.parquet, vectors.npy and truth.npz (query_rows, distances, metric)."""

    name: str
    folder: Path
    rows: int
    dim: int
    metric: str


def prepare(source: str, cache: Path) -> Data:
    """Return a set by its name: synthetic:ROWSxDIM, or the path of an .npz, or of one and how many of its rows."""
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
    return source if source.startswith("synthetic:") else Path(source).name.replace(".npz", "")


def load(source: str) -> np.ndarray:
    """Return the vectors of a set by its name: float32 (rows, dim)."""
    if source.startswith("synthetic:"):
        return np.concatenate(list(chunks(*map(int, source.removeprefix("synthetic:").split("x")))))
    path, _, rows = source.partition("@")
    return np.load(path)["X"][: int(rows) if rows else None].astype(np.float32)


def metric_of(source: str) -> str:
    """Return the metric of a set by its name: that of the truth beside an .npz, cosine for a synthetic one."""
    if source.startswith("synthetic:"):
        return "cosine"
    return str(np.load(Path(source.partition("@")[0]).with_suffix(".truth.npz"))["metric"])


def chunks(rows: int, dim: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the first rows vectors of an endless stream, float32, CHUNK at a time."""
    rng = np.random.default_rng(seed)
    share = 1 / (10 + np.arange(INTERESTS)) ** ZIPF
    theme = rng.integers(THEMES, size=INTERESTS)
    axes = _directions(rng, (THEMES, THEME_DIM, dim)) / THEME_DIM**0.5
    places = _directions(rng, (THEMES, dim))[theme]
    places += np.einsum("it,itd->id", rng.normal(size=(INTERESTS, THEME_DIM)), axes[theme])
    inner = rng.integers(INNER[0], INNER[1] + 1, size=INTERESTS)
    used = np.arange(INNER[1]) < inner[:, None]
    inside = _directions(rng, (INTERESTS, INNER[1], dim)) * (SPREAD * used / np.sqrt(inner)[:, None])[:, :, None]
    inside = inside.astype(np.float32)
    for start in range(0, rows, CHUNK):
        # Each chunk has its own generator and is always drawn whole.
        rng = np.random.default_rng([seed, start])
        which = rng.choice(INTERESTS, CHUNK, p=share / share.sum())
        along = rng.standard_normal((CHUNK, 1, INNER[1]), np.float32)
        vectors = places[which] + (along @ inside[which])[:, 0] + NOISE * _directions(rng, (CHUNK, dim))
        vectors *= rng.lognormal(0, 0.5, (CHUNK, 1))
        yield vectors[: rows - start].astype(np.float32)


def _write_truth(path: Path, source: str, vectors: np.ndarray) -> None:
    """Write the exact distances of some rows: those that came with a whole set, or of rows drawn with a fixed seed."""
    file, _, rows = source.partition("@")
    given = Path(file).with_suffix(".truth.npz")
    if not source.startswith("synthetic:") and not rows:
        shutil.copy(given, path)
        return
    metric = metric_of(source)
    asked = np.sort(np.random.default_rng(1).choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
    np.savez(path, query_rows=asked, distances=exact_distances(vectors, asked, K, metric), metric=metric)


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


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal vectors of about length 1."""
    return rng.normal(0, shape[-1] ** -0.5, shape)
