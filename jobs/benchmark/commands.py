"""How a system is started: its command, its environment, and what it needs installed."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from jobs.benchmark.sets import Data, prepare
from jobs.benchmark.systems import CORES, SYSTEMS, Setting
from jobs.benchmark.watch import reason

REPOSITORY = Path(__file__).parents[2]
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")
# hnswlib-spark is made for an older Spark than the others run on.
OWN_PACKAGES = {"hnswlib-spark": ["numpy", "pyspark[sql]==4.0.*", "hnswlib-spark==2.0.0b2", "pandas<3"]}


def command(system: str, setting: Setting, data: Data, output: Path, python: str) -> list[str]:
    """Return the command that reads the set and writes its neighbors."""
    source = str(data.folder / "vectors.parquet")
    if SYSTEMS[system].runner == "annspark":
        settings = setting | {"input": source, "output": output, "metric": data.metric}
        flags = (part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value)))
        return annspark(python, "build", *flags)
    return [*_process(system, python), source, str(output), data.metric, json.dumps(setting)]


def annspark(python: str, *arguments: str) -> list[str]:
    """Return a command of annspark, whose Spark is configured by the environment."""
    return [python, "-P", "-m", "annspark", *arguments]


def _process(system: str, python: str) -> list[str]:
    module = {"library": "libraries", "spark": "spark_systems"}[SYSTEMS[system].runner]
    # -P: or Python would take the folder it stands in for a place of packages.
    return [python, "-P", "-m", f"jobs.benchmark.{module}", SYSTEMS[system].code]


@cache
def python_for(system: str, place: Path) -> tuple[str, str]:
    """Return the Python that runs a system and "", or any and why the system cannot be run.

    What a system needs of its own, packages or an archive, is made in a place on first use.
    """
    if SYSTEMS[system].code == "archive":
        few = prepare("synthetic:2000x16", place)
        with tempfile.TemporaryDirectory(prefix="annspark-bench-") as folder:
            start = command("annspark", {}, few, Path(folder) / "neighbors", sys.executable)
            starting = partial(environment, "annspark", Path(folder), sys.executable)
            return sys.executable, _write_archive(start, starting, place)
    if system not in OWN_PACKAGES:
        return sys.executable, ""
    home = place / system
    made, python = home / "made", str(home / "bin" / "python")
    if not made.exists():
        print(f"Installing {system} into {home}", file=sys.stderr)
        # The last command fetches the jars that the system's Spark settings name.
        venv, pip = [sys.executable, "-m", "venv", "--clear", str(home)], [python, "-m", "pip", "install", "--quiet"]
        for step in (venv, [*pip, *OWN_PACKAGES[system]], _process(system, python)):
            done = subprocess.run(step, env=environment(system, home, python), capture_output=True, text=True)
            if done.returncode:
                return "", reason(done.stderr + done.stdout, done.returncode)
        made.touch()
    return python, ""


def environment(system: str, folder: Path, python: str, java: str = "") -> dict[str, str]:
    """Return the environment: the repository's code, its settings of Spark, and two threads for the libraries.

    java : options for annspark's Java besides those of the settings
    """
    kept = {name: value for name, value in os.environ.items() if name != "SPARK_HOME"}
    own = {"SPARK_LOCAL_DIRS": str(folder), "PYSPARK_PYTHON": python}
    own["SPARK_LOCAL_IP"] = kept.get("SPARK_LOCAL_IP", "127.0.0.1")
    if SYSTEMS[system].runner == "annspark":  # it sees to its threads by itself
        submit = ["--properties-file", str(REPOSITORY / "conf" / "spark-local.conf"), "--master", f"local[{CORES}]"]
        if java:
            submit += ["--conf", f"spark.driver.defaultJavaOptions={java}"]
        own |= {"PYSPARK_SUBMIT_ARGS": shlex.join([*submit, "pyspark-shell"]), "PYTHONPATH": str(REPOSITORY)}
        return kept | own | {"ANNSPARK_JAVA_ARCHIVE": "off"}  # that of annspark-archive is made here
    return kept | own | {f"{name}_NUM_THREADS": str(CORES) for name in THREADS} | {"PYTHONPATH": str(REPOSITORY)}


def java_options(system: str, place: Path) -> str:
    """Return what a system's Java is started with besides the settings, of files made in a place by python_for."""
    return f"-XX:SharedArchiveFile={_archive_in(place)}" if SYSTEMS[system].code == "archive" else ""


def _write_archive(command: list[str], environment: Callable[[str], dict[str, str]], place: Path) -> str:
    """Have Java archive the classes that a command loads, for later runs to map; return "", or why it could not.

    environment : of a process whose Java gets these options
    """
    archive = _archive_in(place)
    archive.unlink(missing_ok=True)
    making = environment(f"-XX:ArchiveClassesAtExit={archive} -Xlog:cds=error -Xlog:cds+dynamic=error")
    done = subprocess.run(command, env=making, capture_output=True, text=True)
    return "" if done.returncode == 0 and archive.exists() else reason(done.stderr + done.stdout, done.returncode)


def _archive_in(place: Path) -> Path:
    return place / "annspark.jsa"
