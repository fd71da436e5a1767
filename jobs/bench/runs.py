"""A run: one process of one system, from its start to a scored table."""

import json
import tempfile
from pathlib import Path

import numpy as np

from bench.commands import command, python_for
from bench.environment import environment, java_options
from bench.ladders import SYSTEMS, Setting, as_text
from bench.phases import WORK
from bench.record import OK, Run
from bench.score import score
from bench.sets import Data
from bench.watch import watch


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
