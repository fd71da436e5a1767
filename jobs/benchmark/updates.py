"""What an update takes beside a full build: core-seconds by step, for several shares of changed rows. Linux only.

    python -m jobs.benchmark.updates --sets synthetic-text:1250000x128 synthetic:1250000x64

Four fifths of a set are built with an index. Then each share of the rows changes, on the index of the night before: a
third is new, a third is gone, a third has other vectors. Prints a Markdown table of each run, and one of all.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from jobs.benchmark.commands import annspark
from jobs.benchmark.core_seconds import as_table, compare_runs, measured, total
from jobs.benchmark.nights import nights
from jobs.benchmark.sets import load, metric_of, name_of, write_vectors

# An update does these steps as a build does.  The seconds in which a build writes its index are in those of publish.
_SHARED = ("start", "read", "sample", "exact", "audit")


def main() -> None:
    """Build, update, and print the tables."""
    args = _parser().parse_args()
    columns = "set | night | recall | seconds of work | core-seconds of work | share of the build | peak MB"
    compare_runs(args.sets, columns, partial(_nights_of, changed=args.changed, recall=args.recall))


def _nights_of(source: str, folder: Path, changed: list[float], recall: float) -> list[str]:
    """Build and update with one set; return a row of the table of all runs for each."""
    vectors, rows, built = load(source), [], 0.0
    given, output, index = folder / "vectors.parquet", folder / "neighbors", folder / "index"
    places = ["--input", str(given), "--output", str(output), "--index", str(index)]
    for share, (ids, taken) in zip([None, *changed], nights(len(vectors), changed), strict=True):
        write_vectors(given, vectors[taken], ids)
        full = ["build", *places, "--metric", metric_of(source), "--recall", str(recall)]
        line = annspark(sys.executable, *(full if share is None else ["update", *places]))
        one = measured(line, folder, Path(f"{output}.report"))
        night = "build" if share is None else f"{share:.1%} changed"
        print(f"{name_of(source)}, {night}\n\n{as_table(one.steps)}\n", flush=True)
        seconds, spent = total([step for step in one.steps if step[0] not in _SHARED])
        built = built or spent
        told = [name_of(source), night, f"{one.report['recall']['mean']:.4f}", f"{seconds:.1f}", f"{spent:.1f}"]
        rows.append(f"| {' | '.join(told)} | {spent / built:.1%} | {one.peak_mb:,.0f} |")
    size = sum(file.stat().st_size for file in index.iterdir()) / 1e6
    print(f"The index has {size:,.0f} MB.\n", flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.updates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET")
    parser.add_argument("--changed", nargs="+", type=float, default=[0.001, 0.01, 0.1], metavar="SHARE")
    parser.add_argument("--recall", type=float, default=0.95)
    return parser


if __name__ == "__main__":
    main()
