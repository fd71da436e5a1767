"""A run: the tasks it has at once, where its tables go, and its clock, which logs a line for every step."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from annspark.spark.staging import Place

logger = logging.getLogger("annspark")


class Clock:
    """Seconds by step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def step(self, name: str, doing: str = "") -> Iterator[list[str]]:
        """Time a step and log its line; the block appends the facts that the line gives.

        doing : said at the start of a step that takes long
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
        """Return the seconds so far, total first."""
        return {"total": round(time.perf_counter() - self._start, 3), **self.seconds}


@dataclass(frozen=True)
class Run:
    """What a run has besides its data.

    cores : tasks that run at once
    stage : the place of tables that are read within the run only
    keep  : the place of the finished table: the cache or scratch for a notebook, beside its output for a job
    clock : times the steps
    """

    cores: int
    stage: Place
    keep: Place
    clock: Clock = field(default_factory=Clock)
