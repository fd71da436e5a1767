"""Calibrate: the exact neighbors of a few users, by one pass over all vectors, and where they fall in the forest."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import types as T

from annspark.core.calibrate import Chances, find_chances
from annspark.core.exact import meet, nobody_met
from annspark.core.forest import Forest
from annspark.flow.arrow import collect, numbers, to_binary
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.tables import DISTANCES, HASHES, VECTORS

_RANKS, _MARGINS = "ranks", "margins"
_TOLD = (DISTANCES, HASHES, _RANKS, _MARGINS)  # what a partition tells


def find_exact(
    users: Users, audited: Sample, calibrated: Sample, forest: Forest, k: int, metric: str
) -> tuple[np.ndarray, Chances]:
    """Return how far the exact neighbors of some users reach, and where those of others fall in the forest.

    k       : neighbors a user has, at most the number of other users
    returns : float32 (n_audited,), distance of each audited user's exact k-th neighbor; the calibrated users' chances

    Every sampled user is itself a row of the table, and left out by its hash; where twins hide it, by its distance, 0.
    """
    queries = np.concatenate([calibrated.vectors, audited.vectors])
    own = np.concatenate([calibrated.hashes, audited.hashes])
    n_kept, n, m, ways = len(calibrated.ids), len(queries), k + 1, 2 * len(forest.trees)
    schema = T.StructType([T.StructField(name, T.BinaryType()) for name in _TOLD])
    table = users.table.select(HASHES, VECTORS)
    parts = collect(table.mapInArrow(_searcher(queries, n_kept, m, forest, metric), schema))

    def across(name: str, dtype: type[np.generic], rows: int, *each: int) -> np.ndarray:
        """Return what all partitions told, side by side: (rows, n_partitions * m, ...)."""
        told = numbers(parts[name], dtype).reshape(len(parts), rows, m, *each)
        return np.moveaxis(told, 0, 1).reshape(rows, len(parts) * m, *each)

    distances, hashes = across(DISTANCES, np.float32, n), across(HASHES, np.int64, n)
    # The user itself comes last; of m with distance 0, where it may not be among them, any k will do.
    distances = np.where(hashes == own[:, None], np.float32(np.inf), distances)
    first = np.lexsort((hashes, distances), axis=1)[:, :k]
    nearest = np.take_along_axis(distances, first, axis=1)
    mine = first[:n_kept]
    chances = Chances(
        np.isfinite(nearest[:n_kept]),
        np.take_along_axis(across(_RANKS, np.int32, n_kept, ways), mine[:, :, None], axis=1),
        np.take_along_axis(across(_MARGINS, np.float32, n_kept, ways), mine[:, :, None], axis=1),
    )
    # A single user has no neighbor, and nothing to miss.
    return nearest[n_kept:, -1] if k else np.zeros(n - n_kept, np.float32), chances


def _searcher(
    queries: np.ndarray, n_kept: int, m: int, forest: Forest, metric: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    dim = queries.shape[1]

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        best = nobody_met(len(queries), m, n_kept, dim)
        for batch in batches:
            vectors = numbers(batch.column(1), np.float32).reshape(-1, dim)
            best = meet(queries, vectors, numbers(batch.column(0), np.int64), best, metric)
        met = np.repeat(queries[:n_kept], m, axis=0)
        ranks, margins = find_chances(forest, met, best.vectors.reshape(-1, dim))
        told = (best.distances, best.hashes, ranks, margins)
        yield pa.RecordBatch.from_arrays([to_binary(one, np.array([one.size])) for one in told], list(_TOLD))

    return search
