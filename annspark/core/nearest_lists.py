"""The nearest vectors of each query so far, while an exact search goes through all vectors block by block.

The search of a join keeps its lists in another form, see keeper.py: here ties are decided by 64 bits of a hash, which
do not fit into its packed keys.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.arrays import places_in_groups


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
