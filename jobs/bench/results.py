"""results.json: the machine, the versions and every run, written after each."""

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from bench.ladders import CORES
from bench.processes import MEMORY
from bench.record import Run
from bench.sets import Data

PACKAGES = ("pyspark", "numpy", "pyarrow", "pynndescent", "numba", "hnswlib", "faiss-cpu", "annoy", "pipnn")


def read(path: Path) -> list[Run]:
    """Return the runs of a results.json, none where there is no such file."""
    return [Run(**run) for run in json.loads(path.read_text())["runs"]] if path.exists() else []


def write(path: Path, runs: list[Run], sets: list[Data]) -> None:
    """Write the runs, aside and then in place: a benchmark that is stopped leaves what it has."""
    known = json.loads(path.read_text())["sets"] if path.exists() else {}
    known |= {data.name: {"rows": data.rows, "dim": data.dim, "metric": data.metric} for data in sets}
    text = {"date": date.today().isoformat(), "machine": machine(), "versions": versions(), "sets": known}
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(text | {"runs": [asdict(run) for run in runs]}, indent=1) + "\n")
    aside.replace(path)


def machine() -> dict[str, Any]:
    """Return what the runs ran on."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = [line.split(":", 1)[1].strip() for line in told.splitlines() if line.startswith("model name")]
    flags = {word for line in told.splitlines() if line.startswith("flags") for word in line.split()}
    return {
        "cpu": model[0] if model else platform.processor(),
        "vectors": next((name for name in ("avx512f", "avx2", "avx") if name in flags), ""),
        "cores": psutil.cpu_count(),
        "cores_used": CORES,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "memory_counted": MEMORY,
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, Java and the libraries compared."""
    found = {"python": platform.python_version(), "java": _java()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _java() -> str:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    return said.split('"')[1] if '"' in said else "unknown"
