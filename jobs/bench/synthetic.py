"""Vectors shaped like those of recommenders: as hard as real ones, and the same however many are taken.

Interests are mixed from a few themes, so that neighboring ones blend; a popular interest has many users, most have few;
within an interest users differ along some directions of its own, and a little along all; active users have long
vectors.  Row i is the same in a set of any size: a smaller set is the beginning of a larger one.
"""

from collections.abc import Iterator

import numpy as np

CHUNK = 10_000
THEMES, INTERESTS, THEME_DIM = 64, 4_000, 24
INNER = (8, 16)
# Next to vectors of ALS and GloVe these give about the same distances, intrinsic dimension and recall of an IVF index.
SPREAD, NOISE, ZIPF = 1.2, 0.6, 0.8


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


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal vectors of about length 1."""
    return rng.normal(0, shape[-1] ** -0.5, shape)
