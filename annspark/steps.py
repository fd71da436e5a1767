"""Progress: one logged line per step, with what it did and its seconds."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("annspark")


class Steps:
    """The clock of one run: seconds by step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def step(self, name: str, doing: str = "") -> Iterator[list[str]]:
        """Time a step and log its line; the block appends the facts the line should give.

        doing : said at the start of a step that takes long
        """
        if doing:
            logger.info("%-9s             %s ...", name, doing)
        facts: list[str] = []
        start = time.perf_counter()
        yield facts
        spent = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)  # an audit may come twice
        logger.info("%-9s %8.1f s  %s", name, spent, ", ".join(facts))

    def total(self) -> dict[str, float]:
        """Return the seconds so far, total first."""
        return {"total": round(time.perf_counter() - self._start, 3), **self.seconds}
