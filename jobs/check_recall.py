"""What was asked for, predicted, audited and true: every set, target and seed given, in one session.

    spark-submit --properties-file conf/spark-local.conf jobs/check_recall.py --out recalls.json --sets path/to/NAME.npz

Sets are named as for benchmark.py.  True recall is that of all users in sets of up to 40,000, else of the users whose
exact neighbors come with the set, so that it is itself known to some 0.007 only there.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from pyspark.sql import SparkSession

from annspark import RecallMissed, build_neighbors
from bench.score import score
from bench.sets import Data, prepare
from bench.truth import load_truth
from check.runs import read, write

COLUMNS = {name: name for name in ("set", "target", "seed", "probes", "predicted", "audited", "low", "high", "true")}


def main() -> None:
    """Run everything, writing after every run, and print how often the truth was where the audit had it."""
    args = _parser().parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    spark = SparkSession.builder.appName("check recall").getOrCreate()
    runs = read(args.out)
    done = {(run["set"], run["target"], run["seed"]) for run in runs}
    for data in (prepare(source, args.cache) for source in args.sets):
        truth = load_truth(data.folder, all_up_to=40_000)
        for seed, target in ((seed, target) for seed in range(args.seeds) for target in args.targets):
            if (data.name, target, seed) not in done:
                asked = {"set": data.name, "target": target, "seed": seed}
                runs.append(asked | run_once(spark, data, truth, target, seed))
                write(args.out, runs, COLUMNS)
                print(json.dumps(runs[-1]), flush=True)
    inside = sum(run["low"] <= run["true"] <= run["high"] for run in runs)
    below = sum(run["passed"] and run["true"] < run["target"] - (run["high"] - run["low"]) / 2 for run in runs)
    print(f"{len(runs)} runs: true recall in {inside} audited intervals, {below} passed truly below by more than that")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON, table beside it; its runs are not made again")
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET")
    parser.add_argument("--targets", nargs="+", type=float, default=[0.8, 0.9, 0.95, 0.99])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each set and target (1)")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "annspark-bench")
    return parser


def run_once(spark: SparkSession, data: Data, truth: dict[str, np.ndarray], target: float, seed: int) -> dict:
    """Return what one run predicted, audited and truly found."""
    vectors, true = spark.read.parquet(str(data.folder / "vectors.parquet")), float("nan")
    try:
        result = build_neighbors(vectors, metric=data.metric, recall=target, seed=seed)
        report = result.report
        with tempfile.TemporaryDirectory() as folder:
            result.table.write.parquet(f"{folder}/table")
            true = score(Path(folder) / "table", np.load(data.folder / "vectors.npy", mmap_mode="r"), truth).recall
        result.table.unpersist()
    except RecallMissed as missed:
        report = missed.report
    goal, recall = report.calibration, report.recall
    told = {"probes": goal.probes, "predicted": goal.predicted, "audited": recall.mean, "low": recall.low}
    return told | {"high": recall.high, "true": true, "passed": report.passed, "seconds": report.seconds["total"]}


if __name__ == "__main__":
    main()
