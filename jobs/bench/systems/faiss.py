"""faiss: inverted lists, an HNSW graph, and exact search."""

import faiss
import numpy as np

from bench.ladders import K, Setting


def ivf(vectors: np.ndarray, metric: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Search nprobe of 4 sqrt(n) lists."""
    kind, lists = _kind(metric), int(4 * len(vectors) ** 0.5)
    quantizer = faiss.IndexFlat(vectors.shape[1], kind)
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], lists, kind)
    # As many points a list as faiss asks for; it stays silent only then.
    index.train(vectors[:: max(1, len(vectors) // (40 * lists))])
    index.add(vectors)
    index.nprobe = setting["nprobe"]
    return _rows(index.search(vectors, K + 1), metric)


def hnsw(vectors: np.ndarray, metric: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Build with M and ef_construction, ask with ef."""
    # l2 is faster here than the inner product, and on vectors of length 1 it gives cosine's neighbors too.
    index = faiss.IndexHNSWFlat(vectors.shape[1], setting["M"], faiss.METRIC_L2)
    index.hnsw.efConstruction, index.hnsw.efSearch = setting["ef_construction"], setting["ef"]
    index.add(vectors)
    squared, rows = index.search(vectors, K + 1)
    return rows, squared / 2 if metric == "cosine" else np.sqrt(squared)


def exact(vectors: np.ndarray, metric: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Compare everybody with everybody."""
    return _rows(faiss.knn(vectors, vectors, K + 1, metric=_kind(metric)), metric)


def _kind(metric: str) -> int:
    return faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2


def _rows(found: tuple[np.ndarray, np.ndarray], metric: str) -> tuple[np.ndarray, np.ndarray]:
    return found[1], 1 - found[0] if metric == "cosine" else np.sqrt(np.maximum(found[0], 0))
