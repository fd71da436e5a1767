"""Degenerate dense vectors, and what is known of their neighbors."""

from collections.abc import Callable

import numpy as np

from check import known
from check.known import Known
from check.rows import Rows


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Return n vectors around n / 100 centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 100), dim))
    return (centres[rng.integers(len(centres), size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def identical(n: int) -> tuple[Rows, Known]:
    """All the same."""
    return np.tile(np.arange(1, 17, dtype=np.float32), (n, 1)), known.twins(np.zeros(n, int))


def third(n: int) -> tuple[Rows, Known]:
    """A third are the same, the others clustered."""
    rows, some = clustered(n, 32), np.random.default_rng(1).permutation(n)[: n // 3]
    rows[some] = rows[some[0]]
    group = np.arange(n) + 1
    group[some] = 0
    return rows, known.twins(group)


def norms(n: int) -> tuple[Rows, Known]:
    """One direction: under cosine all are twins."""
    # Powers of two: all have the same direction to the last bit.
    rows = np.arange(1, 17) * 2.0 ** (np.arange(n) % 16)[:, None]
    return rows.astype(np.float32), known.twins(np.zeros(n, int))


def longest(n: int) -> tuple[Rows, Known]:
    """One direction: the longest have the largest products with everybody."""
    norm = 1 + np.random.default_rng(0).permutation(n)
    return (np.arange(1, 17) * norm[:, None] / n).astype(np.float32), known.first_ones(np.argsort(-norm))


def giant(n: int) -> tuple[Rows, Known]:
    """One clustered row is a thousand times as long as the others."""
    rows = clustered(n, 64)
    rows[n // 2] *= 1000
    return rows, known.hub(n // 2, rows @ rows[n // 2] > 0.05 * np.linalg.norm(rows[n // 2]))


def middle(n: int) -> tuple[Rows, Known]:
    """One row is the middle of a sphere, which is nearer to everybody than anybody else."""
    rows = np.random.default_rng(0).normal(size=(n, 256))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[n // 2] = 0
    return rows.astype(np.float32), known.hub(n // 2, np.ones(n, bool))


def line(n: int) -> tuple[Rows, None]:
    """Everybody is on one line."""
    along = np.random.default_rng(0).permutation(n)
    return (along[:, None] * np.array([1, 2, -1, 0.5]) + np.arange(4)).astype(np.float32), None


def plain(dim: int) -> Callable[[int], tuple[Rows, None]]:
    """Return a maker of clustered rows."""
    return lambda n: (clustered(n, dim), None)
