"""The sets of vectors: made or read once, then kept as Parquet, as an array and with exact neighbors of some rows."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.arrays import write_vectors
from bench.synthetic import CHUNK, chunks
from bench.truth import save_truth


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
    made = source.startswith("synthetic:")
    name = source if made else Path(source).name.replace(".npz", "")
    folder = cache / name.replace(":", "-")
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        (_make if made else _read)(source, part)
        write_vectors(part / "vectors.parquet", np.load(part / "vectors.npy", mmap_mode="r"))
        part.rename(folder)
    rows, dim = np.load(folder / "vectors.npy", mmap_mode="r").shape
    return Data(name, folder, rows, dim, str(np.load(folder / "truth.npz")["metric"]))


def _read(source: str, folder: Path) -> None:
    source, _, rows = source.partition("@")
    vectors, truth = np.load(source)["X"].astype(np.float32), Path(source).with_suffix(".truth.npz")
    if rows:
        vectors = vectors[: int(rows)]
        save_truth(folder, vectors, str(np.load(truth)["metric"]))
    else:
        shutil.copy(truth, folder / "truth.npz")
    np.save(folder / "vectors.npy", vectors)


def _make(source: str, folder: Path) -> None:
    rows, dim = map(int, source.removeprefix("synthetic:").split("x"))
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dim))
    for number, chunk in enumerate(chunks(rows, dim)):
        vectors[number * CHUNK :][: len(chunk)] = chunk
    vectors.flush()
    save_truth(folder, vectors, "cosine")
