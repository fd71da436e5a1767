"""Where the time of a build goes: seconds and core-seconds by step, and what spent them. Linux only.

    python -m jobs.benchmark.core_seconds --sets synthetic:1000000x64 --probes 2
    python -m jobs.benchmark.core_seconds --sets synthetic-text:{100000,300000,1000000,3000000}x128 --recall 0.95

Prints a Markdown table for each set, and for several sets how core-seconds grow with the rows. A set is named as in the
benchmark. Linux tells what every thread has spent; the report of the build tells when its steps were.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs.benchmark.commands import command, environment
from jobs.benchmark.sets import Data, prepare
from jobs.benchmark.systems import Setting
from jobs.benchmark.watch import bind, family, memory_mb

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
_LOOKS_AT_MEMORY = 4  # every so many looks, as the system walks page tables for it

Spent = dict[tuple[int, str], tuple[str, float]]  # by process and thread: kind and seconds
Step = tuple[str, float, float]  # name, start and end
Divided = list[tuple[str, float, dict[str, float]]]  # of each step: name, seconds, core-seconds by kind


@dataclass(frozen=True)
class Measured:
    """One run: what its report tells, what its steps took, and the most memory it had (PSS)."""

    report: dict[str, Any]
    steps: Divided
    peak_mb: float


@dataclass(frozen=True)
class Built:
    """One build: its set, what its report tells, and what its steps took."""

    data: Data
    report: dict[str, Any]
    steps: Divided

    def core_seconds(self, step: str | None = None) -> float:
        """Return the core-seconds of a step, 0 where the build did not have it, or of all steps."""
        return total([one for one in self.steps if step in (None, one[0])])[1]


def main() -> None:
    """Build once with each set and print the tables."""
    args = _parser().parse_args()
    setting = {"probes": args.probes} if args.recall is None else {"recall": args.recall}
    builds = []
    for source in args.sets:
        builds.append(build(prepare(source, args.cache), setting))
        print(f"{builds[-1].data.name}\n\n{as_table(builds[-1].steps)}\n", flush=True)
    if len(builds) > 1:
        print(as_growth(builds))


def build(data: Data, setting: Setting) -> Built:
    """Build once, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
        output = Path(folder) / "neighbors"
        line = command("annspark", setting, data, output, sys.executable)
        one = measured(line, Path(folder), Path(f"{output}.report"))
        return Built(data, one.report, one.steps)


def measured(line: list[str], folder: Path, report: Path) -> Measured:
    """Run a command of annspark, and measure it.

    folder : for Spark's files
    report : the folder that the report is written to
    """
    started, ended, looks, peak_mb = run(line, environment("annspark", folder, sys.executable))
    told = report / "report.json"
    return Measured(json.loads(told.read_text()), divide(steps_of(told, started, ended), looks), peak_mb)


def total(steps: Divided) -> tuple[float, float]:
    """Return the seconds and the core-seconds of some steps together."""
    return sum(seconds for _, seconds, _ in steps), sum(sum(spent.values()) for _, _, spent in steps)


def compare_runs(sets: list[str], columns: str, rows_of: Callable[[str, Path], list[str]]) -> None:
    """Make runs with each set, in a folder of its own, and print the Markdown table of all.

    columns : names of the columns, between bars
    rows_of : makes the runs with a set, and returns a row of the table for each
    """
    rows = []
    for source in sets:
        with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
            rows += rows_of(source, Path(folder))
    print("\n".join([f"| {columns} |", f"|{'---|' * (columns.count('|') + 1)}", *rows]))


def as_table(steps: Divided) -> str:
    """Return the seconds and core-seconds of each step, and of all."""
    totals = {kind: sum(spent[kind] for _, _, spent in steps) for kind in KINDS}
    lines = [f"| step | seconds | core-seconds | {' | '.join(KINDS)} |", f"|{'---|' * (3 + len(KINDS))}"]
    for name, seconds, spent in [*steps, ("all", sum(seconds for _, seconds, _ in steps), totals)]:
        numbers = [seconds, sum(spent.values()), *spent.values()]
        lines.append(f"| {name} | {' | '.join(f'{number:.1f}' for number in numbers)} |")
    return "\n".join(lines)


def as_growth(builds: list[Built]) -> str:
    """Return the core-microseconds that a row takes in each step, a column for each build."""
    told = {
        "recall": [f"{one.report['recall']['mean']:.4f}" for one in builds],
        "probes": [f"{(one.report['calibration'] or one.report['settings'])['probes']:.1f}" for one in builds],
        "pairs of a row": [f"{one.report['cost']['pairs_per_user']:,.0f}" for one in builds],
        "copies of a row": [f"{one.report['cost']['copies_per_user']:.2f}" for one in builds],
    }
    for name in dict.fromkeys(step for one in builds for step, _, _ in one.steps):
        told[f"{name}, us"] = [f"{1e6 * one.core_seconds(name) / one.data.rows:.1f}" for one in builds]
    told["all, us"] = [f"{1e6 * one.core_seconds() / one.data.rows:.1f}" for one in builds]
    lines = [f"| | {' | '.join(one.data.name for one in builds)} |", f"|---|{'---|' * len(builds)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in told.items())])


def run(line: list[str], environ: dict[str, str]) -> tuple[float, float, list[tuple[float, Spent]], float]:
    """Run a command to its end; return when it started and ended, what every thread had spent by when, and peak MB."""
    started, looks, peak_mb = time.time(), [], 0.0
    with subprocess.Popen(line, env=environ, stdout=subprocess.DEVNULL, preexec_fn=bind) as process:
        while process.poll() is None:
            looks.append((time.time(), _spent_by(process.pid)))
            if len(looks) % _LOOKS_AT_MEMORY == 0:
                peak_mb = max(peak_mb, memory_mb(family(process.pid).values()))
            time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)}: exit code {process.returncode}")
    return started, time.time(), looks, peak_mb


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


def divide(steps: list[Step], looks: list[tuple[float, Spent]]) -> Divided:
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
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET")
    parser.add_argument("--probes", type=float, default=2, help="of each vector (2)")
    parser.add_argument("--recall", type=float, help="asked for, in place of probes")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "annspark-bench")
    return parser


if __name__ == "__main__":
    main()
