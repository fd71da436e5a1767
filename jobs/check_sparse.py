"""Sparse rows under cosine: annspark, cluster pruning and brute force, from a fresh process to a Parquet table.

    pip install '.[bench]' scipy scikit-learn
    python jobs/check_sparse.py --out sparse.json --sets path/to/NAME.csr.npz

Each run is a process on the same two cores.  Recall is that of the rows of NAME.truth.npz (query_rows, distances):
a neighbor counts when it is no further than distances[:, 9] + 1e-6, by a distance computed here.  A system's settings
are tried in turn until one finds 0.995 or does not finish.

"pruning" is the algorithm of PySparNN as its documentation describes it, written anew in jobs/check/pruning.py.
PySparNN itself is not maintained and no package index tried has it (`pip install pysparnn`: no matching distribution).
Ours is faster than the original, which answers one query after the other in Python: here a product of sparse
matrices answers all queries of a cluster together, on both cores.  leaders 0 is sqrt(rows), as its page explains it;
"pruning-defaults" has 1,000 leaders and two indexes, its code's defaults for sets of these sizes.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bench.ladders import as_text
from check.rivals import LADDERS, run_once
from check.rows import load, write_rows
from check.runs import read, write

ENOUGH = 0.995
COLUMNS = {"set": "set", "rows": "rows", "system": "system", "setting": "setting", "seconds": "seconds"}
COLUMNS |= {"peak MB": "peak_mb", "recall": "recall", "faults": "faults", "ended": "status"}


def main() -> None:
    """Run everything, writing after every run."""
    args = _parser().parse_args()
    runs = read(args.out)
    for source in args.sets:
        name, rows = load(source)
        truth = dict(np.load(Path(source).with_suffix(".truth.npz")))
        with tempfile.TemporaryDirectory(prefix="annspark-check-") as folder:
            write_rows(Path(folder) / "vectors.parquet", rows)
            for system in args.systems:
                for setting in LADDERS[system]:
                    asked = {"set": name, "rows": rows.shape[0], "system": system, "setting": as_text(setting)}
                    run = next((run for run in runs if asked.items() <= run.items()), None)
                    if run is None:
                        run = asked | run_once(
                            system, setting, Path(folder) / "vectors.parquet", rows, truth, args.limit
                        )
                        runs.append(run)
                        write(args.out, runs, COLUMNS)
                        print(as_line(run), flush=True)
                    if _is_last(run):
                        break


def _is_last(run: dict) -> bool:
    return run["status"].startswith("did not finish") or run.get("recall", 0) >= ENOUGH


def as_line(run: dict) -> str:
    """Return a run in words."""
    took = f"{run['seconds']:.1f} s, {run['peak_mb']:,} MB, recall {run.get('recall', '-')}"
    return (
        f"{run['set']}, {run['system']}, {run['setting']}: {run['status']}, {took} {run.get('faults') or ''}".rstrip()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON, table beside it; its runs are not made again")
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET")
    parser.add_argument("--systems", nargs="+", choices=LADDERS, default=list(LADDERS))
    parser.add_argument("--limit", type=float, default=1800, metavar="SECONDS", help="of a run (1800)")
    return parser


if __name__ == "__main__":
    main()
