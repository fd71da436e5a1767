"""How a system is started: its command, and what it needs installed."""

import json
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path

from bench.archive import write_archive
from bench.environment import environment
from bench.ladders import SYSTEMS, Setting
from bench.sets import Data, prepare
from bench.watch import reason

# hnswlib-spark is made for an older Spark than the others run on.
OWN_PACKAGES = {"hnswlib-spark": ["numpy", "pyspark[sql]==4.0.*", "hnswlib-spark==2.0.0b2", "pandas<3"]}


def command(system: str, setting: Setting, data: Data, output: Path, python: str) -> list[str]:
    """Return the command that reads the set and writes its neighbors."""
    source = str(data.folder / "vectors.parquet")
    if SYSTEMS[system].runner == "annspark":
        return our_command(python, setting | {"input": source, "output": output, "metric": data.metric})
    # -P: or Python would take the folder it stands in for a place of packages.
    process = [python, "-P", "-m", f"bench.run_{SYSTEMS[system].runner}", SYSTEMS[system].code]
    return [*process, source, str(output), data.metric, json.dumps(setting)]


def our_command(python: str, settings: Setting) -> list[str]:
    """Return the command line of annspark; Spark is configured by the environment."""
    flags = (part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value)))
    return [python, "-P", "-m", "annspark", "build", *flags]


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
            return sys.executable, write_archive(start, starting, place)
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
