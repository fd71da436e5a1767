"""The environment a system is started in."""

import os
import shlex
from pathlib import Path

from bench.archive import archive_options
from bench.ladders import CORES, SYSTEMS

JOBS = Path(__file__).parents[1]
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")


def environment(system: str, folder: Path, python: str, java: str = "") -> dict[str, str]:
    """Return the environment: the repository's code, its settings of Spark, and two threads for the libraries.

    java : options for annspark's Java besides those of the settings
    """
    kept = {name: value for name, value in os.environ.items() if name != "SPARK_HOME"}
    own = {"SPARK_LOCAL_DIRS": str(folder), "PYSPARK_PYTHON": python}
    own["SPARK_LOCAL_IP"] = kept.get("SPARK_LOCAL_IP", "127.0.0.1")
    if SYSTEMS[system].runner == "annspark":  # it sees to its threads by itself
        submit = ["--properties-file", str(JOBS.parent / "conf" / "spark-local.conf"), "--master", f"local[{CORES}]"]
        if java:
            submit += ["--conf", f"spark.driver.defaultJavaOptions={java}"]
        own |= {"PYSPARK_SUBMIT_ARGS": shlex.join([*submit, "pyspark-shell"]), "PYTHONPATH": str(JOBS.parent)}
        return kept | own
    return kept | own | {f"{name}_NUM_THREADS": str(CORES) for name in THREADS} | {"PYTHONPATH": str(JOBS)}


def java_options(system: str, place: Path) -> str:
    """Return what a system's Java is started with besides the settings, of files made in a place by python_for."""
    return archive_options(place) if SYSTEMS[system].code == "archive" else ""
