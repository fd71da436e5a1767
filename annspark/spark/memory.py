"""How much memory is free for a Python worker, as seen from inside it."""

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# The limit, what is taken, and what of it the kernel gives back when asked: of containers by cgroup v2, then v1.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)


def bytes_free_for_worker(tasks: int | None = None) -> int:
    """Return the bytes of memory that are free for each of this machine's workers, 0 where that is not known.

    They are what is free on the machine, shared among its cores, or what is free in the container, shared among the
    tasks of the executor in it.  They are at most the process's own limit, which spark.executor.pyspark.memory sets.

    tasks : tasks that an executor runs at once; None where that is not known, for one on each core
    """
    cores = os.cpu_count() or 1  # a container tells those of the machine, which may be many more than its own
    machine = _free_on_machine()
    groups = [free for free in (_free_in_group(*files) for files in _GROUPS) if free is not None]
    shares = [] if machine is None else [machine // cores]
    shares += [free // min(tasks or cores, cores) for free in groups]
    return min([*shares, *_own_limit()], default=0)


def _free_on_machine() -> int | None:
    return _field(_MEMINFO, "MemAvailable:", 1024)


def _free_in_group(limit: str, taken: str, details: str) -> int | None:
    try:
        allowed, used = int(Path(limit).read_text()), int(Path(taken).read_text())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    return max(0, allowed - used + (_field(Path(details), "inactive_file", 1) or 0))


def _field(file: Path, name: str, unit: int) -> int | None:
    """Return the number after a name in a file of names and numbers, in bytes."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * unit for line in lines if line.split()[:1] == [name]), None)


def _own_limit() -> list[int]:
    """Return the address space that the process is limited to, if it is."""
    try:
        import resource  # Windows has none
    except ImportError:
        return []
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if limit == resource.RLIM_INFINITY else [limit]
