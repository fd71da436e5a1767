"""The nearest vectors of each query so far, while an exact search goes through all vectors block by block.

The search of a join keeps its lists in another form, see keeper.py: here ties are decided by 64 bits of a hash, which
do not fit into its packed keys.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from annspark.core.arrays import places_in_groups
from annspark.core.excluded import Pairs
from annspark.core.vectors import Grouped, take_rows


@dataclass(frozen=True)
class Nearest:
    """The m nearest vectors of each query so far, by (distance, hash), in whatever order they were compared.

    Of more than m equal vectors any m may be in a list.

    distances : float32 or float64 (n_queries, m), exact; inf where fewer were compared; a query that is itself among
                the vectors is in its own list
    hashes    : int64 (n_queries, m), hashes of the vectors' ids; 0 where fewer were compared
    """

    distances: np.ndarray
    hashes: np.ndarray

    @property
    def radius(self) -> np.ndarray:
        """Distance of the m-th of each list, (n_queries,); 0 where m is 0."""
        return self.distances[:, -1] if self.distances.shape[1] else np.zeros(len(self.distances))


def empty_lists(n_queries: int, m: int, kind: type[np.generic] = np.float64) -> Nearest:
    """Return lists without any vector yet.

    kind : of the distances; a join keeps them in float32
    """
    return Nearest(np.full((n_queries, m), np.inf, kind), np.zeros((n_queries, m), np.int64))


def find_entering(lists: Nearest, query: np.ndarray, distance: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Return which pairs come before the last of their query's list, by (distance, hash) as in merge_pairs.

    query    : int (n,)
    distance : (n,), from the query to a vector
    hashes   : int64 (n,), of the vector
    returns  : int, ascending, numbers of pairs
    """
    last = lists.distances[:, -1].take(query)
    ties = np.flatnonzero(distance == last)
    enters = distance < last
    enters[ties] = hashes.take(ties) < lists.hashes[:, -1].take(query.take(ties))
    return np.flatnonzero(enters)


def merge_pairs(lists: Nearest, query: np.ndarray, distance: np.ndarray, hashes: np.ndarray) -> Nearest:
    """Return new lists that take in more pairs, given as for find_entering; the old lists are not changed."""
    m = lists.distances.shape[1]
    touched, count = np.unique(query, return_counts=True)
    owner = np.concatenate([np.repeat(np.arange(len(touched)), m), np.searchsorted(touched, query)])
    all_distances = np.concatenate([lists.distances[touched].ravel(), distance])
    all_hashes = np.concatenate([lists.hashes[touched].ravel(), hashes])
    order = np.lexsort((all_hashes, all_distances, owner))
    first = order[places_in_groups(count + m) < m]
    new_distances, new_hashes = lists.distances.copy(), lists.hashes.copy()
    new_distances[touched], new_hashes[touched] = all_distances[first].reshape(-1, m), all_hashes[first].reshape(-1, m)
    return Nearest(new_distances, new_hashes)


def search_groups(
    search: Callable[..., Nearest],
    queries: Grouped,
    vectors: Grouped,
    hashes: np.ndarray,
    lists: Nearest,
    metric: str,
    excluded: Pairs | None,
) -> Nearest:
    """Do what a search does for vectors without groups: one group of the queries after the other.

    search : search_exactly or search_related, whose arguments the others are
    """
    distances, found = lists.distances.copy(), lists.hashes.copy()
    order = np.argsort(vectors.group, kind="stable")
    ordered = vectors.group.take(order)
    names, place = np.unique(queries.group, return_inverse=True)
    ends = np.searchsorted(ordered, names), np.searchsorted(ordered, names, side="right")
    for name in np.flatnonzero(ends[0] < ends[1]):
        asking, rows = np.flatnonzero(place.ravel() == name), order[ends[0][name] : ends[1][name]]
        pairs = excluded.between(asking, rows) if excluded is not None else None
        some = take_rows(queries.vectors, asking), take_rows(vectors.vectors, rows), hashes.take(rows)
        nearest = search(*some, Nearest(distances[asking], found[asking]), metric, pairs)
        distances[asking], found[asking] = nearest.distances, nearest.hashes
    return Nearest(distances, found)
