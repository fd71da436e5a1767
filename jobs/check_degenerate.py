"""Degenerate vectors: does every build end, in what time and memory, with a whole table, right where that is known?

    pip install '.[bench]' scipy
    python jobs/check_degenerate.py --out degenerate.json

Each case of jobs/check/cases.py is a build at recall 0.95 in a process of its own, stopped after --limit seconds.  Its
table has to be whole: every id once, k neighbors, nobody their own or twice, in the order of (distance, id).  "true" is
the recall of 200 users, or of 2,000 neighbors, by SciPy's distances; "wrong" says where an answer known beforehand was
not given.
"""

import argparse
from pathlib import Path

from check.build import build
from check.cases import CASES
from check.runs import read, write

COLUMNS = {"case": "case", "rows": "rows", "seconds": "seconds", "peak MB": "peak_mb", "true recall": "true"}
COLUMNS |= {"audited": "audited", "widened": "widened", "faults": "faults", "wrong": "wrong", "ended": "status"}


def main() -> None:
    """Run the cases, writing after every one."""
    args = _parser().parse_args()
    runs = read(args.out)
    for name in args.cases:
        if name in {run["case"] for run in runs}:
            continue
        case = CASES[name]
        rows, known = case.make(max(50, int(case.rows * args.share)))
        record, found = build(rows, case.settings, args.limit, users=max(200, 2_000 // case.settings.get("k", 10)))
        if known and found and len(found.near):
            record["wrong"] = known(found.near, found.told)
        runs.append({"case": name, "rows": rows.shape[0], "settings": case.settings} | record)
        write(args.out, runs, COLUMNS)
        print(as_line(runs[-1]), flush=True)
    bad = [run for run in runs if run["status"] != "ok" or run["faults"] or run.get("wrong")]
    print(f"{len(runs)} cases: {len(bad)} did not end well, are not whole or are wrong")


def as_line(run: dict) -> str:
    """Return a case in words."""
    numbers = {name: run.get(name, "-") for name in ("true", "audited", "predicted", "short", "widened", "probes")}
    told = ", ".join(f"{name} {value}" for name, value in numbers.items())
    took = f"{run['seconds']:.1f} s, {run['peak_mb']:,} MB"
    return f"{run['case']}: {run['status']}, {took}, {told} {run.get('faults') or ''} {run.get('wrong') or ''}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON, table beside it; its cases are not run again")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="; ".join(CASES))
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, to see quickly that all works (1)")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="of a case (600)")
    return parser


if __name__ == "__main__":
    main()
