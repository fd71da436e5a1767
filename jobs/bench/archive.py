"""Java's class archive: the classes a run loads, checked and laid out once, for later runs to map into memory."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.watch import reason


def archive_options(place: Path) -> str:
    """Return what has Java use the archive that lies in a place."""
    return f"-XX:SharedArchiveFile={_archive_in(place)}"


def write_archive(command: list[str], environment: Callable[[str], dict[str, str]], place: Path) -> str:
    """Have Java archive the classes that a command loads; return "", or why it could not.

    environment : of a process whose Java gets these options
    """
    archive = _archive_in(place)
    archive.unlink(missing_ok=True)
    making = environment(f"-XX:ArchiveClassesAtExit={archive} -Xlog:cds=error -Xlog:cds+dynamic=error")
    done = subprocess.run(command, env=making, capture_output=True, text=True)
    return "" if done.returncode == 0 and archive.exists() else reason(done.stderr + done.stdout, done.returncode)


def _archive_in(place: Path) -> Path:
    return place / "annspark.jsa"
