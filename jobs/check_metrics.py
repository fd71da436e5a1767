"""Every metric on real vectors: annspark's recall against exact neighbors that SciPy finds, seconds and memory.

    pip install '.[bench]' scipy
    python jobs/check_metrics.py --out metrics.json --sets path/to/NAME.npz path/to/NAME.csr.npz:50000

A set is an .npz with X (dense) or with data, indices, indptr and shape (sparse rows), perhaps only its first ROWS.
Each build is a process of its own, recall 0.95; the true recall is that of --users users, counted by distance.  For
hamming numbers become bits (above 127, or above 0 where some are negative), for jaccard sets of what is not zero.
"""

import argparse
from pathlib import Path

from check.build import build
from check.exact import NAMES
from check.rows import as_bits, load
from check.runs import read, write

DENSE, SPARSE = ("inner_product", *NAMES), ("cosine", "euclidean", "inner_product", "jaccard")
COLUMNS = {"set": "set", "rows": "rows", "metric": "metric", "seconds": "seconds", "peak MB": "peak_mb"}
COLUMNS |= {"true recall": "true", "audited": "audited", "predicted": "predicted", "probes": "probes"}
COLUMNS |= {"pairs a user": "pairs_per_user", "faults": "faults", "ended": "status"}


def main() -> None:
    """Run everything, writing after every run."""
    args = _parser().parse_args()
    runs = read(args.out)
    done = {(run["set"], run["metric"], run["target"], run["seed"]) for run in runs}
    for name, rows in map(load, args.sets):
        known = DENSE if not hasattr(rows, "indptr") else SPARSE
        for metric in (metric for metric in known if metric in args.metrics):
            if (name, metric, args.recall, args.seed) in done:
                continue
            settings = {"metric": metric, "recall": args.recall, "seed": args.seed}
            record, _ = build(as_bits(rows) if metric == "hamming" else rows, settings, args.limit, args.users)
            asked = {"set": name, "rows": rows.shape[0], "metric": metric, "target": args.recall, "seed": args.seed}
            runs.append(asked | record)
            write(args.out, runs, COLUMNS)
            print(as_line(runs[-1]), flush=True)
    missed = [run for run in runs if run["status"] != "ok" or run["faults"] or run["true"] < run["target"] - 0.02]
    print(f"{len(runs)} runs: {len(missed)} failed, missed, incomplete, or truly more than 0.02 below the target")


def as_line(run: dict) -> str:
    """Return a run in words."""
    numbers = {name: run.get(name, "-") for name in ("true", "audited", "predicted", "short", "widened", "probes")}
    told = ", ".join(f"{name} {value}" for name, value in numbers.items())
    took = f"{run['seconds']:.1f} s, {run['peak_mb']:,} MB"
    return f"{run['set']}, {run['metric']}: {run['status']}, {took}, {told} {run.get('faults') or ''}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON, table beside it; its runs are not made again")
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET[:ROWS]")
    parser.add_argument("--metrics", nargs="+", choices=sorted({*DENSE, *SPARSE}), default=[*DENSE, *SPARSE])
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=500, help="whose exact neighbors are found (500)")
    parser.add_argument("--limit", type=float, default=1800, metavar="SECONDS", help="of a build (1800)")
    return parser


if __name__ == "__main__":
    main()
