"""Exact neighbors of a sample, by comparison with every row."""

from pathlib import Path

import numpy as np

from bench.arrays import unit
from bench.ladders import K

QUERIES, BLOCK = 1_000, 10_000


def save_truth(folder: Path, vectors: np.ndarray, metric: str) -> None:
    """Write truth.npz for some rows drawn with a fixed seed."""
    asked = np.sort(np.random.default_rng(1).choice(len(vectors), min(QUERIES, len(vectors)), replace=False))
    distances = exact_distances(vectors, asked, metric)
    np.savez(folder / "truth.npz", query_rows=asked, distances=distances, metric=metric)


def load_truth(folder: Path, all_up_to: int) -> dict[str, np.ndarray]:
    """Return query_rows, their exact distances and the metric; of every row, in sets of so many rows or fewer."""
    truth, vectors = dict(np.load(folder / "truth.npz")), np.load(folder / "vectors.npy", mmap_mode="r")
    if len(vectors) > all_up_to:
        return truth
    rows = np.arange(len(vectors))
    parts = [
        exact_distances(vectors, part, str(truth["metric"])) for part in np.split(rows, range(1000, len(rows), 1000))
    ]
    return truth | {"query_rows": rows, "distances": np.concatenate(parts)}


def exact_distances(vectors: np.ndarray, asked: np.ndarray, metric: str) -> np.ndarray:
    """Return the ascending distances of some rows to their K nearest others, compared with every row."""
    best = np.full((len(asked), K), np.inf)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        far = _all_distances(vectors[asked].astype(np.float64), block.astype(np.float64), metric)
        own = np.flatnonzero((asked >= start) & (asked < start + len(block)))
        far[own, asked[own] - start] = np.inf
        best = np.partition(np.hstack([best, far]), K - 1, axis=1)[:, :K]
    return np.sort(best, axis=1)


def _all_distances(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        return 1 - unit(a) @ unit(b).T
    return np.sqrt(np.maximum((a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1), 0))
