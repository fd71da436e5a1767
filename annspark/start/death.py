"""Death: how the Java that this process has started came to its end, and what to do."""

import os
import signal
import time
from collections.abc import Sequence

from annspark.errors import ClusterError, is_java_lost
from annspark.spark.memory import bytes_free
from annspark.start.archive import delete_archive
from annspark.start.configured import settings_of_user
from annspark.start.row_groups import heap_to_read
from annspark.start.session import MEMORY, spark_home

_OUT_OF_HEAP = 52  # Spark's exit code of a Java that ran out of heap
_SECONDS = 10  # seconds that a Java that ends may take to
_HOW = 'For `annspark` on one machine: PYSPARK_SUBMIT_ARGS="--driver-memory {} pyspark-shell".'

_SEE = "What it wrote above, or into a file hs_err_pid*.log here, says why. --debug shows more."


def explain_death(error: BaseException, reads: Sequence[str]) -> ClusterError | None:
    """Return what ended Java, if it has ended by itself and that made the error; None where that is not known.

    reads : paths and catalog tables that were read
    """
    of_user = settings_of_user(spark_home())
    heap = of_user.get(MEMORY, "1g")
    full = ClusterError(f"Java ran out of memory: its heap of {heap} ({MEMORY}) is full. {_more_heap(reads)}")
    here = of_user.get("spark.master", "local").startswith("local") and "PYSPARK_GATEWAY_PORT" not in os.environ
    if here and isinstance(error, ClusterError) and "Java ran out of memory" in str(error):
        return full
    ended = _ended_child() if is_java_lost(error) else None
    if ended is None:
        return None
    kind, status = ended
    if kind == os.CLD_EXITED:
        return full if status == _OUT_OF_HEAP else ClusterError(f"Java has ended with code {status}. {_SEE}")
    if status == signal.SIGKILL:
        return ClusterError(
            "Java was killed (SIGKILL). The kernel kills what takes most when the machine or its container runs out of "
            f"memory, of which {bytes_free() >> 20:,} MB are free now. Java may take {heap} ({MEMORY}). Take a machine "
            "or a container with more memory, give Java less where that is more than it needs, or run one task at a "
            'time: PYSPARK_SUBMIT_ARGS="--master local[1] pyspark-shell".'
        )
    delete_archive(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))  # a damaged one may have made Java crash
    return ClusterError(f"Java was ended by {signal.Signals(status).name}. {_SEE}")


def _more_heap(reads: Sequence[str]) -> str:
    """Return what to do about a heap that is too small."""
    needed = -(-heap_to_read(reads, os.cpu_count() or 1) >> 30)
    if not needed:
        return f"Give it more. {_HOW.format('8g')}"
    return (
        f"Give it more: Java reads row groups of Parquet whole, and to read those of the input it needs some {needed} "
        f"GB. {_HOW.format(f'{needed}g')} Or write the input again with smaller row groups, of 128 MB for example."
    )


def _ended_child() -> tuple[int, int] | None:
    """Return how a child of this process has ended, as waitid does: its kind and status; None where none has.

    Java is the only child.  It stays a child to be waited for, because PySpark also asks for it.
    """
    if not hasattr(os, "waitid"):  # Windows
        return None
    for _ in range(10 * _SECONDS):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # another process started Java
            return None
        if ended is not None:
            return ended.si_code, ended.si_status
        time.sleep(0.1)
    return None
