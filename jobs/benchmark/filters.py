"""What filters take beside a plain build: seconds by step, one run each in turn, plain first and last. Linux only.

    python -m jobs.benchmark.filters --sets synthetic:1000000x64 synthetic-text:1000000x128

The filters: within a column of 50 groups, the largest of 22 % of the rows; excluded pairs, ten for each row: random
ones, and the ten nearest. Prints a Markdown table of each run, and one of all.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.benchmark.commands import annspark
from jobs.benchmark.core_seconds import as_table, compare_runs, measured, total
from jobs.benchmark.sets import load, metric_of, name_of, write_vectors
from jobs.benchmark.systems import K

_GROUPS = 50


def main() -> None:
    """Build with each filter, and print the tables."""
    args = _parser().parse_args()
    columns = "set | build | recall | seconds | core-seconds | seconds beside the plain ones"
    compare_runs(args.sets, columns, partial(_builds_of, filters=args.filters, recall=args.recall))


def _builds_of(source: str, folder: Path, filters: list[str], recall: float) -> list[str]:
    """Build with one set and each filter; return a row of the table of all runs for each."""
    vectors, given = load(source), folder / "vectors.parquet"
    write_vectors(given, vectors)
    _write_groups(given)
    found = []
    for number, name in enumerate(["plain", *filters, "plain"]):
        output = folder / f"neighbors-{number}"
        flags = ["--input", str(given), "--output", str(output), "--metric", metric_of(source), "--recall", str(recall)]
        line = annspark(sys.executable, "build", *flags, "--k", str(K), *_flags(name, folder, len(vectors)))
        one = measured(line, folder, Path(f"{output}.report"))
        print(f"{name_of(source)}, {name}\n\n{as_table(one.steps)}\n", flush=True)
        found.append((name, one.report["recall"]["mean"], *total(one.steps)))
    plain = np.mean([seconds for name, _, seconds, _ in found if name == "plain"])
    return [
        f"| {name_of(source)} | {name} | {mean:.4f} | {seconds:.1f} | {spent:.1f} | {seconds / plain - 1:+.0%} |"
        for name, mean, seconds, spent in found
    ]


def _write_groups(path: Path) -> None:
    """Give every row a group: group i has 1 / i as many rows as the first."""
    table = pq.read_table(path)
    shares = 1 / np.arange(1, _GROUPS + 1)
    group = np.random.default_rng(0).choice(_GROUPS, len(table), p=shares / shares.sum())
    pq.write_table(table.append_column("group", pa.array(group)), path, row_group_size=-(-len(table) // 8))


def _flags(name: str, folder: Path, n: int) -> list[str]:
    """Return the flags of a filter; write the pairs that it excludes."""
    if name == "plain":
        return []
    if name == "within":
        return ["--within", "group"]
    pairs = folder / "pairs.parquet"
    if name == "exclude-random":
        ids, others = np.repeat(np.arange(n), K), np.random.default_rng(1).integers(n, size=n * K)
    else:
        table = pq.read_table(folder / "neighbors-0", columns=["user_id", "neighbors"])
        neighbors = table["neighbors"].combine_chunks()
        ids = table["user_id"].combine_chunks().take(pc.list_parent_indices(neighbors))
        others = neighbors.flatten().field("neighbor_id")
    pq.write_table(pa.table({"user_id": ids, "neighbor_id": others}), pairs, row_group_size=1 << 20)
    return ["--exclude", str(pairs)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.filters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET")
    names = ["within", "exclude-random", "exclude-nearest"]
    parser.add_argument("--filters", nargs="+", choices=names, default=names, help="all")
    parser.add_argument("--recall", type=float, default=0.95)
    return parser


if __name__ == "__main__":
    main()
