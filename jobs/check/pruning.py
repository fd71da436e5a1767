"""Cluster pruning as PySparNN's documentation describes it, for all rows at once.

Randomly chosen rows lead; every row joins its nearest leader; a query looks at the rows of its k_clusters nearest
leaders, and at the best of several such indexes.  A cluster as large as MOST is cut in the same way.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.sparse import csr_array

from bench.ladders import CORES, K, Setting
from check.best import merge_best

BLOCK = 2_000  # rows compared with the leaders, or a cluster, at once
MOST = 15_000  # PySparNN's matrices of 1,000 are said to reach about two levels: 1,000 ** 1.4


def search(unit: csr_array, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Return K + 1 rows (-1 for none) and their distances, for every row of length 1; oneself may be among them."""
    rng, n = np.random.default_rng(0), unit.shape[0]
    rows, found = np.full((n, K + 1), -1), np.full((n, K + 1), np.inf, np.float32)
    halves = np.array_split(np.arange(n), CORES)
    with ThreadPoolExecutor(CORES) as threads:  # SciPy's products and NumPy's sorting let go of Python's lock
        for _ in range(setting["indexes"]):
            index = _Index(unit, np.arange(n), setting["leaders"], rng)
            work = [threads.submit(index.ask, unit, half, setting["k_clusters"], rows, found) for half in halves]
            [one.result() for one in work]
    return rows, found


class _Index:
    def __init__(self, unit: csr_array, members: np.ndarray, leaders: int, rng: np.random.Generator):
        n = len(members)
        wanted = min(n, leaders or round(n**0.5))
        chosen = unit[members[np.sort(rng.choice(n, wanted, replace=False))]]
        self.leaders = chosen[_first_of_twins(chosen)].T.tocsr()  # twins of leaders lead nobody, as in PySparNN
        nearest = np.concatenate([self._nearest(unit[members[i : i + BLOCK]], 1, rng) for i in range(0, n, BLOCK)])
        order = np.argsort(nearest[:, 0], kind="stable")
        cut = np.searchsorted(nearest[order, 0], np.arange(1, self.leaders.shape[1]))
        self.clusters = []
        for mine in np.split(members[order], cut):
            deeper = MOST < len(mine) < n
            self.clusters.append(_Index(unit, mine, leaders, rng) if deeper else (mine, unit[mine].T.tocsr()))

    def ask(self, unit: csr_array, asked: np.ndarray, k_clusters: int, rows: np.ndarray, found: np.ndarray) -> None:
        """Merge what the nearest clusters hold into the neighbors of the rows that ask."""
        rng = np.random.default_rng(1)
        parts = [self._nearest(unit[asked[i : i + BLOCK]], k_clusters, rng) for i in range(0, len(asked), BLOCK)]
        near = np.concatenate(parts)
        order = np.argsort(near, axis=None, kind="stable")
        cut = np.searchsorted(near.ravel()[order], np.arange(1, len(self.clusters)))
        for cluster, pairs in zip(self.clusters, np.split(order, cut), strict=True):
            queries = asked[pairs // near.shape[1]]
            if isinstance(cluster, _Index):
                cluster.ask(unit, queries, k_clusters, rows, found)
                continue
            for start in range(0, len(queries), BLOCK):
                some, (members, columns) = queries[start : start + BLOCK], cluster
                merge_best(some, members, 1 - (unit[some] @ columns).toarray(), rows, found)

    def _nearest(self, some: csr_array, many: int, rng: np.random.Generator) -> np.ndarray:
        """Return the nearest leaders, by chance among those that are equally near (most have nothing in common)."""
        near = (some @ self.leaders).toarray() + rng.uniform(0, 1e-7, self.leaders.shape[1]).astype(np.float32)
        many = min(many, near.shape[1])
        return np.argpartition(-near, many - 1, axis=1)[:, :many].astype(np.int32)


def _first_of_twins(rows: csr_array) -> np.ndarray:
    seen = {}
    for i in range(rows.shape[0]):
        one = slice(rows.indptr[i], rows.indptr[i + 1])
        seen.setdefault((rows.indices[one].tobytes(), rows.data[one].tobytes()), i)
    return np.array(list(seen.values()))
