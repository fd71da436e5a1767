"""The synthetic sets: endless streams of vectors, of which a set of any size is the beginning.

KINDS has the kinds by name.  Each is a function that draws the structure of its stream and returns what draws a chunk.
"""

from collections.abc import Callable, Iterator

import numpy as np

CHUNK = 10_000
Draw = Callable[[np.random.Generator], np.ndarray]

# Of users.  Next to vectors of ALS and GloVe these give about the same distances, intrinsic dimension and recall of an
# IVF index.
THEMES, INTERESTS, THEME_DIM = 64, 4_000, 24
INNER = (8, 16)
SPREAD, NOISE, ZIPF = 1.2, 0.6, 0.8

# Of texts.  The README has the figures of the real sets beside those of this one.
KNEE, FALL = 300, 2.0  # fitted to the spectrum of MiniLM's vectors of titles, 384 numbers
# Fitted to the probes and the intrinsic dimension of 10,000 to 600,000 WordLlama vectors of titles, 128 numbers.  More
# words in a topic's list raise the dimension, and let the probes grow faster with the rows.  A steeper Zipf of words
# lowers the probes, and lets the first axes hold more of the variance.
WORDS, WORD_ZIPF = 30_000, 1.2
TOPICS, TOPIC_ZIPF, LISTED = 1_000, 0.5, 36
LENGTHS = (4, 12)
CONTEXT = 0.25


def chunks(kind: str, rows: int, dim: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the first rows vectors of an endless stream, float32, CHUNK at a time."""
    draw = KINDS[kind](np.random.default_rng(seed), dim)
    for start in range(0, rows, CHUNK):
        # Each chunk has its own generator and is always drawn whole.
        yield draw(np.random.default_rng([seed, start]))[: rows - start].astype(np.float32)


def users(rng: np.random.Generator, dim: int) -> Draw:
    """Draw vectors shaped like those of recommenders.

    Interests are mixed from a few themes, so that neighboring ones blend.  A popular interest has many users, most have
    few.  Within an interest users differ along some directions of its own, and a little along all.  Active users have
    long vectors.
    """
    share = _zipf(INTERESTS, ZIPF)
    theme = rng.integers(THEMES, size=INTERESTS)
    axes = _directions(rng, (THEMES, THEME_DIM, dim)) / THEME_DIM**0.5
    places = _directions(rng, (THEMES, dim))[theme]
    places += np.einsum("it,itd->id", rng.normal(size=(INTERESTS, THEME_DIM)), axes[theme])
    inner = rng.integers(INNER[0], INNER[1] + 1, size=INTERESTS)
    used = np.arange(INNER[1]) < inner[:, None]
    inside = _directions(rng, (INTERESTS, INNER[1], dim)) * (SPREAD * used / np.sqrt(inner)[:, None])[:, :, None]
    inside = inside.astype(np.float32)

    def draw(rng: np.random.Generator) -> np.ndarray:
        which = rng.choice(INTERESTS, CHUNK, p=share)
        along = rng.standard_normal((CHUNK, 1, INNER[1]), np.float32)
        vectors = places[which] + (along @ inside[which])[:, 0] + NOISE * _directions(rng, (CHUNK, dim))
        return vectors * rng.lognormal(0, 0.5, (CHUNK, 1))

    return draw


def texts(rng: np.random.Generator, dim: int) -> Draw:
    """Draw vectors shaped like text embeddings, much harder than those of users.

    A text is the sum of some words and a little context, at length 1.  Its topic has a short list of words, from which
    it takes any.  Common words are in many lists, so that topics overlap.  The variances of words fall along the axes:
    the first are about alike, later ones fall as a power law.
    """
    deviations = ((1 + np.arange(dim) / KNEE) ** (-FALL / 2)).astype(np.float32)
    words = rng.standard_normal((WORDS, dim), np.float32) * deviations
    lists = rng.choice(WORDS, (TOPICS, LISTED), p=_zipf(WORDS, WORD_ZIPF))
    share = _zipf(TOPICS, TOPIC_ZIPF)

    def draw(rng: np.random.Generator) -> np.ndarray:
        topic = rng.choice(TOPICS, CHUNK, p=share)
        length = rng.integers(LENGTHS[0], LENGTHS[1] + 1, CHUNK)
        context = (CONTEXT * np.sqrt(length)).astype(np.float32)
        vectors = context[:, None] * (rng.standard_normal((CHUNK, dim), np.float32) * deviations)
        for place in range(LENGTHS[1]):
            longer = np.flatnonzero(length > place)
            vectors[longer] += words[lists[topic[longer], rng.integers(LISTED, size=len(longer))]]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return draw


KINDS: dict[str, Callable[[np.random.Generator, int], Draw]] = {"synthetic": users, "synthetic-text": texts}


def _zipf(n: int, exponent: float) -> np.ndarray:
    """Return the shares of n things, which fall with their rank."""
    share = 1 / (10 + np.arange(n)) ** exponent
    return share / share.sum()


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal vectors of about length 1."""
    return rng.normal(0, shape[-1] ** -0.5, shape)
