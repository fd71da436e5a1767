"""A process of another way to the neighbors of sparse rows: SYSTEM INPUT OUTPUT SETTING; from Parquet to Parquet."""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from bench.arrays import write_neighbors
from bench.ladders import CORES, K, Setting
from check.rows import read_rows


def main(system: str, source: str, output: str, words: str) -> None:
    """Read, search and write as a nightly job would."""
    rows = read_rows(Path(source))
    norms = np.sqrt(rows.power(2).sum(axis=1))
    unit = csr_array((rows.data / np.repeat(norms, np.diff(rows.indptr)), rows.indices, rows.indptr), rows.shape)
    found = (_brute if system == "sklearn-brute" else _pruning)(unit.astype(np.float32), json.loads(words))
    write_neighbors(output, np.arange(rows.shape[0]), *found)


def _pruning(unit: csr_array, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    from check.pruning import search

    return search(unit, setting)


def _brute(unit: csr_array, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Ask scikit-learn for everybody, some at once."""
    from sklearn.neighbors import NearestNeighbors

    model = NearestNeighbors(n_neighbors=K + 1, metric="cosine", algorithm="brute", n_jobs=CORES).fit(unit)
    step = setting["block"]
    found = [model.kneighbors(unit[start : start + step]) for start in range(0, unit.shape[0], step)]
    distances, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, distances


if __name__ == "__main__":
    main(*sys.argv[1:])
