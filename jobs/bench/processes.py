"""A process and its descendants: who they are, what memory they take, their end."""

import os
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

from bench.ladders import CORES

MEMORY = "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS"


def bind() -> None:
    """Bind this process, and so those it starts, to the first CORES cores."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def family(pid: int) -> dict[int, psutil.Process]:
    """Return a process and its descendants by id."""
    try:
        parent = psutil.Process(pid)
        return {one.pid: one for one in [parent, *parent.children(recursive=True)]}
    except psutil.NoSuchProcess:
        return {}


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the memory of processes together, a page they share counted once where the system tells (PSS)."""
    total = 0.0
    for one in processes:
        try:
            total += (one.memory_full_info().pss if MEMORY == "PSS" else one.memory_info().rss) / 1e6
        except (psutil.Error, OSError):
            continue  # it has just ended
    return total


def end(process: subprocess.Popen[bytes], known: Collection[psutil.Process]) -> None:
    """Kill what is left of a process and those known of it, and wait until they have let go of memory and cores."""
    for one in known:  # by id: a Spark worker outlives a driver that was killed
        try:
            one.kill()
        except psutil.Error:
            continue
    process.wait()
    psutil.wait_procs(known, timeout=10)
