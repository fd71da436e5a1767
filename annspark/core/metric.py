"""Metrics: what preparing, routing and joining have to know of each.

Kernels compare raw distances, which have the same order as the metric's own distances and cost less:
    cosine, euclidean, hamming    squared euclidean distance of prepared vectors
    inner_product                 -2 x.y
    manhattan, jaccard            the distance itself

To add a metric:
- Give it a record in METRICS, below.  If its numbers need preparing, extend prepare.
- Give it a kernel in distance.py: an entry of _KERNELS for dense vectors, of _SPARSE_KERNELS for sparse rows, or of
  both.  A metric without one raises ValueError there.
- If squared euclidean distance is a poor proxy for it, give it a RoutingSpace in routing_space.py.
- Errors of rounding follow from the record: see whether they hold for it in recall.py (tie_limit, sizes_of) and
  coordinates.py (lost_of).
- input/check.py and input/source.py follow the record: what a row must hold, and which forms of input there are.
- Define it in tests/oracle.py (between, _between_sparse) and tests/core/worlds.py, and describe it in pipeline.py and
  README.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from annspark.core.vectors import Grouped

Raw = Callable[[np.ndarray], np.ndarray]
_NUMBERS = 1 << 15  # numbers of float64 prepared at once: 256 KB


@dataclass(frozen=True)
class Metric:
    """One metric.

    unit        : prepared vectors have unit length, so an all-zero vector cannot be used
    binary      : prepared numbers are 0 or 1, so float32 holds them and their distances to the last bit
    sets        : vectors are sets: every number that is not 0 stands for a member
    moves       : distances of prepared vectors stay the same when one vector is subtracted from all
    scales      : multiplying all vectors by f multiplies distances by f**scales; 0 where vectors are never multiplied
    norm        : 2 where distances follow from sums of squares or products, 1 where they are sums of |x - y|
    centred     : vectors are routed around the median of the data, where float32 keeps its digits
    largest     : the distance is minus a product.  Published is the product, a similarity, the largest first.  A vector
                  need not be the nearest to itself, and long vectors are near to many
    sparse      : sparse rows may have this metric
    unrelated   : distance of sparse rows that share no column; inf where not all such pairs have the same distance
    from_raw    : turns raw distances into the metric's own distances (smaller is nearer)
    to_raw      : the inverse of from_raw, rounded up: from_raw(r) <= d implies r <= to_raw(d); inf stays inf
    """

    unit: bool = False
    binary: bool = False
    sets: bool = False
    moves: bool = True
    scales: int = 0
    norm: int = 2
    centred: bool = False
    largest: bool = False
    sparse: bool = False
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
    "cosine": Metric(unit=True, sparse=True, unrelated=1, from_raw=_half, to_raw=_double),
    "euclidean": Metric(scales=1, centred=True, sparse=True, from_raw=np.sqrt, to_raw=_square),
    "inner_product": Metric(
        moves=False, scales=2, largest=True, sparse=True, unrelated=0, from_raw=_half, to_raw=_double
    ),
    "manhattan": Metric(scales=1, norm=1, centred=True),
    "hamming": Metric(binary=True, centred=True),
    "jaccard": Metric(binary=True, sets=True, moves=False, sparse=True, unrelated=1),
}


def prepare(
    vectors: Any,
    metric: str,
    *,
    origin: np.ndarray | None = None,
    exponent: int = 0,
    kind: type[np.generic] = np.float32,
) -> Any:
    """Return prepared vectors, whose raw distances order neighbors as the metric does.

    vectors  : float32 or float64 (n, dim), finite; a scipy csr_array for sparse rows
    origin   : float64 (dim,), subtracted from every vector (after it has unit length, for cosine); dense vectors only
    exponent : numbers are multiplied by 2**exponent after that
    kind     : float32 or float64, of the numbers returned; everything before is computed in float64
    returns  : (n, dim); for cosine of unit length, though an all-zero vector stays zero; of sets 1 in place of
               every number that is not 0; else unchanged but for origin, exponent and rounding
    """
    if isinstance(vectors, Grouped):
        prepared = prepare(vectors.vectors, metric, origin=origin, exponent=exponent, kind=kind)
        return Grouped(prepared, vectors.group)
    if not isinstance(vectors, np.ndarray):
        return _prepare_sparse(vectors, metric, exponent, kind)
    unit = METRICS[metric].unit
    if not unit and origin is None and exponent == 0:
        return np.ascontiguousarray(vectors, kind)
    prepared = np.empty(vectors.shape, kind)
    # Some rows at a time, so that intermediate results stay in the second-level cache.
    step = max(1, _NUMBERS // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        wide = vectors[start : start + step].astype(np.float64)
        if unit:
            # Scaled by the largest number first, so that squares neither overflow nor vanish.  Each search of a saved
            # index prepares a few rows, so the number of calls counts.
            largest = np.maximum.reduce(np.abs(wide), axis=1, initial=0)
            largest[largest == 0] = 1
            wide /= largest[:, None]
            norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
            norms[norms == 0] = 1
            wide /= norms[:, None]
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
    elif METRICS[metric].sets:
        values = np.ones(len(rows.data), kind)
    else:
        values = np.ldexp(rows.data.astype(np.float64), exponent).astype(kind) if exponent else rows.data.astype(kind)
    return type(rows)((values, rows.indices, rows.indptr), shape=rows.shape)
