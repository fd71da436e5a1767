"""Draws by hash: which users a sample holds follows from their ids and the seed, however the table is partitioned."""

from math import sqrt

import numpy as np


def draw_limit(want: int, rows: int) -> int:
    """Return the hash (int64) up to which at least so many of the rows lie, and few more.

    Five standard deviations above the mean: never short in practice.
    """
    share = min(1.0, (want + 5 * sqrt(want) + 10) / rows)
    return min(int(share * 2**64), 2**64 - 1) - 2**63


def slot_of(hashes: np.ndarray, n_slots: int) -> np.ndarray:
    """Return which of n_slots a user belongs to, by the low bits of the hash: int64 (n,) to int64 (n,)."""
    return (hashes.view(np.uint64) % np.uint64(n_slots)).astype(np.int64)
