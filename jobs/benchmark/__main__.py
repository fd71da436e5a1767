"""annspark beside other ways to every user's 10 nearest: the same two cores, from a fresh process to a finished table.

    pip install '.[bench]'
    python -m jobs.benchmark --out results --sets synthetic:100000x64 path/to/NAME.npz --systems annspark hnswlib

A set is synthetic:ROWSxDIM or, harder, synthetic-text:ROWSxDIM (a smaller one is the beginning of a larger one); an
.npz with X, row number = id, and NAME.truth.npz beside it (query_rows, their exact distances, ascending, the metric);
or its beginning, NAME.npz@ROWS.
Each system climbs its ladder of settings until one finds 0.996, fails or takes longer than --limit.  The systems take
turns.  results.json and results.md are written after every run, and --resume makes only the runs they lack: with more
--systems, --sets or --repeats it widens what is there.  The picture is drawn at the end.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from jobs.benchmark.plot import plot
from jobs.benchmark.runs import is_pointless, measure, order_of, read_results, write_results
from jobs.benchmark.sets import prepare
from jobs.benchmark.summary import as_markdown
from jobs.benchmark.systems import SYSTEMS, as_text


def main() -> None:
    """Run what is asked for, writing the results after every run."""
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    if path.exists() and not args.resume:
        sys.exit(f"{path} exists: --resume goes on with it, another --out starts anew.")
    sets = {data.name: data for data in (prepare(source, args.cache) for source in args.sets)}
    runs = read_results(path)
    done = {(run.set, run.system, run.setting, run.repeat) for run in runs}
    for repeat, name, system, rung in order_of(list(sets), args.systems, args.repeats):
        setting = SYSTEMS[system].ladder[rung]
        if args.settings and as_text(setting) not in args.settings:
            continue
        if (name, system, as_text(setting), repeat) in done or is_pointless(runs, name, system, rung):
            continue
        print(f"{name}, {system}, {as_text(setting)}, {repeat}: ", end="", flush=True)
        run = measure(sets[name], system, setting, repeat, args.limit)
        runs.append(run)
        faults = ", ".join(f"{number} {fault}" for fault, number in run.faults.items())
        print(f"{run.status}, {run.seconds:.1f} s, recall {run.recall:.4f}, {run.peak_mb:,.0f} MB {faults}", flush=True)
        write_results(path, runs, list(sets.values()))
        (args.out / "results.md").write_text(as_markdown(json.loads(path.read_text()), runs))
    if runs:
        plot(args.out, runs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of results.json, results.md and results.png")
    add("--sets", nargs="+", required=True, metavar="SET", help="sets of vectors, see above")
    add("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    add("--settings", nargs="+", metavar="TEXT", help="only these settings, as results.md writes them: 'probes=8'")
    add("--repeats", type=int, default=3, help="runs of each setting, of which the medians count (3)")
    add("--limit", type=float, default=1800, metavar="SECONDS", help="a run that takes longer is stopped (1800)")
    add("--resume", action="store_true", help="go on with the results in --out")
    cache = Path(tempfile.gettempdir()) / "annspark-bench"
    add("--cache", type=Path, default=cache, help=f"folder that keeps the sets and their exact neighbors ({cache})")
    return parser


if __name__ == "__main__":
    main()
