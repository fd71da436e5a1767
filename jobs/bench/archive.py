"""Java's class archive: the classes a run loads, checked and laid out once, for later runs to map into memory."""

import subprocess
from pathlib import Path

from bench.watch import reason


def archive_in(place: Path) -> Path:
    """Return where the archive lies."""
    return place / "annspark.jsa"


def java_options(options: str) -> list[str]:
    """Return the arguments that have spark-submit start Java with more options than the conf file has."""
    return ["--conf", f"spark.driver.defaultJavaOptions={options}"]


def write_archive(start: list[str], environment: dict[str, str], place: Path) -> str:
    """Have Java archive the classes that a command loads, spark-submit first; return "", or why it could not."""
    archive = archive_in(place)
    archive.unlink(missing_ok=True)
    making = java_options(f"-XX:ArchiveClassesAtExit={archive} -Xlog:cds=error -Xlog:cds+dynamic=error")
    done = subprocess.run([start[0], *making, *start[1:]], env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 and archive.exists() else reason(done.stderr + done.stdout, done.returncode)
