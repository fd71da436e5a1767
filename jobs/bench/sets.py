"""The sets of vectors: made or read once, then kept as Parquet, as an array and with exact neighbors of some rows."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.arrays import unit, write_vectors
from bench.ladders import K
from bench.synthetic import CHUNK, chunks

QUERIES = 1_000


@dataclass(frozen=True)
class Data:
    """A set: its folder holds vectors.parquet, vectors.npy and truth.npz (query_rows, distances, metric)."""

    name: str
    folder: Path
    rows: int
    dim: int
    metric: str


def prepare(source: str, cache: Path) -> Data:
    """Return a set by its name: synthetic:ROWSxDIM, or the path of an .npz (X) with its .truth.npz beside it."""
    name = source if source.startswith("synthetic:") else Path(source).stem
    folder = cache / name.replace(":", "-")
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (_make if source.startswith("synthetic:") else _read)(source, part)
        write_vectors(part / "vectors.parquet", np.load(part / "vectors.npy", mmap_mode="r"))
        part.rename(folder)
    rows, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
    return Data(name, folder, rows, dim, str(np.load(folder / "truth.npz")["metric"]))


def _read(source: str, folder: Path) -> None:
    np.save(folder / "vectors.npy", np.load(source)["X"].astype(np.float32))
    shutil.copy(Path(source).with_suffix(".truth.npz"), folder / "truth.npz")


def _make(source: str, folder: Path) -> None:
    rows, dim = map(int, source.removeprefix("synthetic:").split("x"))
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dim))
    for number, chunk in enumerate(chunks(rows, dim)):
        vectors[number * CHUNK :][: len(chunk)] = chunk
    vectors.flush()
    asked = np.sort(np.random.default_rng(1).choice(rows, min(QUERIES, rows), replace=False))
    np.savez(folder / "truth.npz", query_rows=asked, distances=exact_distances(vectors, asked), metric="cosine")


def exact_distances(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the ascending cosine distances of some rows to their K nearest others, compared with every row."""
    queries = unit(vectors[asked].astype(np.float64))
    best = np.full((len(asked), K), np.inf)
    for start in range(0, len(vectors), CHUNK):
        block = unit(vectors[start : start + CHUNK].astype(np.float64))
        far = 1 - queries @ block.T
        own = np.flatnonzero((asked >= start) & (asked < start + len(block)))
        far[own, asked[own] - start] = np.inf
        best = np.partition(np.hstack([best, far]), K - 1, axis=1)[:, :K]
    return np.sort(best, axis=1)
