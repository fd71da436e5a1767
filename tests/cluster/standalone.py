"""A standalone cluster of Spark on this machine: a master and two workers, processes on loopback addresses.

All processes of a cluster, and of jobs started with its environment, carry its mark in their environment. So they can
be found and ended by their ids, even when their parent was killed.
"""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pyspark

from tests.helpers import JAVA_OPTIONS, python_environment

BIN = Path(pyspark.__file__).parent / "bin"
WORKERS = 2
_MARK = "ANNSPARK_TEST_CLUSTER"
_PATIENCE = 120.0  # seconds to wait for a process to start or to end, before it counts as a failure
_LAUNCHER = "org.apache.spark.launcher.Main"  # makes a command line, and ends
# How the name of a process begins, and how a word of its command line ends, by its kind.  A Python worker is forked
# from the daemon, so it has the same command line.
_PROGRAMS = {
    "worker": ("java", "org.apache.spark.deploy.worker.Worker"),
    "executor": ("java", "org.apache.spark.executor.CoarseGrainedExecutorBackend"),
    "driver": ("java", "org.apache.spark.deploy.SparkSubmit"),
    "driver's Python": ("python", "build_neighbors.py"),
    "Python daemon": ("python", "pyspark.worker"),
    "Python worker": ("python", "pyspark.worker"),
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    folder : holds the logs of its daemons, and a folder per worker: local (shuffles, spilled blocks) and work (logs)
    url    : of the master
    mark   : in the environment of all its processes
    """

    folder: Path
    url: str
    mark: str

    def environment(self) -> dict[str, str]:
        """Return the environment for a job on the cluster, whose Pythons find annspark only where they are told to."""
        own = {_MARK: self.mark, "SPARK_LOCAL_DIRS": str(self.folder / "driver")}
        return {name: value for name, value in python_environment().items() if name != "PYTHONPATH"} | own

    def processes(self, kind: str = "") -> list[psutil.Process]:
        """Return the running processes of the cluster and of its jobs, of a kind or all.

        kind : a name in _PROGRAMS, or "" for all
        """
        return [process for process in psutil.process_iter() if self._is(process, kind)]

    def _is(self, process: psutil.Process, kind: str) -> bool:
        with suppress(psutil.Error):
            if process.environ().get(_MARK) != self.mark or process.status() == psutil.STATUS_ZOMBIE:
                return False
            program, words = _PROGRAMS.get(kind, ("", ""))
            command = process.cmdline()
            if not process.name().startswith(program) or _LAUNCHER in command:
                return not kind
            if kind in ("Python daemon", "Python worker"):
                forked = words in process.parent().cmdline()
                return words in command and forked == (kind == "Python worker")
            return any(word.endswith(words) for word in command)
        return False

    @property
    def local_folders(self) -> list[Path]:
        """The workers' folders for shuffles and blocks."""
        return [self.folder / f"worker-{number}" / "local" for number in range(WORKERS)]

    def shrink(self, megabytes: int) -> None:
        """Mount a small disk of its own for each worker's shuffles and blocks; OSError where this process may not."""
        for folder in self.local_folders:
            command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "annspark-test", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise OSError(done.stderr.strip())

    def _unmount(self) -> None:
        for folder in self.local_folders:
            if folder.is_mount():
                subprocess.run(["umount", str(folder)], check=True)

    def mend(self) -> None:
        """Start workers in place of those that have ended, and wait until all are registered."""
        for number in range(WORKERS):
            if not any(str(self._worker_folder(number)) in worker.cmdline() for worker in self.processes("worker")):
                self._start_worker(number)

    def _worker_folder(self, number: int) -> Path:
        return self.folder / f"worker-{number}" / "work"

    def _start_worker(self, number: int) -> None:
        work, local = self._worker_folder(number), self.local_folders[number]
        for folder in (work, local):
            folder.mkdir(parents=True, exist_ok=True)
        # Each has a host of its own: Spark runs a second copy of a slow task only on another host than the first.
        host = f"127.0.0.{number + 1}"
        places = {"SPARK_LOCAL_DIRS": str(local), "SPARK_LOCAL_IP": host}
        _start_daemon(
            self.folder / f"worker-{number}.log",
            self.environment() | places,
            *("org.apache.spark.deploy.worker.Worker", "--host", host, "--port", "0", "--webui-port", "0"),
            *("--cores", "1", "--memory", "1g", "--work-dir", str(work), self.url),
            ready="Successfully registered with master",
        )


@contextmanager
def standalone(folder: Path) -> Iterator[Cluster]:
    """Start a cluster in a folder; when the block ends, end all its processes and those of its jobs."""
    mark = uuid4().hex
    cluster = Cluster(folder, "", mark)
    try:
        said = _start_daemon(
            folder / "master.log",
            cluster.environment(),
            *("org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"),
            ready="I have been elected leader",
        )
        found = re.search(r"Starting Spark master at (spark://\S+)", said)
        assert found, said
        cluster = Cluster(folder, found[1], mark)
        cluster.mend()
        yield cluster
    finally:
        end(cluster.processes)
        cluster._unmount()


def end(processes: Callable[[], list[psutil.Process]]) -> None:
    """Kill processes by their ids until there are none."""
    while left := processes():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        # Not psutil.wait_procs: it takes the exit codes of children, which their Popen then tells as 0.
        time.sleep(0.05)


def wait_for(happened: Callable[[], object], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until something has happened; TimeoutError, which says what it is, if it takes too long."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def _start_daemon(log: Path, environment: dict[str, str], *command: str, ready: str) -> str:
    """Start a daemon of Spark, and return what it has logged when it is ready.

    ready : a text that it logs then
    """
    # A worker that the master does not hear from is lost after 15 s, not 60.
    options = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": f"{JAVA_OPTIONS} -Dspark.worker.timeout=15"}
    with log.open("w") as told:
        process = subprocess.Popen(
            [str(BIN / "spark-class"), *command],
            env=environment | options,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal ends the tests, which then end the daemons
        )

    threading.Thread(target=process.wait, daemon=True).start()  # so that it is no zombie when it has ended

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return ready in log.read_text()

    wait_for(is_ready, f"{command[0]} is ready")
    return log.read_text()
