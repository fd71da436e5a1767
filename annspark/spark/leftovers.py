"""Left-overs: a file in a run's folder names its process, so that the next run can delete the folders of dead runs."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from annspark.errors import AnnsparkError, SettingsError, reason_of
from annspark.filesystem import is_on_store
from annspark.spark import files

logger = logging.getLogger("annspark")
OWNER = "_owner.json"
_ENDED = "ended"
_CALM, _PATIENCE = 1.0, 15.0  # seconds that a deleted folder must stay away, and the most seconds to wait for that
_OPEN: list[tuple[int, str]] = []  # thread and folder of this process's runs
_FAILED: dict[str, list[str]] = {}  # folders of runs that failed, and the folders above them that were made
_FIRST_NAMESPACE = "pid:[4026531836]"  # Linux: the namespace of the machine itself, not of a container


def this_owner() -> dict[str, Any]:
    """Return what identifies this process: host, machine, boot, namespace of processes, process id and start."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": _text("/etc/machine-id"),
        "boot": _text("/proc/sys/kernel/random/boot_id"),
        "namespace": _namespace(),
        "pid": pid,
        "started": _started(pid),
    }


def is_dead(owner: Any) -> bool | None:
    """Say whether the process of an owner has ended; None when this process cannot tell.

    A process id is valid only on its own machine, since that machine was started, and in its own namespace of
    processes: two containers may have the same host name, and each a process 7.
    """
    this = this_owner()
    if not isinstance(owner, dict) or os.name != "posix" or not isinstance(owner.get("pid"), int):
        return None
    if any(owner.get(name) != this[name] for name in ("host", "machine", "namespace")):
        return None
    if owner.get("boot") != this["boot"]:  # a container may have moved to another machine and kept its host name
        return True if this["machine"] and this["namespace"] == _FIRST_NAMESPACE else None
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # it runs, as another user
    started = _started(owner["pid"])
    if started == _ENDED:
        return True
    return None if not started or not owner.get("started") else started != owner["started"]


@contextmanager
def working_in(folder: str, role: str, given: str, spark: SparkSession | None) -> Iterator[None]:
    """Make a run's folder with its owner's file; when the block ends, delete the folder with all it holds.

    It stays where the block has deleted the owner's file: on an object store a run's folder is what is published.

    role, given : name and value of the setting that the folder follows from
    Raises SettingsError, which names the setting, when the folder cannot be made or Spark does not see it.
    """
    files.require_reach(role, folder)
    made = files.missing_folders(folder)
    opened = (threading.get_ident(), folder)
    owned = False
    _OPEN.append(opened)
    try:
        try:
            files.make_folder(folder)
            files.write_text(f"{folder}/{OWNER}", json.dumps(this_owner()))
        except OSError as error:
            raise SettingsError(files.unwritable(role, given, error)) from error
        owned = True
        if spark is not None:
            files.require_seen(spark, role, given, f"{folder}/{OWNER}")
        yield
    except BaseException as error:
        if owned and _is_handed_over(folder):
            raise
        clean(folder)
        if not isinstance(error, AnnsparkError):  # tasks of Spark may still be writing
            _FAILED[folder] = made[1:]
            is_outermost = all(thread != opened[0] or path in _FAILED for thread, path in _OPEN)
            if is_outermost:  # of this run's folders
                sweep()
        files.remove_empty(made[1:])
        raise
    finally:
        _OPEN.remove(opened)
    if not _is_handed_over(folder):
        clean(folder)


def _is_handed_over(folder: str) -> bool:
    with suppress(OSError):
        return not files.exists(f"{folder}/{OWNER}")
    return True  # nothing could be deleted either


def sweep() -> None:
    """Delete the folders of this process's failed runs, again and again until they stay away.

    After an error, and until the session is stopped, tasks that still run may create them anew.
    """
    calm = time.monotonic() + _CALM
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < min(calm, end):
        for folder in _FAILED:
            with suppress(OSError):  # an object store that cannot be reached
                if files.exists(folder):
                    clean(folder)
                    calm = time.monotonic() + _CALM
        time.sleep(0.05)
    for made in _FAILED.values():
        files.remove_empty(made)


def clear(parent: str, prefix: str, rescue: Callable[[str], bool]) -> None:
    """Delete the folders of dead runs in a folder; log the folders of runs that may be dead or alive.

    prefix : how the names of the runs' folders begin
    rescue : is called with the folder of a dead run, and returns whether it may be deleted
    """
    unknown = []
    for name in _names(parent, prefix):
        folder = f"{parent}/{name}"
        owner = _read_owner(folder)
        if owner is None and is_on_store(folder):  # published, or kept
            continue
        dead = is_dead(owner)
        if dead is None:
            unknown.append(folder)
        elif dead and rescue(folder):
            clean(folder)
            logger.info("left over: %s, of a run that ended before its time, is deleted", folder)
    unknown = [folder for folder in unknown if files.exists(folder)]  # a run that just ended has deleted its folder
    if unknown:
        logger.info("left over: %s; delete by hand what belongs to no running job", ", ".join(unknown))


def _names(parent: str, prefix: str) -> list[str]:
    try:
        return [name for name in files.names_in(parent) if name.startswith(prefix)]
    except OSError:  # no such folder, or no right to read it: the run itself reports that
        return []


def _read_owner(folder: str) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(files.read_text(f"{folder}/{OWNER}"))
    return None


def clean(folder: str) -> None:
    """Delete a folder or file; a failure is only logged, because it must not turn a good run into a failed one."""
    for _ in range(3):  # a task may still be writing there
        try:
            if files.exists(folder):
                files.remove(folder)
            return
        except OSError as error:
            problem = reason_of(error)
    with suppress(OSError):
        if not files.exists(folder):
            return
    logger.warning("left over: %s could not be deleted (%s); delete it by hand.", folder, problem)


def _namespace() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str:
    """Return when a process was started, in the kernel's clock ticks; "" where the system does not tell."""
    # The name in brackets may itself hold blanks and brackets; the start is the 20th field after it.
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if fields and fields[0] in "ZX":  # it has ended, and its parent has not read its exit status
        return _ENDED
    return fields[19] if len(fields) > 19 else ""


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""
