"""What every thread of a process and its descendants has spent, as Linux counts it."""

import os
from pathlib import Path

from bench.processes import family

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


def spent_by(pid: int) -> Spent:
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
