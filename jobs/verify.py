"""Run the nightly job on vectors whose exact neighbors are known, and compare: recall, completeness, time, memory.

    pip install '.[bench]' && python jobs/verify.py NAME.npz [--probes 8 24]

NAME.npz holds X, row number = id; NAME.truth.npz beside it holds query_rows, their exact distances, ascending, and the
metric.  Each run is a spark-submit in local[2].
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq


def watch(command: list[str]) -> tuple[float, dict[str, float]]:
    """Run a command; return its seconds and the peak resident MB of its Java, driver and worker processes."""
    start, peak = time.perf_counter(), {"jvm": 0.0, "driver": 0.0, "workers": 0.0, "all": 0.0}
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            now = dict.fromkeys(peak, 0.0)
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                try:
                    words, size = " ".join(one.cmdline()), one.memory_info().rss / 1e6
                except psutil.Error:
                    continue
                now["jvm" if "java" in words else "workers" if "pyspark.daemon" in words else "driver"] += size
                now["all"] += size
            peak = {kind: max(peak[kind], now[kind]) for kind in peak}
            time.sleep(0.1)
    assert process.returncode == 0, command
    return time.perf_counter() - start, peak


def compare(table: str, truth: dict[str, np.ndarray], n: int) -> str:
    """Return the recall against the exact neighbors, and whether everybody has ten others, each once."""
    rows = pq.read_table(table).combine_chunks().sort_by("user_id")
    ids, found = (
        column.to_numpy().reshape(-1, 10) for column in rows["neighbors"].combine_chunks().flatten().flatten()
    )
    everybody = np.array_equal(rows["user_id"].to_numpy(), np.arange(n)) and not (ids == np.arange(n)[:, None]).any()
    complete = everybody and bool((np.diff(np.sort(ids, axis=1), axis=1) > 0).all())
    kth = truth["distances"][:, 9].astype(np.float64)[:, None]
    close = (found[truth["query_rows"]] <= kth * (1 + 1e-5) + 1e-6).mean(axis=1)
    return f"{close.mean():.4f} +- {1.96 * close.std() / len(kth) ** 0.5:.4f}, complete {complete}"


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("sets", nargs="+", type=Path)
parser.add_argument("--probes", nargs="+", default=["8", "24"])
args = parser.parse_args()
submit = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]"]
for source in args.sets:
    x, truth = np.load(source)["X"].astype(np.float32), dict(np.load(source.with_suffix(".truth.npz")))
    with tempfile.TemporaryDirectory() as folder:
        vectors, out = f"{folder}/vectors.parquet", f"{folder}/neighbors"
        lists = pa.ListArray.from_arrays(pa.array(np.arange(len(x) + 1) * x.shape[1], pa.int32()), pa.array(x.ravel()))
        table = pa.table({"user_id": np.arange(len(x)), "vector": lists})
        pq.write_table(table, vectors, row_group_size=len(x) // 8)  # row groups that the cores can share
        for probes in args.probes:
            job = [str(Path(__file__).with_name("build_neighbors.py")), "--input", vectors, "--output", out]
            options = ["--overwrite", "--metric", str(truth["metric"]), "--probes", probes]
            seconds, peak = watch([*submit, *job, *options])
            told = json.loads(Path(f"{out}.report/report.json").read_text())["recall"]
            print(f"{source.stem}, {truth['metric']}, probes {probes}: recall@10 {compare(out, truth, len(x))}")
            print(
                f"  reported {told['mean']:.4f} ({told['low']:.4f} to {told['high']:.4f}), {seconds:.1f} s, peak MB:",
                end="",
            )
            print("".join(f" {kind} {size:.0f}" for kind, size in peak.items()), flush=True)
