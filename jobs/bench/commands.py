"""How a system is started: its command and its environment."""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

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
            submit += _java(f"-XX:SharedArchiveFile={_archive(data.folder.parent)}")
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
        return sys.executable, _write_archive(place)
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


def _write_archive(place: Path) -> str:
    """Have Java archive the classes that a run over few vectors loads; return "", or why it could not."""
    few, archive = prepare("synthetic:2000x16", place), _archive(place)
    with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
        start = command("annspark", {}, few, Path(folder) / "neighbors", sys.executable)
        start[1:1] = _java(f"-XX:ArchiveClassesAtExit={archive} -Xlog:cds=error -Xlog:cds+dynamic=error")
        own = environment("annspark", Path(folder), sys.executable)
        done = subprocess.run(start, env=own, capture_output=True, text=True)
    return "" if done.returncode == 0 and archive.exists() else reason(done.stderr + done.stdout, done.returncode)


def _archive(place: Path) -> Path:
    return place / "annspark.jsa"


def _java(options: str) -> list[str]:
    return ["--conf", f"spark.driver.defaultJavaOptions={options}"]


def _flags(setting: Setting) -> list[str]:
    return [part for name, value in setting.items() for part in (f"--{name.replace('_', '-')}", str(value))]
