"""Half precision: vectors of float16 with a scale of their own, a power of two, so that any magnitude survives.

A number keeps 11 bits, less only where it is some 2^-28 of its vector's largest.
"""

import numpy as np

_TOP = 15  # numbers are scaled to below 2^15; float16 ends at 65,504, and rounding must not pass its end
_EXPONENTS = (-126, 127)  # of scales, which float32 holds without losing bits, and so their inverses


def to_half(vectors: np.ndarray) -> np.ndarray:
    """Round vectors: float32 (n, dim), finite, to float16 (n, dim + 1), the exponent of the scale last."""
    largest = np.maximum(vectors.max(axis=1, initial=0), -vectors.min(axis=1, initial=0))
    exponent = np.clip(np.frexp(largest)[1] - _TOP, *_EXPONENTS)
    halves = np.empty((len(vectors), vectors.shape[1] + 1), np.float16)
    halves[:, :-1] = vectors * _powers(-exponent)
    halves[:, -1] = exponent
    return halves


def from_half(halves: np.ndarray) -> np.ndarray:
    """Undo to_half, but for the rounding: float16 (n, dim + 1) to float32 (n, dim)."""
    vectors = halves[:, :-1].astype(np.float32)
    vectors *= _powers(halves[:, -1].astype(np.int32))
    return vectors


def _powers(exponent: np.ndarray) -> np.ndarray:
    """Return powers of two: int32 (n,) to float32 (n, 1)."""
    return np.ldexp(np.float32(1), exponent)[:, None]
