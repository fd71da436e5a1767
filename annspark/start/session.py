"""Session: start Spark for a command, with what a run on one machine needs where the user has not set it."""

import locale
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from annspark.spark.memory import bytes_free
from annspark.start.archive import archive_options, delete_archive
from annspark.start.configured import java_options_of_user, settings_of_user
from annspark.start.row_groups import heap_to_read

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What conf/spark-local.conf sets, which gives the reasons.
_LOCAL = {
    "spark.memory.fraction": "0.25",
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:NewRatio=4 -XX:Tier4InvocationThreshold=50000 "
    "-XX:Tier4MinInvocationThreshold=6000 -XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000",
    "spark.shuffle.compress": "false",
    "spark.python.unix.domain.socket.enabled": "true",
    "spark.python.unix.domain.socket.dir": "/tmp",
    "spark.ui.enabled": "false",
    "spark.driver.maxResultSize": "2g",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    "spark.executorEnv.MKL_NUM_THREADS": "1",
}
# Not in that file: spark-submit may have annspark in a zip, which the daemon does not know of.
_DAEMON = {"spark.python.daemon.module": "annspark.start.python_daemon"}
# Over TCP, Java and a worker can wait for each other forever: conf/spark-cluster.conf says why.  Spark 4.1 and newer
# then kill the worker and try its task again; older ones ignore both settings.  A worker is silent while it joins a
# partition, minutes at most.
_STALLS = {"spark.python.worker.idleTimeoutSeconds": "1800", "spark.python.worker.killOnIdleTimeout": "true"}
MEMORY = "spark.driver.memory"
# Of the memory that is free, Java's heap may take a third.  When the table is read, the partitions of Python's workers
# may take half of what is free then, though few joins need it.  The rest is for the libraries of the workers, the
# driver's sample, what Java takes beside its heap, and the page cache.  For large row groups the heap may take half,
# because workers hold little while they read.
_SHARE_OF_JAVA, _SHARE_TO_READ = 1 / 3, 1 / 2
_HEAP_BYTES = (1 << 30, 30 << 30)  # at least what Spark takes by itself, and at most what pointers of 4 bytes reach


def prepare(reads: Sequence[str]) -> None:
    """Set what a session that this process starts should have, in the environment that PySpark reads.

    Nothing is set where spark-submit has started this process, and no setting of Spark where a session is there already
    or a Connect server has it.

    reads : paths and catalog tables that will be read
    """
    from pyspark.sql import SparkSession

    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    # Its workers should run this Python.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if _would_be_ascii():
        os.environ["LC_ALL"] = "C.UTF-8"
    of_user = settings_of_user(spark_home())
    if "spark.remote" not in of_user and SparkSession.getActiveSession() is None:
        _put_in_front(_settings_beside(of_user, reads))


def start_session(name: str) -> "SparkSession":
    """Return a Spark session, the one that there is or a new one."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(name)
    try:
        return builder.getOrCreate()
    except Exception:
        if not delete_archive(os.environ.get("PYSPARK_SUBMIT_ARGS", "")):
            raise
        return builder.getOrCreate()  # Java ignores an archive that is not there


def spark_home() -> Path:
    """Return the folder of the Spark that PySpark starts."""
    found = find_spec("pyspark")
    own = Path(found.origin).parent if found and found.origin else Path()
    return Path(os.environ.get("SPARK_HOME") or own)


def heap_bytes(free: int, to_read: int) -> int:
    """Return how much memory to give Java's heap.

    free    : bytes that are free on the machine or in the container, 0 where that is not known
    to_read : bytes of heap that reading the input takes
    """
    least, most = _HEAP_BYTES
    wanted = max(_SHARE_OF_JAVA * free, min(_SHARE_TO_READ * free, to_read), least)
    return min(int(wanted), most)


def _settings_beside(of_user: dict[str, str], reads: Sequence[str]) -> dict[str, str]:
    """Return the settings that the user has not given, and that suit this machine and what will be read."""
    options, ours = java_options_of_user(of_user), dict(_STALLS)
    if of_user.get("spark.master", "local").startswith("local"):
        heap = heap_bytes(bytes_free(), heap_to_read(reads, os.cpu_count() or 1))
        ours |= {MEMORY: f"{heap >> 20}m"} | _LOCAL | _DAEMON
        ours["spark.ui.showConsoleProgress"] = str(sys.stderr.isatty()).lower()
        if "GC" in options:  # Java does not start with two garbage collectors
            del ours["spark.driver.extraJavaOptions"]
    if archive := archive_options(spark_home(), options):
        ours["spark.driver.defaultJavaOptions"] = shlex.join(archive)
    return {name: value for name, value in ours.items() if name not in of_user}


def _put_in_front(settings: dict[str, str]) -> None:
    """Put settings in front of PYSPARK_SUBMIT_ARGS, where later arguments win."""
    words = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    before = os.environ.get("PYSPARK_SUBMIT_ARGS", "pyspark-shell")
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"{shlex.join(words)} {before}"


def quiet_java() -> None:
    """Switch off the log of the Java that this process starts, unless the user has configured that log."""
    settings = ("SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS")
    configured = "SPARK_CONF_DIR" in os.environ or any("log4j" in os.environ.get(name, "") for name in settings)
    own = Path(os.environ.get("SPARK_HOME") or "/nowhere", "conf", "log4j2.properties").exists()
    quiet = Path(__file__).parent.with_name("log4j2.properties")
    # The file does not exist when annspark runs from a zip.
    if "PYSPARK_GATEWAY_PORT" in os.environ or configured or own or not quiet.exists():
        return
    options = os.environ.get("SPARK_SUBMIT_OPTS", "")
    os.environ["SPARK_SUBMIT_OPTS"] = f"{options} -Dlog4j2.configurationFile={quiet.as_uri()}".strip()


def _would_be_ascii() -> bool:
    """Say whether Java would read file names as ASCII, as under cron.  It goes by the locale, unlike Python."""
    if sys.platform != "linux":
        return False
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")  # as Java does; it fails, as in Java, where the locale is not installed
        return locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX")
    except locale.Error:
        return True
    finally:
        locale.setlocale(locale.LC_ALL, before)
