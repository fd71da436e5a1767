"""A run: the number of tasks at once, where tables are stored, and the clock, which logs a line for every step."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from annspark.spark.staging import Stage, Store

logger = logging.getLogger("annspark")


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
        yield facts
        spent = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)  # there may be two audits
        logger.info("%-9s %8.1f s  %s", name, spent, ", ".join(facts))

    def total(self) -> dict[str, float]:
        """Return the seconds so far: the total, and those of each step."""
        return {"total": round(time.perf_counter() - self._start, 3), **self.seconds}


@dataclass(frozen=True)
class Run:
    """What a run needs besides its data.

    cores : number of tasks that run at once
    stage : computes and stores a table that is read only within the run
    keep  : computes and stores the finished table: in the cache or scratch for a notebook, beside the output for a job
    clock : times the steps
    told  : will have the bytes of memory that are free for a Python worker
    """

    cores: int
    stage: Stage
    keep: Store
    clock: Clock = field(default_factory=Clock)
    told: Future[int] | None = None

    @property
    def free_bytes(self) -> int:
        """The bytes of memory that are free for a Python worker, 0 where that is not known."""
        try:
            return self.told.result() if self.told else 0
        except Exception:  # a job that fails here fails again, with a better message, in the step that needs it
            return 0
