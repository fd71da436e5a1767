"""What goes wrong in a night: each fault is a block that strikes when it begins and is mended when it ends."""

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import psutil

from tests.cluster.night import Night
from tests.cluster.standalone import end, wait_for
from tests.helpers import REPOSITORY

_KILL = signal.SIGKILL
_SHORT = 5  # seconds, which no timeout of Spark notices
# Spark 4.1 and newer.
_STALL = {
    "spark.python.worker.idleTimeoutSeconds": "20",
    "spark.python.worker.killOnIdleTimeout": "true",
    "spark.python.daemon.module": "tests.cluster.stalling",
    "spark.executorEnv.PYTHONPATH": str(REPOSITORY),
}
_SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.4",
    "spark.speculation.minTaskRuntime": "2s",
}
Strike = Callable[[Night, random.Random], AbstractContextManager[str]]  # yields what was hit, "" when nothing was there


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    strike : does it
    conf   : Spark's settings for that night
    kills  : whether it kills the driver, which then cannot clean up
    """

    strike: Strike
    conf: dict[str, str] = field(default_factory=dict)
    kills: bool = False


def _pick(night: Night, chance: random.Random, kind: str) -> psutil.Process | None:
    """Return one of the processes of a kind, once there is one; None when the job's step ends before."""
    found: list[psutil.Process] = []
    step = night.step

    def is_there() -> bool:
        found[:] = sorted(night.cluster.processes(kind), key=lambda process: process.pid)
        return bool(found) or night.is_over or night.step != step

    wait_for(is_there, f"there is a process of the kind {kind}")
    return chance.choice(found) if found else None


@contextmanager
def _struck(kind: str, number: int, night: Night, chance: random.Random) -> Iterator[str]:
    """Send a signal to a process."""
    process = _pick(night, chance, kind)
    _signal([process] if process else [], number)
    yield kind if process else ""
    night.cluster.mend()


@contextmanager
def _driver_killed(night: Night, chance: random.Random) -> Iterator[str]:
    end(lambda: night.cluster.processes("driver") + night.cluster.processes("driver's Python"))
    yield "driver"


@contextmanager
def _frozen(kind: str, seconds: float | None, night: Night, chance: random.Random) -> Iterator[str]:
    """Stop a process, and those it has started, for some seconds; None for until the job is over."""
    process = _pick(night, chance, kind)
    frozen: list[psutil.Process] = []
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            frozen = [process, *process.children(recursive=True)]
    _signal(frozen, signal.SIGSTOP)
    try:
        if seconds is not None:
            time.sleep(seconds)
            _signal(frozen, signal.SIGCONT)
        yield kind if frozen else ""
    finally:
        _signal(frozen, signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextmanager
def _shuffle_file_deleted(night: Night, chance: random.Random) -> Iterator[str]:
    found: list[str] = []
    step = night.step

    def is_there() -> bool:
        places = night.cluster.local_folders
        found[:] = sorted(str(path) for place in places for path in place.glob("**/shuffle_*.data"))
        return bool(found) or night.is_over or night.step != step

    wait_for(is_there, "there is a shuffle file")
    for path in chance.sample(found, min(1, len(found))):
        os.unlink(path)
    yield "shuffle file" if found else ""


@contextmanager
def _disk_full(night: Night, chance: random.Random) -> Iterator[str]:
    """Fill the disk of a worker's shuffles and blocks, which must be a small one."""
    ballast = chance.choice(night.cluster.local_folders) / "ballast"
    try:
        try:
            with ballast.open("wb", buffering=0) as file:
                while file.write(b"\1" * 4096):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        yield "disk"
    finally:
        ballast.unlink()


FAULTS: dict[str, Fault] = {
    "executor killed": Fault(partial(_struck, "executor", _KILL)),
    "worker daemon killed": Fault(partial(_struck, "worker", _KILL)),
    "Python daemon killed": Fault(partial(_struck, "Python daemon", _KILL)),
    "Python worker killed": Fault(partial(_struck, "Python worker", _KILL)),
    "driver killed": Fault(_driver_killed, kills=True),
    "driver's Java killed": Fault(partial(_struck, "driver", _KILL), kills=True),
    "driver's Python killed": Fault(partial(_struck, "driver's Python", _KILL), kills=True),
    "shuffle file deleted": Fault(_shuffle_file_deleted),
    "disk full": Fault(_disk_full),
    "disk full, excludeOnFailure on": Fault(_disk_full, {"spark.excludeOnFailure.enabled": "true"}),
    "worker frozen for 5 s": Fault(partial(_frozen, "worker", _SHORT)),
    "worker frozen for good": Fault(partial(_frozen, "worker", None)),
    "Python worker stalled": Fault(partial(_struck, "Python worker", signal.SIGUSR1), _STALL),
    "Python worker frozen, speculation on": Fault(partial(_frozen, "Python worker", None), _SPECULATION),
}
