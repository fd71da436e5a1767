"""Core-seconds of a command by step of annspark and by what spent them, as Linux counts them of every thread."""

import os
import re
import subprocess
import time
from pathlib import Path
from threading import Thread

from bench.processes import bind, family

_STEP = re.compile(r"(\w[\w ]*?) +([0-9.]+) s  ")  # a line of annspark.steps; words of other lines have no such end
_EVERY = 0.5  # seconds between two looks
# The beginnings of names of Java's threads; the others are the driver's.
_JAVA = {
    "Executor task": "Java's tasks",
    "C1 ": "compilers",
    "C2 ": "compilers",
    "GC ": "collector",
    "ParGC": "collector",
}
KINDS = ("Python", "Java's tasks", "Java's driver", "compilers", "collector")
Spent = dict[tuple[int, str], tuple[str, float]]


def profile(command: list[str], environment: dict[str, str]) -> list[tuple[str, float, dict[str, float]]]:
    """Run a command to its end; return per step its name, its seconds and core-seconds by kind.

    What comes before annspark's first step is named start, what comes after its last exit.
    """
    started, looks, ends = time.perf_counter(), [], []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=bind) as process:

        def look() -> None:
            while process.poll() is None:
                looks.append((time.perf_counter() - started, _spent(process.pid)))
                time.sleep(_EVERY)

        Thread(target=look).start()
        for line in process.stdout or ():
            if found := _STEP.match(line):
                ends.append((found[1], float(found[2]), time.perf_counter() - started))
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return by_step(ends, time.perf_counter() - started, looks)


def by_step(
    ends: list[tuple[str, float, float]], end: float, looks: list[tuple[float, Spent]]
) -> list[tuple[str, float, dict[str, float]]]:
    """Divide what was spent between two looks among the steps they fall into, by time.

    ends  : the name of each step, its seconds, and when it ended
    end   : when all ended
    looks : when, and what every thread had spent by then
    """
    steps = [(name, last - seconds, last) for name, seconds, last in ends]
    steps = [("start", 0.0, steps[0][1]), *steps, ("exit", steps[-1][2], end)] if steps else [("all", 0.0, end)]
    found = []
    for name, first, last in steps:
        totals = dict.fromkeys(KINDS, 0.0)
        for (before, earlier), (after, later) in zip([(0.0, {}), *looks], looks, strict=False):
            share = max(0.0, min(after, last) - max(before, first)) / (after - before)
            for thread, (kind, seconds) in later.items():
                totals[kind] += share * (seconds - earlier.get(thread, ("", 0.0))[1])
        found.append((name, last - first, totals))
    return found


def _spent(pid: int) -> Spent:
    """Return what every thread of a process and its descendants has spent: by process and thread, kind and seconds."""
    spent: Spent = {}
    for process in family(pid):
        try:
            # Its name stands in brackets, and may hold some itself.
            name = Path(f"/proc/{process}/comm").read_text().strip()
            for thread in os.listdir(f"/proc/{process}/task"):
                head, _, tail = Path(f"/proc/{process}/task/{thread}/stat").read_text().rpartition(") ")
                told = head.partition("(")[2]
                kind = next((of for begin, of in _JAVA.items() if told.startswith(begin)), "Java's driver")
                ticks = sum(map(int, tail.split()[11:13]))
                spent[process, thread] = (kind if name == "java" else "Python", ticks / os.sysconf("SC_CLK_TCK"))
        except (OSError, ValueError):
            continue  # it has just ended
    return spent
