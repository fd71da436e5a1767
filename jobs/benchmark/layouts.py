"""UMAP from annspark's table beside UMAP alone: seconds, trustworthiness and a picture of both.

    pip install '.[bench,uses]'
    python -m jobs.benchmark.layouts --set path/to/NAME.npz --out results

A set is named as for python -m jobs.benchmark.  UMAP lays out a few rows first, and what it compiles then is not timed;
nor is Spark's start.  Core-seconds are those of this process and of all that it started.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import umap
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from pyspark.sql import SparkSession
from sklearn.manifold import trustworthiness

from annspark import build_neighbors
from annspark.uses import to_arrays
from jobs.benchmark.sets import prepare

NEIGHBORS = 15  # as UMAP counts: the row itself is one of them
COMPARED, FEW = 5_000, 500  # rows whose neighborhoods are compared, and rows of the layout that is not timed


def main() -> None:
    """Lay a set out in both ways, print what each took and is worth, and draw both."""
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = prepare(args.set, args.cache)
    vectors = np.load(data.folder / "vectors.npy")
    spark = SparkSession.builder.appName("layouts").getOrCreate()
    umap.UMAP(n_neighbors=NEIGHBORS, metric=data.metric, force_approximation_algorithm=True).fit(vectors[:FEW])

    with timed("UMAP alone"):
        alone = umap.UMAP(n_neighbors=NEIGHBORS, metric=data.metric).fit_transform(vectors)
    with timed("annspark.build_neighbors"):
        table = spark.read.parquet(str(data.folder / "vectors.parquet"))
        built = build_neighbors(table, k=NEIGHBORS - 1, metric=data.metric)
    with timed("to_arrays"):
        _, indices, distances = to_arrays(built.table, k=NEIGHBORS, self_first=True)
    with timed("UMAP from the arrays"):
        given = umap.UMAP(n_neighbors=NEIGHBORS, metric=data.metric, precomputed_knn=(indices, distances))
        from_table = given.fit_transform(vectors)

    print(f"recall of annspark's table: {built.report.recall.mean:.4f}")
    rows = np.random.default_rng(0).choice(len(vectors), min(COMPARED, len(vectors)), replace=False)
    layouts = {"UMAP alone": alone, "UMAP from annspark's table": from_table}
    for name, layout in layouts.items():
        worth = trustworthiness(vectors[rows], layout[rows], n_neighbors=NEIGHBORS, metric=data.metric)
        print(f"trustworthiness among {len(rows):,} rows, {name}: {worth:.4f}")
    draw(layouts, args.out / "layouts.png")


@contextmanager
def timed(step: str) -> Iterator[None]:
    """Print the seconds and core-seconds of a step."""
    start, taken = time.perf_counter(), core_seconds()
    yield
    print(f"{step}: {time.perf_counter() - start:.1f} s, {core_seconds() - taken:.0f} core-seconds", flush=True)


def core_seconds() -> float:
    """Return the core-seconds of this process and of those it started, as far as they still run."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


def draw(layouts: dict[str, np.ndarray], path: Path) -> None:
    """Draw layouts side by side; a row has the color of its place in the first of them."""
    first = next(iter(layouts.values()))
    x, y = (first - np.median(first, axis=0)).T
    colors = hsv_to_rgb(np.stack([np.arctan2(y, x) / (2 * np.pi) + 0.5, np.full(len(x), 0.8), np.full(len(x), 0.8)], 1))
    figure = Figure(figsize=(12, 6), layout="constrained")
    for axes, (name, layout) in zip(figure.subplots(1, len(layouts)), layouts.items(), strict=True):
        axes.scatter(*layout.T, s=1, c=colors, linewidths=0, rasterized=True)
        axes.set(title=name, xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.layouts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--set", required=True, help="a set of vectors, as for python -m jobs.benchmark")
    add("--out", type=Path, required=True, help="folder of layouts.png")
    cache = Path(tempfile.gettempdir()) / "annspark-bench"
    add("--cache", type=Path, default=cache, help=f"folder that keeps the set ({cache})")
    return parser


if __name__ == "__main__":
    main()
