"""Best: the nearest vectors each query has met so far."""

from dataclasses import dataclass

import numpy as np

from annspark.core.nearest import places


@dataclass(frozen=True)
class Nearest:
    """The nearest vectors of each query so far, in the order of (distance, hash), whatever order they were met in.

    Of more than m that are one and the same vector any m may be kept.

    distances : float32 or float64 (n_queries, m), exact, inf where fewer were met; a query's own row counts too
    hashes    : int64 (n_queries, m), of the vectors' ids; 0 where fewer were met
    """

    distances: np.ndarray
    hashes: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        """The distance of the last, 0 where nobody is asked for: (n_queries,)."""
        return self.distances[:, -1] if self.distances.shape[1] else np.zeros(len(self.distances))


def nobody_met(n_queries: int, m: int, kind: type[np.generic] = np.float64) -> Nearest:
    """Return what is known before the first vector; distances are kept in float64, or as joins do, float32."""
    return Nearest(np.full((n_queries, m), np.inf, kind), np.zeros((n_queries, m), np.int64))


def entering(best: Nearest, query: np.ndarray, distance: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return which of some pairs come before the last neighbor of their query, ascending: as merged has them."""
    last = best.distances[:, -1].take(query)
    ties = np.flatnonzero(distance == last)
    enters = distance < last
    enters[ties] = hashes.take(ties) < best.hashes[:, -1].take(query.take(ties))
    return np.flatnonzero(enters)


def merged(best: Nearest, query: np.ndarray, distance: np.ndarray, hashes: np.ndarray) -> Nearest:
    """Return best with more vectors in it: int (n,), the queries; their distances and hashes; best is not changed."""
    m = best.distances.shape[1]
    touched, count = np.unique(query, return_counts=True)
    owner = np.concatenate([np.repeat(np.arange(len(touched)), m), np.searchsorted(touched, query)])
    far = np.concatenate([best.distances[touched].ravel(), distance])
    who = np.concatenate([best.hashes[touched].ravel(), hashes])
    order = np.lexsort((who, far, owner))
    first = order[places(count + m) < m]
    distances, kept = best.distances.copy(), best.hashes.copy()
    distances[touched], kept[touched] = far[first].reshape(-1, m), who[first].reshape(-1, m)
    return Nearest(distances, kept)
