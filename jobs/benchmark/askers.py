"""The systems that answer one vector at a time: how each builds its index, opens it and is asked.

An index is a file; annspark's is a folder, which `annspark fit` made. Opening it gives a function of the effort, and
that gives the function that is timed: it takes a query and returns ids and distances of K rows. Builds use CORES
threads where a library can, answers use one. A query has the form that costs a system the least: under cosine the
libraries get it at length 1.
"""

import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmark.systems import CORES, K, Setting

Ask = Callable[[Any], tuple[Any, Any]]
Opened = Callable[[Any], Ask]


def build_annoy(annoy: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Any:
    """Build a forest."""
    index = annoy.AnnoyIndex(vectors.shape[1], "angular" if metric == "cosine" else "euclidean")
    for row, vector in enumerate(vectors):
        index.add_item(row, vector.tolist())
    index.set_seed(1)
    index.build(setting["n_trees"], n_jobs=CORES)
    return index


def open_annoy(annoy: Any, path: Path, dim: int, metric: str) -> Opened:
    """Ask a forest: the effort is the nodes it looks at."""
    index = annoy.AnnoyIndex(dim, "angular" if metric == "cosine" else "euclidean")
    index.load(str(path), prefault=True)
    return lambda effort: lambda query: index.get_nns_by_vector(query, K, effort, True)


def build_hnswlib(hnswlib: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Any:
    """Build an HNSW graph."""
    index = hnswlib.Index("ip" if metric == "cosine" else "l2", vectors.shape[1])
    index.init_index(len(vectors), random_seed=1, **setting)
    index.set_num_threads(CORES)
    index.add_items(vectors)
    return index


def open_hnswlib(hnswlib: Any, path: Path, dim: int, metric: str) -> Opened:
    """Ask an HNSW graph: the effort is ef."""
    index = hnswlib.Index("ip" if metric == "cosine" else "l2", dim)
    index.load_index(str(path))
    index.set_num_threads(1)

    def opened(effort: int) -> Ask:
        index.set_ef(effort)
        return lambda query: index.knn_query(query, K)

    return opened


def build_faiss_ivf(faiss: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Any:
    """Build inverted lists: of each, lists_per_root times the root of the rows."""
    kind = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    lists = int(setting["lists_per_root"] * len(vectors) ** 0.5)
    faiss.omp_set_num_threads(CORES)
    index = faiss.IndexIVFFlat(faiss.IndexFlat(vectors.shape[1], kind), vectors.shape[1], lists, kind)
    # As many points a list as faiss asks for; it stays silent only then.
    index.train(vectors[:: max(1, len(vectors) // (40 * lists))])
    index.add(vectors)
    return index


def open_faiss_ivf(faiss: Any, path: Path, dim: int, metric: str) -> Opened:
    """Ask inverted lists: the effort is the lists searched."""
    index = faiss.read_index(str(path))
    faiss.omp_set_num_threads(1)

    def opened(effort: int) -> Ask:
        index.nprobe = effort

        def ask(query: np.ndarray) -> tuple[Any, Any]:
            distances, ids = index.search(query, K)
            return ids, distances

        return ask

    return opened


def build_pysparnn(pysparnn: Any, vectors: np.ndarray, metric: str, setting: Setting) -> Any:
    """Build indexes of sampled leaders, each with the rows that are nearest to it: 1,000 or the root of the rows."""
    from pysparnn.matrix_distance import DenseCosineDistance, SlowEuclideanDistance

    random.seed(1)
    distance = DenseCosineDistance if metric == "cosine" else SlowEuclideanDistance
    return pysparnn.MultiClusterIndex(vectors, np.arange(len(vectors)), distance_type=distance, **setting)


def open_pysparnn(pysparnn: Any, path: Path, dim: int, metric: str) -> Opened:
    """Ask those indexes: the effort is the clusters searched in each."""
    index = pickle.loads(path.read_bytes())

    def opened(effort: int) -> Ask:
        def ask(query: np.ndarray) -> tuple[Any, Any]:
            distances, ids = zip(*index.search(query, K, effort)[0], strict=True)
            return ids, distances

        return ask

    return opened


def open_annspark(annspark: Any, path: Path, dim: int, metric: str) -> Opened:
    """Ask an index of annspark: the effort is the leaves searched, None as many as were calibrated."""
    index = annspark.open_index(str(path))
    return lambda effort: lambda query: index.search(query, k=K, probes=effort)


def _rungs(first: int, last: int, step: float = 1.15) -> tuple[int, ...]:
    """Return whole numbers that grow by about a factor."""

    def grow() -> Iterator[int]:
        number = first
        while number <= last:
            yield number
            number = max(number + 1, round(number * step))

    return tuple(grow())


@dataclass(frozen=True)
class Asker:
    """A system.

    module : to import
    effort : what its effort is called
    ladder : of efforts, from the cheapest to the dearest
    open   : see above
    builds : the settings to build with, each of which takes part; none where the index is made elsewhere
    build  : builds
    save   : writes what was built to a file
    form   : makes a query, float32 (dim,), what the system takes
    raw    : queries come as they are in the input, under cosine too
    """

    module: str
    effort: str
    ladder: tuple[Any, ...]
    open: Callable[[Any, Path, int, str], Opened]
    builds: tuple[Setting, ...] = ({},)
    build: Callable[[Any, np.ndarray, str, Setting], Any] | None = None
    save: Callable[[Any, Any, Path], None] | None = None
    form: Callable[[np.ndarray], Any] = np.asarray
    raw: bool = False


def _as_row(query: np.ndarray) -> np.ndarray:
    return query[None]


def _pickle(module: Any, index: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(index))


ASKERS = {
    "annspark": Asker("annspark", "probes", _rungs(1, 256), open_annspark, raw=True),
    "annspark-calibrated": Asker("annspark", "probes", (None,), open_annspark, raw=True),
    "annoy": Asker(
        "annoy", "search_k", _rungs(100, 200_000), open_annoy, ({"n_trees": 50}, {"n_trees": 100}), build_annoy,
        lambda _, index, path: index.save(str(path)), np.ndarray.tolist,
    ),
    "hnswlib": Asker(
        "hnswlib", "ef", _rungs(10, 4_000), open_hnswlib, ({"M": 16, "ef_construction": 200},), build_hnswlib,
        lambda _, index, path: index.save_index(str(path)),
    ),
    "faiss-ivf": Asker(
        "faiss", "nprobe", _rungs(1, 1_000), open_faiss_ivf, ({"lists_per_root": 1}, {"lists_per_root": 4}),
        build_faiss_ivf, lambda faiss, index, path: faiss.write_index(index, str(path)), _as_row,
    ),
    "pysparnn": Asker(
        "pysparnn.cluster_index", "k_clusters", _rungs(1, 500), open_pysparnn, ({"num_indexes": 2},),
        build_pysparnn, _pickle, _as_row,
    ),
}  # fmt: skip
