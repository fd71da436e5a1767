"""Show a few rows of the demo's neighbor table, its recall and its time: show.py TABLE REPORT."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

WORDS = ("frog", "piano", "monday", "paris", "three", "doctor", "guitar", "snow")


def main(table: str, report: str) -> None:
    """Print the neighbors of WORDS, then what the report says."""
    rows = pq.read_table(table, filters=[("user_id", "in", WORDS)]).to_pylist()
    neighbors = {row["user_id"]: [one["neighbor_id"] for one in row["neighbors"]] for row in rows}
    print("\nNearest words, nearest first:\n")
    for word in WORDS:
        print(f"{word}: {' '.join(neighbors[word])}")

    told = json.loads((Path(report) / "report.json").read_text(encoding="utf-8"))
    recall, users = told["recall"], told["rows"]["written"]
    print(
        f"\nRecall  {recall['mean']:.1%} of the true {recall['k']} nearest were found "
        f"(95 % interval {recall['low']:.1%} to {recall['high']:.1%}, measured on {recall['users']:,} words)"
        f"\nTime    {told['seconds']['total']:.0f} s for all {users:,} words, Spark's start not counted"
        f"\nTable   {Path(table).resolve()}"
        f"\nReport  {Path(report).resolve()}/report.json"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
