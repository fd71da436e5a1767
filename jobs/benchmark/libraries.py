"""Libraries on one machine, each in a process: NAME INPUT OUTPUT METRIC SETTING; prints the seconds by phase as JSON.

Each search gets the imported library, float32 vectors (of length 1 under cosine), the metric and the setting. It
returns rows and distances of some K neighbors, nearest first; each row may find itself, and row -1 stands for none.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmark.systems import CORES, K, Setting, timed

COMPILED_ON = 20_000  # rows; on fewer, pynndescent takes other ways than on many and compiles only those

Found = tuple[np.ndarray, np.ndarray]


def faiss_ivf(faiss: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Inverted lists: search nprobe of 4 sqrt(n) lists."""
    kind, lists = _faiss_kind(faiss, metric), int(4 * len(vectors) ** 0.5)
    quantizer = faiss.IndexFlat(vectors.shape[1], kind)
    index = faiss.IndexIVFFlat(quantizer, vectors.shape[1], lists, kind)
    # As many points a list as faiss asks for; it stays silent only then.
    index.train(vectors[:: max(1, len(vectors) // (40 * lists))])
    index.add(vectors)
    index.nprobe = setting["nprobe"]
    return _faiss_found(index.search(vectors, K + 1), metric)


def faiss_hnsw(faiss: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Search an HNSW graph: build with M and ef_construction, ask with ef."""
    # l2 is faster here than the inner product, and on vectors of length 1 it gives cosine's neighbors too.
    index = faiss.IndexHNSWFlat(vectors.shape[1], setting["M"], faiss.METRIC_L2)
    index.hnsw.efConstruction, index.hnsw.efSearch = setting["ef_construction"], setting["ef"]
    index.add(vectors)
    squared, rows = index.search(vectors, K + 1)
    return rows, squared / 2 if metric == "cosine" else np.sqrt(squared)


def faiss_exact(faiss: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Compare everybody with everybody."""
    return _faiss_found(faiss.knn(vectors, vectors, K + 1, metric=_faiss_kind(faiss, metric)), metric)


def _faiss_kind(faiss: Any, metric: str) -> int:
    return faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2


def _faiss_found(found: Found, metric: str) -> Found:
    return found[1], 1 - found[0] if metric == "cosine" else np.sqrt(np.maximum(found[0], 0))


def hnswlib(hnswlib: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Search an HNSW graph: build with M and ef_construction, ask with ef."""
    # On vectors of length 1 the inner product gives cosine's neighbors, a third faster than l2 does.
    index = hnswlib.Index("ip" if metric == "cosine" else "l2", vectors.shape[1])
    index.init_index(len(vectors), M=setting["M"], ef_construction=setting["ef_construction"])
    index.set_num_threads(CORES)
    index.add_items(vectors)
    index.set_ef(setting["ef"])
    rows, found = index.knn_query(vectors, K + 1)
    return rows.astype(np.int64), found if metric == "cosine" else np.sqrt(found)


def pynndescent(pynndescent: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Neighbors of neighbors, from a start by random projection trees: take the first of n_neighbors neighbors."""
    index = pynndescent.NNDescent(vectors, n_neighbors=setting["n_neighbors"], n_jobs=CORES, random_state=0)
    rows, found = (part[:, : K + 1] for part in index.neighbor_graph)
    # Euclidean throughout: as fast as its cosine, and the same neighbors on vectors of length 1.
    return rows, found**2 / 2 if metric == "cosine" else found


def annoy(annoy: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Ask a forest for every vector in it, one by one: build n_trees, look at search_k nodes."""
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


def pipnn(pipnn: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Found:
    """Overlapping balls joined inside, pruned to a graph: carve balls in some runs, search with a beam of beam_L."""
    # Euclidean throughout: a little faster than its cosine, and the same neighbors on vectors of length 1.
    rows, found = pipnn.self_knn_graph(vectors, K, n_jobs=CORES, **setting)
    return rows.astype(np.int64), found**2 / 2 if metric == "cosine" else found


SEARCHES: dict[str, Callable[..., Found]] = {
    search.__name__: search for search in (faiss_ivf, faiss_hnsw, faiss_exact, hnswlib, pynndescent, annoy, pipnn)
}


def main(code: str, source: str, output: str, metric: str, words: str) -> None:
    """Read, search and write as a nightly job would."""
    seconds: dict[str, float] = {}
    setting, search = json.loads(words), SEARCHES[code]
    with timed(seconds, "import"):
        library = import_module(code.partition("_")[0])
    with timed(seconds, "load"):
        ids, vectors = _read_vectors(source)
    if code == "pynndescent":
        # It compiles itself by numba inside a first search.  What that search itself takes, and the second that tells
        # it, are a rehearsal, which no seconds of a run count.
        for name in ("first", "second"):
            with timed(seconds, name):
                search(library, _unit(vectors[:COMPILED_ON]), metric, setting)
        seconds["compile"] = round(max(0, seconds.pop("first") - seconds["second"]), 3)
        seconds["rehearsal"] = 2 * seconds.pop("second")
    with timed(seconds, "compute"):
        rows, distances = search(library, _unit(vectors) if metric == "cosine" else vectors, metric, setting)
    with timed(seconds, "write"):
        _write_neighbors(output, ids, rows, distances)
    print(json.dumps(seconds))


def _read_vectors(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (n,) and float32 vectors (n, dim)."""
    table = pq.read_table(path).combine_chunks()
    ids = table["user_id"].to_numpy()
    return ids, table["vector"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _write_neighbors(path: str, ids: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> None:
    """Write each user's first K neighbors but itself; row -1 stands for none."""
    kept = (rows >= 0) & (rows != np.arange(len(rows))[:, None])
    kept &= np.cumsum(kept, axis=1) <= K
    ends = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    columns = [pa.array(ids[rows[kept]]), pa.array(distances[kept].astype(np.float32))]
    each = pa.StructArray.from_arrays(columns, ["neighbor_id", "distance"])
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), each)
    pq.write_table(pa.table({"user_id": ids, "neighbors": lists}), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
