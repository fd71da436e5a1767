"""Nights of random changes on one index: python -m tests.nights --set path/to/NAME.npz [--nights 20]

Every night some rows are new, as many have other vectors, and as many are gone.  The table of the update is compared
with that of a join of all rows in the same forest, which has to be the same to the bit.  Prints a Markdown table: rows,
recall as audited with its 95 % interval, and the size of the index by night.  Ends with 1 where a table differs.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa

import annspark
from jobs.benchmark.nights import nights
from jobs.benchmark.sets import load, metric_of, write_vectors
from tests.conftest import make_session


def main() -> int:
    """Run the nights and print the table."""
    args = _parser().parse_args()
    vectors = load(args.set)
    print("| night | rows | recall | index, MB | the same as a join of all rows |\n|---|---|---|---|---|")
    same = True
    with tempfile.TemporaryDirectory(prefix="annspark-nights-") as folder:
        place = Path(folder)
        spark = make_session(str(place / "warehouse"))
        for number, (ids, rows) in enumerate(nights(len(vectors), [args.changed] * args.nights)):
            source = place / f"vectors-{number}.parquet"
            write_vectors(source, vectors[rows], ids)
            table = spark.read.parquet(str(source))
            if number == 0:
                with annspark.fit(table, metric=metric_of(args.set), recall=args.recall) as fitted:
                    index = fitted.update(table, place / "night-0").index
                continue
            with patch("annspark.update._pays", lambda *_: False):  # all rows are joined
                whole = index.update(table, place / "whole", overwrite=True)
            with patch("annspark.update._join_all", None):  # not all rows are joined
                made = index.update(table, place / f"night-{number}")
            index, told = made.index, made.report.recall
            is_same = in_order(made.table).equals(in_order(whole.table))
            same &= is_same
            size = sum(file.stat().st_size for file in (place / f"night-{number}").iterdir()) / 1e6
            recall = f"{told.mean:.4f} ({told.low:.4f} to {told.high:.4f})"
            print(f"| {number} | {len(ids):,} | {recall} | {size:.1f} | {'yes' if is_same else 'NO'} |", flush=True)
            for one in (made, whole):
                one.table.unpersist()
        spark.stop()
    return 0 if same else 1


def in_order(table) -> pa.Table:
    """Return a neighbor table in the order of its users."""
    return table.orderBy("user_id").toArrow()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.nights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--set", required=True, help="a set of jobs/benchmark, of which four fifths are indexed at first"
    )
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--changed", type=float, default=0.01, help="share of the rows that change in a night (0.01)")
    parser.add_argument("--recall", type=float, default=0.95)
    return parser


if __name__ == "__main__":
    sys.exit(main())
