"""A run: the number of tasks at once, where tables are stored, and the clock, which logs a line for every step."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from annspark.core.plan import Workers
from annspark.spark.staging import Stage, Store
from annspark.spark.steps import Steps

logger = logging.getLogger("annspark")
_LONG = 1800.0  # seconds: on two cores, the join of ten million users takes a tenth of it


class Clock:
    """Measures the seconds of each step.

    seconds : by name of the step, in the order of the steps
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def step(self, name: str, doing: str = "") -> Iterator[list[str]]:
        """Time a step and log a line when it ends; the block appends the facts for that line to the list it is given.

        doing : what the step does, logged at the start of a step that takes long
        """
        if doing:
            logger.info("%-9s             %s ...", name, doing)
        facts: list[str] = []
        start = time.perf_counter()
        with _told_when_long(name):
            yield facts
        spent = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)  # there may be two audits
        logger.info("%-9s %8.1f s  %s", name, spent, ", ".join(facts))

    def total(self) -> dict[str, float]:
        """Return the seconds so far: the total, and those of each step."""
        return {"total": round(time.perf_counter() - self._start, 3), **self.seconds}


@contextmanager
def _told_when_long(name: str) -> Iterator[None]:
    """Warn again and again while a step takes long, because a Python worker that stalls says nothing.

    The time since the step began is all that classic sessions and Connect both let the driver see.  Spark's web page
    has the tasks.
    """
    ended = threading.Event()

    def tell() -> None:
        minutes = 0.0
        while not ended.wait(_LONG):
            minutes += _LONG / 60
            logger.warning(
                "%-9s still running after %.0f minutes. If Spark's web page shows that no task ends, a Python worker "
                "may have stalled. Kill it: a cluster then tries its task again, local[N] fails. Spark 4.1 and newer "
                "do that themselves with spark.python.worker.idleTimeoutSeconds and killOnIdleTimeout.",
                *(name, minutes),
            )

    threading.Thread(target=tell, name=f"annspark {name}", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@dataclass(frozen=True)
class Run:
    """What a run needs besides its data.

    cores         : number of tasks that run at once
    stage         : computes and stores a table that is read only within the run
    keep          : computes and stores the finished table: in the cache or scratch for a notebook, beside the output
                    for a job
    steps         : keeps what finished steps have made, where a job asks for it
    clock         : times the steps
    told          : will have the bytes of memory that are free for a Python worker
    input_version : which state of the input is read, as in Report; None where nobody asks
    """

    cores: int
    stage: Stage
    keep: Store
    steps: Steps
    clock: Clock = field(default_factory=Clock)
    told: Future[int] | None = None
    input_version: str | None = None

    @property
    def workers(self) -> Workers:
        """The workers that run its tasks."""
        return Workers(self.cores, self.free_bytes)

    @property
    def free_bytes(self) -> int:
        """The bytes of memory that are free for a Python worker, 0 where that is not known."""
        try:
            return self.told.result() if self.told else 0
        except Exception:  # a job that fails here fails again, with a better message, in the step that needs it
            return 0
