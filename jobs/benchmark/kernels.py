"""Each kernel of the core alone, timed on one thread and data of its own against a bare product of the same pairs.

    python -m jobs.benchmark.kernels [--rows N --dim D --leaf ROWS --probes P --k K --cpu C]

A float32 product (sgemm) is what the machine can do at best, so a ratio to it says what is left to gain.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# NumPy's product reads these once, when it is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from annspark.core.best import nobody_met  # noqa: E402
from annspark.core.centre_forest import grow_forest  # noqa: E402
from annspark.core.exact import meet  # noqa: E402
from annspark.core.join_dense import join_leaves  # noqa: E402
from annspark.core.nearest import nearest_centres  # noqa: E402
from annspark.core.routes import visits_of  # noqa: E402
from annspark.core.topk import merge_lists, pack  # noqa: E402

_TILE = 1 << 18


def clusters(n: int, dim: int) -> np.ndarray:
    """Return seeded unit vectors around some hundred middles; a row's coordinates differ in scale, as real ones do."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((max(1, n // 500), dim)) / np.sqrt(1 + np.arange(dim) / 8)
    around = rng.standard_normal((n, dim)) / np.sqrt(1 + np.arange(dim) / 8)
    return unit(middles[rng.integers(0, len(middles), n)] + around)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows at length 1, as float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def route(vectors: np.ndarray, leaf: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leaves that unit vectors go to, home first: int32 (n, probes), and the middles of all leaves."""
    n, n_leaves = len(vectors), max(2, len(vectors) // leaf)
    sample = vectors[np.random.default_rng(0).permutation(n)[: 40 * n_leaves]]
    forest = grow_forest(sample, n_leaves, trees=1, split="two_means", seed=0, metric="cosine")
    centres = forest.trees[0]
    return nearest_centres(vectors - forest.origin, centres, min(probes, len(centres))), centres


def seconds(kernel: Callable[[], Any], repeats: int) -> float:
    """Return the median of a kernel's seconds on the processor, which waiting for other programs does not lengthen."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        kernel()
        times.append(time.thread_time() - start)
    return float(np.median(times))


def multiply(left: np.ndarray, right: np.ndarray, scratch: np.ndarray) -> None:
    """Multiply left by right.T in tiles, and throw the products away."""
    step = max(16, len(scratch) // max(1, len(right)))
    for start in range(0, len(left), step):
        rows = left[start : start + step]
        if len(rows) * len(right) <= len(scratch):
            np.matmul(rows, right.T, out=scratch[: len(rows) * len(right)].reshape(len(rows), -1))
        else:
            rows @ right.T


def measure(rows: int, dim: int, leaf: int, probes: int, k: int, repeats: int) -> list[tuple[str, float, float | None]]:
    """Time the kernels; returns (name, microseconds per row, ratio to the product of the same pairs or None)."""
    vectors = clusters(rows, dim)
    found, centres = route(vectors, leaf, probes)
    home, visits = found[:, 0].copy(), visits_of(found[:, 1:])
    scratch = np.empty(_TILE, np.float32)
    residents = [vectors[home == c] for c in range(len(centres))]
    visitors = [vectors[(found == c).any(axis=1)] for c in range(len(centres))]

    def product() -> None:
        for left, right in zip(visitors, residents, strict=True):
            multiply(left, right, scratch)

    bare = seconds(product, repeats)
    join = seconds(lambda: join_leaves(vectors, home, visits, k, "cosine"), repeats)
    table: list[tuple[str, float, float | None]] = [("product", bare, 1.0), ("selection", join - bare, join / bare - 1)]

    routing = seconds(lambda: nearest_centres(vectors, centres, found.shape[1]), repeats)
    table.append(("routing", routing, routing / seconds(lambda: multiply(vectors, centres, scratch), repeats)))

    joined = join_leaves(vectors, home, visits, k, "cosine")
    keys = np.tile(pack(joined.distances, np.maximum(joined.neighbors, 0)), (2, 1))
    owner = np.tile(np.arange(rows), 2)
    table.append(("merge", seconds(lambda: merge_lists(owner, keys, k), repeats), None))

    queries = vectors[:: max(1, rows // 200)]
    exact = seconds(lambda: meet(queries, vectors, np.arange(rows), nobody_met(len(queries), k), "cosine"), repeats)
    table.append(("exact", exact, exact / seconds(lambda: multiply(vectors, queries, scratch), repeats)))
    return [(name, spent / rows * 1e6, ratio) for name, spent, ratio in table]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.kernels", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--leaf", type=int, default=512, help="rows of a leaf")
    parser.add_argument("--probes", type=int, default=8, help="leaves a row joins, its home included")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", type=int, help="run on this processor only (Linux)")
    options = vars(parser.parse_args(arguments))
    cpu = options.pop("cpu")
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    lines = [f"{'kernel':<10} {'us/point':>9} {'x sgemm':>8}"]
    for name, microseconds, ratio in measure(**options):
        lines.append(f"{name:<10} {microseconds:9.2f} {'' if ratio is None else f'{ratio:8.2f}'}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
