"""How a system is started: its command and its environment."""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from bench.archive import archive_in, java_options, write_archive
from bench.ladders import CORES, SYSTEMS, Setting
from bench.sets import Data, prepare
from bench.watch import reason

JOBS = Path(__file__).parents[1]
# hnswlib-spark is made for an older Spark than the others run on.
OWN_PACKAGES = {"hnswlib-spark": ["numpy", "pyspark[sql]==4.0.*", "hnswlib-spark==2.0.0b2", "pandas<3"]}
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")


def command(system: str, setting: Setting, data: Data, output: Path, python: str) -> list[str]:
    """Return the command that reads the set and writes its neighbors."""
    source = str(data.folder / "vectors.parquet")
    if SYSTEMS[system].runner == "annspark":
        conf = str(JOBS.parent / "conf" / "spark-local.conf")
        submit = [str(Path(python).with_name("spark-submit")), "--properties-file", conf, "--master", f"local[{CORES}]"]
        paths = ["--input", source, "--output", str(output), "--metric", data.metric]
        if SYSTEMS[system].code == "archive":
            submit += java_options(f"-XX:SharedArchiveFile={archive_in(data.folder.parent)}")
        return [*submit, str(JOBS / "build_neighbors.py"), *paths, *_flags(setting)]
    # -P: or Python would take the folder it stands in for a place of packages.
    process = [python, "-P", "-m", f"bench.run_{SYSTEMS[system].runner}", SYSTEMS[system].code]
    return [*process, source, str(output), data.metric, json.dumps(setting)]


def environment(system: str, folder: Path, python: str) -> dict[str, str]:
    """Return the environment: the repository's code, and two threads for the libraries."""
    kept = {name: value for name, value in os.environ.items() if name != "SPARK_HOME"}
    own = {"SPARK_LOCAL_DIRS": str(folder), "PYSPARK_PYTHON": python}
    own["SPARK_LOCAL_IP"] = kept.get("SPARK_LOCAL_IP", "127.0.0.1")
    if SYSTEMS[system].runner == "annspark":  # it sees to its threads by itself
        return kept | own | {"PYTHONPATH": str(JOBS.parent)}
    return kept | own | {f"{name}_NUM_THREADS": str(CORES) for name in THREADS} | {"PYTHONPATH": str(JOBS)}


@cache
def python_for(system: str, place: Path) -> tuple[str, str]:
    """Return the Python that runs a system and "", or any and why the system cannot be run.

    What a system needs of its own, packages or an archive, is made in a place on first use.
    """
    if SYSTEMS[system].code == "archive":
        few = prepare("synthetic:2000x16", place)
        with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
            start = command("annspark", {}, few, Path(folder) / "neighbors", sys.executable)
            return sys.executable, write_archive(start, environment("annspark", Path(folder), sys.executable), place)
    if system not in OWN_PACKAGES:
        return sys.executable, ""
    home = place / system
    made, python = home / "made", str(home / "bin" / "python")
    if not made.exists():
        print(f"Installing {system} into {home}", file=sys.stderr)
        # The last command fetches the jars that the system's Spark settings name.
        venv, pip = [sys.executable, "-m", "venv", "--clear", str(home)], [python, "-m", "pip", "install", "--quiet"]
        start = [python, "-P", "-m", "bench.run_spark", SYSTEMS[system].code]
        for step in (venv, [*pip, *OWN_PACKAGES[system]], start):
            done = subprocess.run(step, env=environment(system, home, python), capture_output=True, text=True)
            if done.returncode:
                return "", reason(done.stderr + done.stdout, done.returncode)
        made.touch()
    return python, ""


def _flags(setting: Setting) -> list[str]:
    return [part for name, value in setting.items() for part in (f"--{name.replace('_', '-')}", str(value))]
