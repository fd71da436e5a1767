"""Core-seconds of a command by step of annspark and by what spent them, as Linux counts them of every thread."""

import re
import subprocess
import time
from threading import Thread

from bench.processes import bind
from check.threads import KINDS, Spent, spent_by

_STEP = re.compile(r"(\w[\w ]*?) +([0-9.]+) s  ")  # a line of annspark.steps; words of other lines have no such end
_EVERY = 0.5  # seconds between two looks


def profile(command: list[str], environment: dict[str, str]) -> list[tuple[str, float, dict[str, float]]]:
    """Run a command to its end; return per step its name, its seconds and core-seconds by kind.

    What comes before annspark's first step is named start, what comes after its last exit.
    """
    started, looks, ends = time.perf_counter(), [], []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=bind) as process:

        def look() -> None:
            while process.poll() is None:
                looks.append((time.perf_counter() - started, spent_by(process.pid)))
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
