"""The leaf join beside another implementation of it: the same vectors and leaves, one core, taking turns.

    python jobs/check_join.py --other path/to/module.py --sets path/to/NAME.npz path/to/NAME.npz:50000

The other is a Python file with join(vectors, leaf, k): float32 (n, dim), of length 1; int32 (n, probes), the leaf a row
lives in first, then those it visits; it returns int (n, k) neighbors, -1 for none, first.  A line tells microseconds a
row, recall@10, and what a bare matrix product of the pairs compared takes.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

sys.path.append(str(Path(__file__).parents[1]))

from check.joins import compare, route  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip

from annspark.core.metric import prepare
from bench.ladders import K
from check.rows import load


def main() -> None:
    """Print a line per set and number of probes."""
    args = _parser().parse_args()
    other = _module(args.other)
    for name, rows in map(load, args.sets):
        vectors = prepare(rows.astype(np.float32), "cosine")
        for probes in args.probes:
            found = compare(vectors, route(vectors, args.leaf, probes), other, K, args.repeats)
            print(
                f"{name}, {len(vectors):,} x {vectors.shape[1]}, {probes} probes, {found.pairs:,.0f} pairs a row: "
                f"{found.ours:.1f} us, recall {found.our_recall:.4f}; other {found.theirs:.1f}, "
                f"{found.their_recall:.4f}; product {found.product:.1f}.  Other / ours "
                f"{found.theirs / found.ours:.2f}, ours / product {found.ours / found.product:.2f}",
                flush=True,
            )


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("other", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, metavar="FILE.py")
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET[:ROWS]")
    parser.add_argument("--probes", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--leaf", type=int, default=512, help="rows of a leaf (512)")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
