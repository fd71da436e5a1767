"""pipnn: overlapping balls joined inside, pruned to a graph, which then answers for every vector in it."""

import numpy as np
import pipnn

from bench.ladders import CORES, K, Setting


def search(vectors: np.ndarray, metric: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Carve balls in some runs, search with a beam of beam_L."""
    # Euclidean throughout: a little faster than its cosine, and the same neighbors on vectors of length 1.
    rows, found = pipnn.self_knn_graph(vectors, K, n_jobs=CORES, **setting)
    return rows.astype(np.int64), found**2 / 2 if metric == "cosine" else found
