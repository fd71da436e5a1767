"""Metrics: what preparing, routing and joining have to know of each; nothing else distinguishes them.

Kernels compare raw distances, which order as the metric's own do and cost less: the squared euclidean distance of
prepared vectors (cosine, euclidean, hamming), -2 x.y (inner product), and the distance itself (manhattan, jaccard).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Raw = Callable[[np.ndarray], np.ndarray]
_NUMBERS = 1 << 15  # numbers of float64 in flight: 256 KB


@dataclass(frozen=True)
class Metric:
    """One metric.

    unit        : prepared vectors have unit length, so an all-zero vector cannot be used
    binary      : vectors are sets or bits: numbers are 0 or 1
    centred     : euclidean routing around the median of the data, where float32 keeps its digits
    largest     : what is published is a similarity, minus the distance, the largest first
    unrelated   : distance of sparse rows that have no column in common; inf where it is not one for all
    from_raw    : raw distances to the metric's own distances (smaller is nearer)
    to_raw      : distances to raw ones no smaller than any whose from_raw is at most the given; inf stays inf
    """

    unit: bool = False
    binary: bool = False
    centred: bool = False
    largest: bool = False
    unrelated: float = np.inf
    from_raw: Raw = np.asarray
    to_raw: Raw = np.asarray


def _half(raw: np.ndarray) -> np.ndarray:
    return raw * np.float32(0.5)


def _double(distance: np.ndarray) -> np.ndarray:
    return distance * np.float32(2)


def _square(distance: np.ndarray) -> np.ndarray:
    return distance * distance * np.float32(1 + 1e-6)


METRICS = {
    "cosine": Metric(unit=True, unrelated=1, from_raw=_half, to_raw=_double),
    "euclidean": Metric(centred=True, from_raw=np.sqrt, to_raw=_square),
    "inner_product": Metric(largest=True, unrelated=0, from_raw=_half, to_raw=_double),
    "manhattan": Metric(centred=True),
    "hamming": Metric(binary=True, centred=True),
    "jaccard": Metric(binary=True, unrelated=1),
}


def prepare(
    vectors: Any,
    metric: str,
    *,
    origin: np.ndarray | None = None,
    exponent: int = 0,
    kind: type[np.generic] = np.float32,
) -> Any:
    """Return vectors between which raw distances order neighbors as the metric does.

    vectors  : float32 or float64 (n, dim), finite; a scipy csr_array for sparse rows
    origin   : float64 (dim,), taken from every vector (of unit length, if the metric makes it so); dense vectors only
    exponent : numbers are multiplied by 2**exponent after that
    kind     : float32 or float64, of the numbers returned; everything before is computed in float64
    returns  : (n, dim); unit length for cosine (an all-zero vector stays zero), 1 for every number that is not 0 for
               jaccard, else unchanged but for origin, exponent and rounding
    """
    if not isinstance(vectors, np.ndarray):
        return _prepare_sparse(vectors, metric, exponent, kind)
    unit = METRICS[metric].unit
    if not unit and origin is None and exponent == 0:
        return np.ascontiguousarray(vectors, kind)
    prepared = np.empty(vectors.shape, kind)
    # Some rows at a time: what is made of them stays in the second-level cache.
    step = max(1, _NUMBERS // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        wide = vectors[start : start + step].astype(np.float64)
        if unit:
            # A first scaling by the largest component: squares neither overflow nor vanish.
            largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
            wide /= np.where(largest > 0, largest, 1)
            norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
            wide /= np.where(norms > 0, norms, 1)
        if origin is not None:
            wide -= origin
        prepared[start : start + step] = np.ldexp(wide, exponent) if exponent else wide
    return prepared


def _prepare_sparse(rows: Any, metric: str, exponent: int, kind: type[np.generic]) -> Any:
    if METRICS[metric].unit:
        owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        wide = rows.data.astype(np.float64)
        largest = np.zeros(rows.shape[0])
        np.maximum.at(largest, owner, np.abs(wide))
        wide /= largest[owner]
        norms = np.sqrt(np.bincount(owner, wide * wide, minlength=rows.shape[0]))
        values = (wide / norms[owner]).astype(kind)
    elif metric == "jaccard":
        values = np.ones(len(rows.data), kind)
    else:
        values = np.ldexp(rows.data.astype(np.float64), exponent).astype(kind) if exponent else rows.data.astype(kind)
    return type(rows)((values, rows.indices, rows.indptr), shape=rows.shape)
