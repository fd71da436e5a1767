"""How many vectors a second one opened index answers, with one thread and with more.

    python -m jobs.benchmark.threads --sets synthetic:1000000x64 --index synthetic:1000000x64=DIR

The sets and their indexes are those of `python -m jobs.benchmark.latency --prepare`.  Threads share one LocalIndex and
take arrays of --sizes vectors.  Rounds with 1 and with --threads take turns, and medians are printed.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import median

from jobs.benchmark.latency import hold_out  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip

from annspark import LocalIndex, open_index
from jobs.benchmark.systems import K

ASKED = 32_000  # vectors of a round, the set's queries again and again, moved by a hundredth
ONE_BY_ONE = 4_000  # vectors of a round that are asked one by one


def main(arguments: list[str] | None = None) -> None:
    """Print vectors a second for each set, size of arrays and number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", metavar="SET", required=True, help="sets of vectors, see above")
    parser.add_argument("--index", nargs="+", metavar="SET=DIR", required=True, help="their indexes")
    parser.add_argument("--threads", type=int, default=2, help="threads that share the index (%(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 250, 1_000, 4_000], help="vectors of an array")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each number of threads (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/annspark-bench"), help="folder that keeps the sets")
    args = parser.parse_args(arguments)
    given = dict(one.partition("=")[::2] for one in args.index)
    for source in args.sets:
        data = hold_out(source, args.cache)
        index = open_index(given[data.name])
        many = moved(data.queries)
        index.search(many, K)
        for size in args.sizes:
            arrays = split(many[: ONE_BY_ONE if size == 1 else ASKED], size)
            seconds: dict[int, list[float]] = {1: [], args.threads: []}
            for _, threads in product(range(args.rounds), seconds):
                seconds[threads].append(seconds_for(index, arrays, threads))
            rates = {threads: sum(map(len, arrays)) / median(some) for threads, some in seconds.items()}
            told = ", ".join(f"{threads} thread(s) {rate:,.0f}" for threads, rate in rates.items())
            print(
                f"{data.name}, arrays of {size:,}: {told} a second, x {rates[args.threads] / rates[1]:.2f}", flush=True
            )


def moved(queries: np.ndarray) -> np.ndarray:
    """Return ASKED vectors like the queries, no two of them equal."""
    rng = np.random.default_rng(4)
    many = np.resize(queries, (ASKED, queries.shape[1]))
    noise = rng.standard_normal(many.shape, np.float32) * np.float32(0.01 * np.abs(queries).mean())
    return np.asarray(many + noise)


def split(vectors: np.ndarray, size: int) -> list[np.ndarray]:
    """Return arrays of the given size."""
    return [vectors[start : start + size] for start in range(0, len(vectors), size)]


def seconds_for(index: LocalIndex, arrays: Sequence[np.ndarray], threads: int) -> float:
    """Return the seconds that all arrays take."""
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda some: index.search(some, K), arrays):
            pass
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
