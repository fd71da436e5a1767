"""Where the time of a build goes: seconds and core-seconds by step, and what spent them. Linux only.

    python -m jobs.benchmark.core_seconds --set synthetic:1000000x64 --probes 2

Prints a Markdown table. A set is named and configured as in the benchmark. Linux tells what every thread has spent; the
report of the build tells when its steps were.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from jobs.benchmark.commands import command, environment
from jobs.benchmark.sets import prepare
from jobs.benchmark.watch import bind, family

# The beginnings of names of Java's threads; the others are the driver's.
_JAVA = {
    "Executor task": "Java's tasks",
    "C1 ": "compilers",
    "C2 ": "compilers",
    "GC ": "collector",
    "ParGC": "collector",
}
KINDS = ("Python", "Java's tasks", "Java's driver", "compilers", "collector")
_EVERY = 0.5  # seconds between two looks

Spent = dict[tuple[int, str], tuple[str, float]]  # by process and thread: kind and seconds
Step = tuple[str, float, float]  # name, start and end


def main() -> None:
    """Run once and print the table."""
    args = _parser().parse_args()
    data = prepare(args.set, args.cache)
    with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
        output = Path(folder) / "neighbors"
        line = command("annspark", {"probes": args.probes}, data, output, sys.executable)
        started, ended, looks = run(line, environment("annspark", Path(folder), sys.executable))
        steps = steps_of(Path(f"{output}.report") / "report.json", started, ended)
    rows = divide(steps, looks)
    totals = {kind: sum(spent[kind] for _, _, spent in rows) for kind in KINDS}
    print(f"| step | seconds | core-seconds | {' | '.join(KINDS)} |\n|{'---|' * (3 + len(KINDS))}")
    for name, seconds, spent in [*rows, ("all", ended - started, totals)]:
        numbers = [seconds, sum(spent.values()), *spent.values()]
        print(f"| {name} | {' | '.join(f'{number:.1f}' for number in numbers)} |")


def run(line: list[str], environ: dict[str, str]) -> tuple[float, float, list[tuple[float, Spent]]]:
    """Run a command to its end; return when it started and ended, and what every thread had spent by when."""
    started, looks = time.time(), []
    with subprocess.Popen(line, env=environ, stdout=subprocess.DEVNULL, preexec_fn=bind) as process:
        while process.poll() is None:
            looks.append((time.time(), _spent_by(process.pid)))
            time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)}: exit code {process.returncode}")
    return started, time.time(), looks


def steps_of(report: Path, started: float, ended: float) -> list[Step]:
    """Return the steps that a report tells of, one right after the other, to about a second.

    What comes before the first is named start. The report is made when the table is audited: what comes after is named
    publish, with the exit of the process.
    """
    told = json.loads(report.read_text())
    seconds = told["seconds"]
    last = datetime.fromisoformat(told["created"]).timestamp() + 0.5  # it tells whole seconds
    first = last - seconds.pop("total")
    steps = [("start", started, first)]
    for name, spent in seconds.items():
        steps.append((name, steps[-1][2], steps[-1][2] + spent))
    return [*steps, ("publish", steps[-1][2], ended)]


def divide(steps: list[Step], looks: list[tuple[float, Spent]]) -> list[tuple[str, float, dict[str, float]]]:
    """Divide what was spent between two looks among the steps they fall into, by time: name, seconds, by kind."""
    found, nothing = [], (steps[0][1], {})
    for name, first, last in steps:
        totals = dict.fromkeys(KINDS, 0.0)
        for (before, earlier), (after, later) in zip([nothing, *looks], looks, strict=False):
            share = max(0.0, min(after, last) - max(before, first)) / (after - before)
            for thread, (kind, seconds) in later.items():
                totals[kind] += share * (seconds - earlier.get(thread, ("", 0.0))[1])
        found.append((name, last - first, totals))
    return found


def _spent_by(pid: int) -> Spent:
    """Return what every thread of a process and its descendants has spent."""
    spent: Spent = {}
    for process in family(pid):
        try:
            name = Path(f"/proc/{process}/comm").read_text().strip()
            for thread in os.listdir(f"/proc/{process}/task"):
                # A thread's name stands in brackets, and may hold some itself.
                head, _, tail = Path(f"/proc/{process}/task/{thread}/stat").read_text().rpartition(") ")
                told = head.partition("(")[2]
                kind = next((of for begin, of in _JAVA.items() if told.startswith(begin)), "Java's driver")
                ticks = sum(map(int, tail.split()[11:13]))
                spent[process, thread] = (kind if name == "java" else "Python", ticks / os.sysconf("SC_CLK_TCK"))
        except (OSError, ValueError):
            continue  # it has just ended
    return spent


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.core_seconds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", required=True)
    parser.add_argument("--probes", type=float, default=2)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "annspark-bench")
    return parser


if __name__ == "__main__":
    main()
