"""Weighted vectors: rows with several vectors, each judged by itself, are judged and put together."""

from collections.abc import Sequence

import numpy as np

from annspark.core.vectors import Vectors, is_sparse, len_of, narrowed, take_rows
from annspark.core.weighted import weigh
from annspark.input.check import REASONS, Judged, extremes, largest_allowed

_INFINITE = REASONS.index("infinite")

# As Judged, with the lengths of all vectors of a row; sparse rows have a single one.
JudgedTogether = tuple[np.ndarray, dict[tuple[int, ...], tuple[np.ndarray, Vectors]]]


def judge_together(judged: Sequence[Judged], weights: Sequence[float], metric: str) -> JudgedTogether:
    """Return the reasons of a batch of rows, and the good rows with one vector each.

    The first of a row's reasons counts.  A row is also bad if the weights make its numbers too large.

    judged  : what check_rows, check_structs or check_sparse_rows found for each vector; all dense, or all sparse with
              indices up to most_index
    weights : of each vector, positive
    """
    codes = np.stack([reason for reason, _ in judged])
    lengths, place = np.zeros((2, *codes.shape), np.int64)
    for i, (_, good) in enumerate(judged):
        for length, (rows, _) in good.items():
            lengths[i, rows], place[i, rows] = length, np.arange(len(rows))
    reason = np.where(codes == 0, len(REASONS), codes).min(axis=0) % len(REASONS)
    together: dict[tuple[int, ...], tuple[np.ndarray, Vectors]] = {}
    for key in _distinct(lengths[:, reason == 0]):
        rows = np.flatnonzero((reason == 0) & (lengths == key[:, None]).all(axis=0))
        parts = [
            _some(good[length][1], place[i, rows])
            for i, (length, (_, good)) in enumerate(zip(key.tolist(), judged, strict=True))
        ]
        vectors = weigh(parts, weights, metric)
        fits = _fit(vectors, metric)
        reason[rows[~fits]] = _INFINITE
        rows, vectors = rows[fits], _some(vectors, np.flatnonzero(fits))
        if len(rows):
            together[(vectors.shape[1],) if is_sparse(vectors) else tuple(key.tolist())] = (rows, narrowed(vectors))
    return reason.astype(np.int8), together


def _distinct(lengths: np.ndarray) -> np.ndarray:
    """Return the distinct columns of an array, as rows.  In nearly every batch all are alike, and nothing is sorted."""
    return (np.unique(lengths, axis=1) if (lengths != lengths[:, :1]).any() else lengths[:, :1]).T


def _some(vectors: Vectors, rows: np.ndarray) -> Vectors:
    """Return some rows, given in ascending order; without a copy where these are all."""
    return vectors if len(rows) == len_of(vectors) else take_rows(vectors, rows)


def _fit(vectors: Vectors, metric: str) -> np.ndarray:
    """Return of which vectors the products fit type float: bool (n,)."""
    n, dim = vectors.shape
    flat, length = (vectors.data, np.diff(vectors.indptr)) if is_sparse(vectors) else (vectors.ravel(), np.full(n, dim))
    largest, smallest = extremes(flat, length)
    return np.maximum(largest, -smallest) <= largest_allowed(length, metric)
