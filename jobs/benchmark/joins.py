"""The leaf join beside another implementation of it: the same vectors and leaves, one core, taking turns.

    python -m jobs.benchmark.joins --other path/to/module.py --sets path/to/NAME.npz path/to/NAME.npz@50000

The other is a Python file with join(vectors, leaf, k): float32 (n, dim), of length 1; int32 (n, probes), the leaf a row
lives in first, then those it visits; it returns int (n, k) neighbors, -1 for none, first.  A line tells microseconds a
row, recall@10, and what a bare matrix product of the pairs compared takes.
"""

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs.benchmark import kernels  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip

from annspark.core.join_dense import join_leaves
from annspark.core.routes import visits_of
from jobs.benchmark.sets import load, name_of
from jobs.benchmark.systems import K
from tests.oracle import exact_distances, recall_by_row

USERS = 1_000  # whose exact neighbors are found


def main() -> None:
    """Print a line per set and number of probes."""
    args = _parser().parse_args()
    other = _module(args.other)
    for source in args.sets:
        vectors = kernels.unit(load(source))
        for probes in args.probes:
            leaf, _ = kernels.route(vectors, args.leaf, probes)
            found = compare(vectors, leaf, other, K, args.repeats)
            print(
                f"{name_of(source)}, {len(vectors):,} x {vectors.shape[1]}, {probes} probes, "
                f"{found.pairs:,.0f} pairs a row: {found.ours:.1f} us, recall {found.our_recall:.4f}; "
                f"other {found.theirs:.1f}, {found.their_recall:.4f}; product {found.product:.1f}.  "
                f"Other / ours {found.theirs / found.ours:.2f}, ours / product {found.ours / found.product:.2f}",
                flush=True,
            )


@dataclass(frozen=True)
class Beside:
    """Microseconds a row on one core, medians of runs that take turns, and recall of USERS rows.

    product : what a bare matrix product of the pairs compared takes
    pairs   : compared, a row
    """

    ours: float
    theirs: float
    product: float
    our_recall: float
    their_recall: float
    pairs: float


def compare(vectors: np.ndarray, leaf: np.ndarray, other: Any, k: int, repeats: int) -> Beside:
    """Time both.

    vectors : float32 (n, dim), of length 1
    leaf    : int32 (n, probes), home first
    other   : has join(vectors, leaf, k), which returns int (n, k) neighbors first
    """
    n, scratch = len(vectors), np.empty(1 << 18, np.float32)
    home, visits = leaf[:, 0].copy(), visits_of(leaf[:, 1:])
    sides = [(vectors[(leaf == one).any(axis=1)], vectors[home == one]) for one in range(leaf.max() + 1)]

    def product() -> None:
        for visitors, residents in sides:
            kernels.multiply(visitors, residents, scratch)

    ways = (lambda: join_leaves(vectors, home, visits, k, "cosine"), lambda: other.join(vectors, leaf, k), product)
    spent = np.median([[kernels.seconds(way, 1) for way in ways] for _ in range(repeats)], axis=0) / n * 1e6
    users = np.random.default_rng(1).permutation(n)[:USERS]
    radius = exact_distances(vectors, users, k, "cosine")[:, -1]
    recalls = (
        recall_by_row(vectors, "cosine", k, users, [row[row >= 0] for row in near[users]], radius=radius).mean()
        for near in (ways[0]().neighbors, ways[1]()[0])
    )
    return Beside(*spent, *recalls, pairs=sum(len(left) * len(right) for left, right in sides) / n)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("other", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.joins",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--other", type=Path, required=True, metavar="FILE.py")
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET[@ROWS]")
    parser.add_argument("--probes", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--leaf", type=int, default=512, help="rows of a leaf (512)")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
