"""Seeded draws by hash: which users a sample holds follows from their ids alone, however the table is partitioned."""

import hashlib
from math import sqrt

import numpy as np


def mix(hashes: np.ndarray, *salt: object) -> np.ndarray:
    """Turn hashes of ids into other hashes, independent of those of any other salt; uint64 (n,) to uint64 (n,).

    Source: the finalizer of SplitMix64 (Steele, Lea and Flood 2014, OOPSLA), a bijection: it adds no collisions.
    """
    key = int.from_bytes(hashlib.blake2b(repr(salt).encode(), digest_size=8).digest(), "little")
    z = hashes ^ np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw_limit(want: int, rows: int) -> np.uint64:
    """Return the mixed hash below which at least so many rows lie, and few more.

    Five standard deviations above the mean: never short in practice, never the whole table.
    """
    share = min(1.0, (want + 5 * sqrt(want) + 10) / rows)
    return np.uint64(min(int(share * 2**64), 2**64 - 1))
