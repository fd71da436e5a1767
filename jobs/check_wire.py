"""What half precision on the wire changes: recall, bytes shuffled, seconds, and how many users' lists.

    spark-submit --properties-file conf/spark-local.conf jobs/check_wire.py --sets path/to/NAME.npz:cosine

A set, followed by its metric, is joined with whole vectors and with rounded ones that keep --spare candidates beyond k.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from pyspark.sql import SparkSession

from annspark import build_neighbors
from bench.ladders import K
from check.exact import score
from check.rows import load, write_rows
from check.table import read_found

USERS = 1_000  # whose exact neighbors are found


def main() -> None:
    """Run everything, and print a line of JSON a run."""
    args = _parser().parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    spark = SparkSession.builder.appName("check wire").getOrCreate()
    for path, _, metric in (source.rpartition(":") for source in args.sets):
        name, rows = load(path)
        asked = np.random.default_rng(2).permutation(len(rows))[:USERS]
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "vectors", rows)
            for probes in args.probes:
                whole = None
                for wire, spare in (("float32", 0), *(("float16", spare) for spare in args.spare)):
                    asked_for = {"metric": metric, "probes": probes, "wire": wire}
                    record = run_once(spark, folder, asked_for, spare)
                    found = read_found(Path(folder) / "table", len(rows), K)
                    whole = whole or found  # the first is of whole vectors
                    same = float((found.near == whole.near).all(axis=1).mean())
                    recall, error = score(rows, metric, asked, found.near[asked], found.told[asked])
                    record |= {"same_lists": same, "recall": recall, "distance_error": error}
                    print(json.dumps({"set": name, **asked_for, "spare": spare, **record}), flush=True)


def run_once(spark: SparkSession, folder: str, settings: dict, spare: int) -> dict:
    """Build a table and return its cost; seconds are of routing, joining, merging and writing."""

    def kept(k: int, half: bool) -> int:
        return k + spare * half

    with patch("annspark.flow.join.count_kept", kept), patch("annspark.flow.refine.count_kept", kept):
        result = build_neighbors(spark.read.parquet(f"{folder}/vectors"), k=K, **settings)
    result.table.write.mode("overwrite").parquet(f"{folder}/table")
    result.table.unpersist()
    return asdict(result.report.cost) | {"join_seconds": result.report.seconds["join"]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET:METRIC")
    parser.add_argument("--probes", nargs="+", type=float, default=[4.0, 12.0])
    parser.add_argument("--spare", nargs="+", type=int, default=[0, 2, 5], help="candidates kept beyond k (0 2 5)")
    return parser


if __name__ == "__main__":
    main()
