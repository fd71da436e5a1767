"""How much memory is free on this machine or in its container, and whom the kernel has killed for want of it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MEMINFO, _VMSTAT = Path("/proc/meminfo"), Path("/proc/vmstat")
_OWN_GROUPS, _OWN_STATUS = Path("/proc/self/cgroup"), Path("/proc/self/status")
_KILLS = "oom_kill"


@dataclass(frozen=True)
class _Version:
    """Where a version of control groups, by which containers are limited, keeps what it knows of memory.

    controller : the name before the group's path in /proc/self/cgroup
    folder     : of the outermost group
    limit      : file of the bytes allowed
    taken      : file of the bytes taken
    events     : file that counts processes killed
    """

    controller: str
    folder: Path
    limit: str
    taken: str
    events: str


_VERSIONS = (
    _Version("", Path("/sys/fs/cgroup"), "memory.max", "memory.current", "memory.events"),
    _Version(
        "memory", Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control"
    ),
)


def bytes_free() -> int:
    """Return the bytes of memory that are free on this machine or in its container, 0 where that is not known."""
    known = (_free_on_machine(), _free_in_groups())
    return min((n_bytes for n_bytes in known if n_bytes is not None), default=0)


def bytes_free_for_worker(tasks: int | None = None) -> int:
    """Return the bytes of memory that are free for each of this machine's workers, 0 where that is not known.

    They are what is free on the machine, shared among its cores, or what is free in the container, shared among the
    tasks of the executor in it.  They are at most what is left of the process's own limit, which
    spark.executor.pyspark.memory sets.

    tasks : tasks that an executor runs at once; None where that is not known, for one on each core
    """
    cores = os.cpu_count() or 1  # a container tells those of the machine, which may be many more than its own
    machine, groups = _free_on_machine(), _free_in_groups()
    shares = [machine and machine // cores, groups and groups // min(tasks or cores, cores), _left_of_own_limit()]
    return min((share for share in shares if share is not None), default=0)


def _free_on_machine() -> int | None:
    free = _field(_MEMINFO, "MemAvailable:")
    return None if free is None else 1024 * free


def _free_in_groups() -> int | None:
    known = [_free_in_group(version, folder) for version, folder in _groups()]
    return min((n_bytes for n_bytes in known if n_bytes is not None), default=None)


def count_killed() -> int:
    """Return how many processes the kernel has killed for want of memory; only a change of this number tells."""
    files = [_VMSTAT, *(folder / version.events for version, folder in _groups())]
    return sum(_field(file, _KILLS) or 0 for file in files)


def _left_of_own_limit() -> int | None:
    """Return the bytes of address space that this process may still take; None where it has no limit.

    Libraries take 330 MB of it in a worker, three times the memory they take.
    """
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = 1024 * (_field(_OWN_STATUS, "VmSize:") or 0)
    return None if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def _groups() -> Iterator[tuple[_Version, Path]]:
    """Yield the folders of this process's control group and of all groups around it."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    paths = dict(line.split(":", 2)[1:] for line in lines)
    for version in _VERSIONS:
        # A container may show the path that its group has outside, which is not here.  Its own group is the outermost.
        inside = Path(paths.get(version.controller, "/").lstrip("/"))
        yield from ((version, version.folder / part) for part in (inside, *inside.parents))


def _free_in_group(version: _Version, folder: Path) -> int | None:
    try:
        allowed, used = int((folder / version.limit).read_text()), int((folder / version.taken).read_text())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    # The kernel gives back what files take of it when asked.
    return max(0, allowed - used + (_field(folder / "memory.stat", "inactive_file") or 0))


def _field(file: Path, name: str) -> int | None:
    """Return the number after a name in a file of names and numbers."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), None)
