"""annoy: a forest that then answers for every vector in it, one by one."""

from concurrent.futures import ThreadPoolExecutor

import annoy
import numpy as np

from bench.ladders import CORES, K, Setting


def search(vectors: np.ndarray, metric: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Build n_trees, look at search_k nodes."""
    n, dim = vectors.shape
    index = annoy.AnnoyIndex(dim, "euclidean")  # the same neighbors as cosine on vectors of length 1
    for row, vector in enumerate(vectors):
        index.add_item(row, vector.tolist())
    index.set_seed(1)
    index.build(setting["n_trees"], n_jobs=CORES)
    rows, found = np.full((n, K + 1), -1), np.full((n, K + 1), np.inf, np.float32)

    def ask(start: int) -> None:
        for row in range(start, n, CORES):
            near, far = index.get_nns_by_item(row, K + 1, setting["search_k"], include_distances=True)
            rows[row, : len(near)], found[row, : len(near)] = near, far

    with ThreadPoolExecutor(CORES) as threads:  # annoy lets go of Python's lock while it searches
        list(threads.map(ask, range(CORES)))
    return rows, found**2 / 2 if metric == "cosine" else found
