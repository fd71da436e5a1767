"""How hard sets are: the probes that calibration chooses, the local intrinsic dimension, the spectrum.

    python -m jobs.benchmark.hardness --sets synthetic:1000000x64 path/to/NAME.npz path/to/NAME.npz@30000

The tree is grown and calibrated as a build does it with its defaults, by the same code and without Spark.
"""

import argparse
from dataclasses import dataclass

import numpy as np

from annspark.core.calibrate import CALIBRATION_USERS, HomeDistances, choose_probes
from annspark.core.centre_forest import grow_forest
from annspark.core.exact import search_exactly
from annspark.core.metric import METRICS, prepare
from annspark.core.nearest_lists import empty_lists
from annspark.core.plan import PLAN_SAMPLE, count_leaves, count_sampled
from annspark.settings import RECALL, Settings
from jobs.benchmark.sets import load, metric_of, name_of
from jobs.benchmark.systems import K

NEAR = 100  # nearest rows that the intrinsic dimension of a row is estimated from
AXES = (32, 64, 96, 128, 192)
SPECTRUM_ROWS = 50_000  # rows that the spectrum is taken from, at most


@dataclass(frozen=True)
class Hardness:
    """What makes a set hard.

    probes    : leaves that a row goes to on average, as calibration chooses them for the default recall
    dimension : median of the local intrinsic dimensions of the same rows
    shares    : of the variance in the first 32, 64, ... principal axes, as far as there are more dimensions
    """

    probes: float
    dimension: float
    shares: tuple[float, ...]


def main(arguments: list[str] | None = None) -> None:
    """Print a line of a table per set."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.hardness", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--sets", nargs="+", required=True, help="as for python -m jobs.benchmark")
    print("| set | rows x numbers | probes | intrinsic dimension |", " | ".join(f"first {r}" for r in AXES), "|")
    print("|---" * (4 + len(AXES)) + "|")
    for source in parser.parse_args(arguments).sets:
        vectors = load(source)
        found = measure(vectors, metric_of(source))
        cells = [name_of(source), "{:,} x {:,}".format(*vectors.shape), f"{found.probes:.3g}", f"{found.dimension:.0f}"]
        cells += [*(f"{share:.2f}" for share in found.shares), *["-"] * (len(AXES) - len(found.shares))]
        print("|", " | ".join(cells), "|", flush=True)


def measure(vectors: np.ndarray, metric: str) -> Hardness:
    """Return how hard a set is under cosine or euclidean distance."""
    prepared = prepare(vectors, metric)
    rows, dim = prepared.shape
    order = np.random.default_rng(0).permutation(rows)
    settings = Settings()
    n_leaves = count_leaves(rows, settings.leaf_rows, K)
    sample = prepared[order[: count_sampled(rows, dim, n_leaves)]]
    forest = grow_forest(sample, n_leaves, trees=1, split=settings.split, seed=settings.seed, metric=metric)

    users = order[-CALIBRATION_USERS:]
    queries = prepared[users]
    distances, near = nearest_of(users, prepared, metric)
    i, j = np.repeat(np.arange(len(users)), K), near[:, :K].ravel()
    leaves_nearer, margins = forest.find_home_distances(queries, i, prepared, j)
    shape = (len(users), K, 2)
    homes = HomeDistances(np.ones(shape[:2], bool), leaves_nearer.reshape(shape), margins.reshape(shape))
    probes = choose_probes(forest, prepared[order[-PLAN_SAMPLE:]], homes, RECALL).probes
    return Hardness(probes, intrinsic_dimension(distances), shares_of_variance(prepared[order[:SPECTRUM_ROWS]]))


def nearest_of(users: np.ndarray, prepared: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the euclidean distances of some rows to their nearest others, ascending, and these others' numbers."""
    most = min(NEAR, len(prepared) - 1)
    lists = empty_lists(len(users), most + 1)
    lists = search_exactly(prepared[users], prepared, np.arange(len(prepared)), lists, metric)
    # A row with many twins may be missing from its own list.  Its last neighbor is left out then.
    own = lists.hashes == users[:, None]
    own[:, -1] |= ~own.any(axis=1)
    raw = METRICS[metric].to_raw(lists.distances[~own].reshape(-1, most))
    return np.sqrt(raw), lists.hashes[~own].reshape(-1, most)


def intrinsic_dimension(distances: np.ndarray) -> float:
    """Return the median of the local intrinsic dimensions: by maximum likelihood, from distances ascending by row.

    Source: Levina and Bickel 2004, NIPS; Amsaleg et al. 2015, KDD.
    """
    with np.errstate(divide="ignore"):
        return float(np.median(-1 / np.log(distances / distances[:, -1:]).mean(axis=1)))


def shares_of_variance(vectors: np.ndarray) -> tuple[float, ...]:
    """Return the shares of the variance in the first principal axes, for each number of AXES below the dimension."""
    variances = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64)))[::-1]
    return tuple(float(variances[:r].sum() / variances.sum()) for r in AXES if r < vectors.shape[1])


if __name__ == "__main__":
    main()
