"""A soak: many nights whose input changes and in which random faults strike, and what grows meanwhile."""

import random
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil

from tests.cluster.faults import FAULTS
from tests.cluster.night import STEPS, Night, digest, left_in, running, size_of, write_input
from tests.cluster.standalone import Cluster

_OFTEN = 0.7  # share of nights with a fault
_SLOW = ("worker frozen for good",)  # left out: takes the longest, and is like a killed worker


@dataclass(frozen=True)
class Held:
    """What a cluster and the job's folders hold after a night.

    disk      : MB below the workers' folders and the job's, without the input and the workers' logs
    files     : number of these files
    processes : of the cluster and its jobs
    daemons   : MB of memory of master and workers
    driver    : MB of memory of the driver's Java and Python, the most that was seen in the night
    handles   : files that master and workers have open
    """

    disk: float
    files: int
    processes: int
    daemons: float
    driver: float
    handles: int


def soak(cluster: Cluster, place: Path, nights: int, rows: int, chance: random.Random, *more: str) -> int:
    """Run nights, print a line for each, and return 1 if one of them is not as it should be, else 0.

    Each night's table is compared with that of an undisturbed night on the same input.
    """
    heads = ["night", "fault", "step", "exit code", "table", *(one.name for one in fields(Held))]
    print(_line(heads), _line(["---"] * len(heads)), sep="\n", flush=True)
    bad = 0
    for number in range(nights):
        shutil.rmtree(place / "in", ignore_errors=True)
        write_input(place / "in", rows, 32, seed=number)
        name = chance.choice([name for name in FAULTS if name not in _SLOW]) if chance.random() < _OFTEN else ""
        before = digest(place / "out") if (place / "out").exists() else ""
        code, step, driver = _night(cluster, place, name, chance, *more)
        first = digest(place / "out") if (place / "out").exists() else ""
        again, _, more_driver = _night(
            cluster, place, "", chance, *more
        )  # also what an operator would do after a fault
        right = digest(place / "out")
        table = "same" if first == right else ("yesterday's" if first == before and code else "BROKEN")
        left = left_in(place)
        bad += table == "BROKEN" or again != 0 or bool(left)
        held = _held(cluster, place, max(driver, more_driver))
        values = [number + 1, name or "none", step, code, f"{table} {' '.join(left)}", *astuple(held)]
        print(_line(values), flush=True)
    return int(bad > 0)


def _night(cluster: Cluster, place: Path, name: str, chance: random.Random, *more: str) -> tuple[int, str, float]:
    """Run a night, with a fault if one is named; return exit code, step it struck in, and MB of the driver."""
    fault, step, most = FAULTS.get(name), "", 0.0
    with running(cluster, place, *more, conf=fault.conf if fault else None) as night:
        if fault and night.reaches(chance.choice(STEPS)):
            step = night.step
            with fault.strike(night, chance):
                most = _most_memory(cluster, night)
        else:
            most = _most_memory(cluster, night)
    return int(night.code or 0), step, most


def _most_memory(cluster: Cluster, night: Night) -> float:
    """Wait until the night is over; return the most memory its driver was seen to hold, in MB."""
    most = 0.0
    while not night.is_over:
        drivers = cluster.processes("driver") + cluster.processes("driver's Python")
        most = max(most, _memory(drivers))
        time.sleep(0.5)
    return most


def _held(cluster: Cluster, place: Path, driver: float) -> Held:
    daemons = [process for process in cluster.processes() if "org.apache.spark.deploy" in " ".join(process.cmdline())]
    n_bytes, n_files = size_of([place / "out", place / "scratch", cluster.folder / "driver", *cluster.local_folders])
    return Held(
        disk=n_bytes / 1e6,
        files=n_files,
        processes=len(cluster.processes()),
        daemons=_memory(daemons),
        driver=driver,
        handles=sum(process.num_fds() for process in daemons),
    )


def _memory(processes: list[psutil.Process]) -> float:
    """Return the resident memory of processes in MB."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


def _line(values: Iterable[object]) -> str:
    shown = (f"{value:.1f}" if isinstance(value, float) else str(value).strip() for value in values)
    return f"| {' | '.join(shown)} |"
