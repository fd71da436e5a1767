"""Seconds by phase, told by the process itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# What a process that is already up, compiled and connected would still have to do.
WORK = ("load", "compute", "write")


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note the seconds a block takes under a name."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 3)
