"""Running a command on two cores: its seconds, its peak memory, and a limit."""

import os
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.benchmark.systems import CORES

MEMORY = "PSS" if Path("/proc/self/smaps_rollup").exists() else "RSS"


@dataclass(frozen=True)
class Watched:
    """What a command did; status is "ok", or says what went wrong."""

    status: str
    seconds: float
    peak_mb: float
    printed: str


def watch(command: list[str], environment: dict[str, str], folder: Path, limit: float) -> Watched:
    """Run a command in a folder for at most limit seconds, and end whatever it leaves running."""
    start, peak, known = time.perf_counter(), 0.0, {}
    with open(folder / "stdout", "w") as out, open(folder / "stderr", "w") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, preexec_fn=bind
        )
        while process.poll() is None and time.perf_counter() - start < limit:
            before = time.perf_counter()
            known |= family(process.pid)
            peak = max(peak, memory_mb(known.values()))
            # The system walks page tables for this: let that take a twentieth of one core at most.
            pause = max(0.2, 20 * (time.perf_counter() - before))
            _wait(process, min(pause, start + limit - time.perf_counter()))
        seconds, finished = time.perf_counter() - start, process.poll() is not None
        end(process, (known | family(process.pid)).values())
    printed, errors_text = ((folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
    status = "ok" if process.returncode == 0 else f"failed: {reason(errors_text + printed, process.returncode)}"
    return Watched(status if finished else f"did not finish in {limit:.0f} s", seconds, peak, printed)


def reason(text: str, code: int) -> str:
    """Return the line of a failed command's words that says most: its last that names an error, or its last."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("at ")]  # frames of Java's stack
    lacking = [line for line in lines if "unresolved dependency" in line]  # the rest only says that Java ended
    naming = [
        line
        for line in lines
        if "Error" in line.removeprefix("Caused by: ").split(":")[0] or "Exception" in line or "annspark:" in line
    ]
    return (lacking or naming or lines or [""])[-1][:300] or f"exit code {code}"


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(max(seconds, 0.01))
    except subprocess.TimeoutExpired:
        return


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
