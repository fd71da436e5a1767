"""Show a few rows of the demo's neighbor table, groups made of it, recall and time: show.py TABLE GROUPS."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

WORDS = ("frog", "piano", "monday", "paris", "three", "doctor", "guitar", "snow")
FIRST = 5  # group shown: the largest are lists of names


def main(table: str, groups: str) -> None:
    """Print the neighbors of WORDS and some groups, then what the reports say."""
    rows = pq.read_table(table, filters=[("user_id", "in", WORDS)]).to_pylist()
    neighbors = {row["user_id"]: [one["neighbor_id"] for one in row["neighbors"]] for row in rows}
    print("\nNearest words, nearest first:\n")
    for word in WORDS:
        print(f"{word}: {' '.join(neighbors[word])}")

    members = defaultdict(list)
    for row in pq.read_table(groups).sort_by("user_id").to_pylist():
        members[row["kept_id"]].append(row["user_id"])
    print(f"\nGroups of near-duplicates, found from that table, some of {len(members):,}:\n")
    for word in sorted(members, key=lambda kept: (-len(members[kept]), kept))[FIRST : FIRST + len(WORDS)]:
        print(" ".join(members[word]))

    told = _report(table)
    recall, users = told["recall"], told["rows"]["written"]
    print(
        f"\nRecall  {recall['mean']:.1%} of the true {recall['k']} nearest were found "
        f"(95 % interval {recall['low']:.1%} to {recall['high']:.1%}, measured on {recall['users']:,} words)"
        f"\nTime    {told['seconds']['total']:.0f} s for all {users:,} words, "
        f"{_report(groups)['seconds']['total']:.0f} s for the groups, Spark's start not counted"
        f"\nTable   {Path(table).resolve()}"
        f"\nReport  {Path(table).resolve()}.report/report.json"
    )


def _report(table: str) -> dict[str, Any]:
    return json.loads(Path(f"{table}.report", "report.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
