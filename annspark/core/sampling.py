"""Samples drawn by hash: which users are in them depends on their ids and the seed, and not on partitions."""

from math import sqrt

import numpy as np


def draw_limit(wanted: int, rows: int) -> int:
    """Return the hash (int64) up to which at least the wanted number of rows lie, and few more.

    The number of rows up to it is random, and the wanted number is five standard deviations below its mean.
    """
    share = min(1.0, (wanted + 5 * sqrt(wanted) + 10) / rows)
    return min(int(share * 2**64), 2**64 - 1) - 2**63


def slot_of(hashes: np.ndarray, n_slots: int) -> np.ndarray:
    """Return the slot of each user, one of n_slots, from the low bits of the hash: int64 (n,) to int64 (n,)."""
    return (hashes.view(np.uint64) % np.uint64(n_slots)).astype(np.int64)
