"""Run the nightly job on vectors whose exact neighbors are known, and compare: recall, completeness, time, memory.

    pip install '.[bench]' && python jobs/verify.py NAME.npz [--probes 8 24]

NAME.npz is a set of jobs/benchmark.py.  Each run is a spark-submit in local[2].
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench.record import OK
from bench.runs import measure
from bench.sets import prepare

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("sets", nargs="+")
parser.add_argument("--probes", nargs="+", type=int, default=[8, 24])
args = parser.parse_args()
with tempfile.TemporaryDirectory() as cache:
    for source in args.sets:
        data = prepare(source, Path(cache))
        for probes in args.probes:
            run = measure(data, "annspark", {"probes": probes}, repeat=1, limit=3600)
            if run.status != OK:
                sys.exit(f"{data.name}, probes {probes}: {run.status}")
            told, faults = run.told["recall"], run.faults or "none"
            print(
                f"{data.name}, {data.metric}, probes {probes}: recall@10 {run.recall:.4f} +- {run.half_width:.4f}, "
                f"reported {told['mean']:.4f} ({told['low']:.4f} to {told['high']:.4f}), faults: {faults}, "
                f"{run.seconds:.1f} s, {run.peak_mb:,.0f} MB at the peak",
                flush=True,
            )
