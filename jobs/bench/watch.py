"""Running a command on two cores: its seconds, its peak memory, and a limit."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from bench.processes import bind, end, family, memory_mb


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
