"""The runs: which to make, one process of one system from its start to a scored table, and results.json."""

import json
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from jobs.benchmark.commands import command, environment, java_options, python_for
from jobs.benchmark.sets import Data
from jobs.benchmark.systems import CORES, SYSTEMS, K, Setting, as_text
from jobs.benchmark.watch import MEMORY, watch
from tests.oracle import faults_of, recall_by_row

OK = "ok"
# The highest recall in the tables is 0.99: a dearer setting than one that finds this much has nothing to add.
ENOUGH = 0.996
# What a process that is already up, compiled and connected would still have to do.
WORK = ("load", "compute", "write")
PACKAGES = (
    "pyspark",
    "numpy",
    "pyarrow",
    "pynndescent",
    "numba",
    "hnswlib",
    "faiss-cpu",
    "annoy",
    "pipnn",
    "rho-pysparnn",
)


@dataclass(frozen=True)
class Run:
    """One process from start to exit; work is its seconds less start-up and compilation, told what annspark reports."""

    set: str
    system: str
    setting: str
    repeat: int
    status: str
    seconds: float
    peak_mb: float
    work: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    recall: float = 0.0
    half_width: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def order_of(sets: list[str], systems: list[str], repeats: int) -> Iterator[tuple[int, str, str, int]]:
    """Yield repeat, set, system and rung: the systems take turns, so that a slow hour of the machine hits them all."""
    for repeat in range(1, repeats + 1):
        for data in sets:
            for rung in range(max(len(SYSTEMS[system].ladder) for system in systems)):
                for system in systems:
                    if rung < len(SYSTEMS[system].ladder):
                        yield repeat, data, system, rung


def is_pointless(earlier: list[Run], data: str, system: str, rung: int) -> bool:
    """Say whether a setting that was no dearer failed or ran out of time, or a cheaper one found enough."""
    rungs = {as_text(setting): number for number, setting in enumerate(SYSTEMS[system].ladder)}
    ours = [run for run in earlier if (run.set, run.system) == (data, system) and run.setting in rungs]
    failed = any(run.status != OK and rungs[run.setting] <= rung for run in ours)
    return failed or any(run.recall >= ENOUGH and rungs[run.setting] < rung for run in ours)


def measure(data: Data, system: str, setting: Setting, repeat: int, limit: float) -> Run:
    """Run a system once in a fresh process, and score its table."""
    names = (data.name, system, as_text(setting), repeat)
    with tempfile.TemporaryDirectory(prefix="annspark-bench-", ignore_cleanup_errors=True) as place:
        folder, output = Path(place), Path(place) / "neighbors"
        shared = data.folder.parent
        python, lacking = python_for(system, shared)
        if lacking:
            return Run(*names, f"unavailable: {lacking}", 0.0, 0.0)
        environ = environment(system, folder, python, java_options(system, shared))
        seen = watch(command(system, setting, data, output, python), environ, folder, limit)
        if seen.status != OK:
            return Run(*names, seen.status, round(seen.seconds, 2), round(seen.peak_mb))
        told, phases = {}, {}
        if SYSTEMS[system].runner == "annspark":
            told = json.loads((Path(f"{output}.report") / "report.json").read_text())
            phases, work = told["seconds"], told["seconds"]["total"]
            told = {name: told[name] for name in ("version", "recall", "cost", "leaves")}
        else:
            phases = json.loads(seen.printed.splitlines()[-1])
            work = sum(phases.get(phase, 0) for phase in WORK)
        vectors = np.load(data.folder / "vectors.npy", mmap_mode="r")
        found = score(output, vectors, dict(np.load(data.folder / "truth.npz")))
        seconds = seen.seconds - phases.get("rehearsal", 0)
        rounded = (round(seconds, 2), round(seen.peak_mb), round(work, 2), phases)
        return Run(*names, OK, *rounded, round(found.recall, 5), round(found.half_width, 5), found.faults, told)


@dataclass(frozen=True)
class Score:
    """Recall with half its 95 % interval, and the users with each fault."""

    recall: float
    half_width: float
    faults: dict[str, int]


def score(table: Path, vectors: np.ndarray, truth: dict[str, np.ndarray]) -> Score:
    """Score a table of user_id and neighbors against the exact distances of some users."""
    read = pq.read_table(table, columns=["user_id", "neighbors"]).combine_chunks()
    users, lists = read["user_id"].to_numpy(), read["neighbors"].combine_chunks()
    owners = np.repeat(users, lists.value_lengths().fill_null(0).to_numpy())
    others = lists.flatten().field("neighbor_id").to_numpy()
    asked, order = truth["query_rows"], np.argsort(owners, kind="stable")
    ordered = owners[order]
    sides = (np.searchsorted(ordered, asked, side) for side in ("left", "right"))
    near = (others[order[first:last]] for first, last in zip(*sides, strict=True))
    radius = truth["distances"][:, K - 1].astype(np.float64)
    by_user = recall_by_row(vectors, str(truth["metric"]), K, asked, near, radius=radius)
    half_width = 1.96 * by_user.std() / len(by_user) ** 0.5
    return Score(float(by_user.mean()), float(half_width), faults_of(users, owners, others, len(vectors), K))


def read_results(path: Path) -> list[Run]:
    """Return the runs of a results.json, none where there is no such file."""
    return [Run(**run) for run in json.loads(path.read_text())["runs"]] if path.exists() else []


def write_results(path: Path, runs: list[Run], sets: list[Data]) -> None:
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
