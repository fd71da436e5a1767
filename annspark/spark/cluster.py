"""The cluster: its number of cores, its partitions, and jobs that run beside the driver's work.

Only the DataFrame API is used, so that all of it works on Connect too.
"""

import gc
import re
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import redirect_stdout, suppress
from functools import partial
from inspect import signature
from io import StringIO
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.util import InheritableThread

from annspark.spark.arrow import Batches
from annspark.spark.memory import bytes_free_for_worker

P = ParamSpec("P")
R = TypeVar("R")
_CORES = (("executor.cores", ""), ("task.cpus", "1"))  # settings of Spark, and what they are where they are not set
# What names a cluster, and the settings that hold it; the last one is of Databricks.
_TOLD = {
    "master": "spark.master",
    "application": "spark.app.id",
    "cluster": "spark.databricks.clusterUsageTags.clusterId",
}
_SEED = 42  # the seed of Spark's hash function


def count_cores(spark: SparkSession) -> int:
    """Return the session's default parallelism: the number of cores of its executors, unless it is configured.

    It is read from a printed plan.  Other engines than Spark's may print plans differently; there a job that takes a
    second counts partitions.
    """
    if splits := re.search(r"\bsplits=(\d+)", printed_plan(spark.range(1))):
        return int(splits[1])
    placed = spark.range(0, 100_000).select(F.spark_partition_id().alias("place"))
    return 1 + int(placed.agg(F.max("place")).collect()[0][0])


def is_connect(spark: SparkSession) -> bool:
    """Say whether a session is one of Spark Connect, whose Java may run on another machine."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def cluster_of(spark: SparkSession, cores: int) -> dict[str, Any]:
    """Return what tells a session's cluster from others, as far as the session tells."""
    told: dict[str, Any] = {"cores": cores}
    for name, setting in _TOLD.items():
        with suppress(Exception):  # serverless sessions refuse settings that they do not know
            if value := spark.conf.get(setting, ""):
                told[name] = value
    return told


def printed_plan(table: DataFrame, mode: str = "simple") -> str:
    """Return the plan of a table as Spark prints it, which classic sessions and Connect both do; "" where it cannot.

    Standard output is redirected meanwhile, so what other threads print in that time is lost.
    """
    printed = StringIO()
    try:
        with redirect_stdout(printed):
            table.explain(mode=mode)
    except Exception:  # a table that cannot be read fails with a better message where it is read
        return ""
    return printed.getvalue()


def start_workers(spark: SparkSession) -> int:
    """Start Python's workers, which takes seconds, before the first step needs them.

    returns : the least of the bytes that are free for a worker; 0 where some do not know
    """
    teller = partial(_tell_bytes, count_tasks_of_executor(spark))
    told = spark.range(0, 100_000).mapInArrow(teller, "bytes long").collect()
    return min((row["bytes"] for row in told), default=0)


def count_tasks_of_executor(spark: SparkSession) -> int | None:
    """Return how many tasks an executor runs at once; None where the session does not tell, as on one machine."""
    try:
        cores, of_task = (spark.conf.get(f"spark.{name}", first) for name, first in _CORES)
        return max(1, int(cores or "") // int(of_task or ""))
    except ValueError:
        return None


def _tell_bytes(tasks: int | None, batches: Batches) -> Batches:
    for _ in batches:
        pass
    # A worker collects garbage after every task.  It need not look again at what it has imported: a build of GloVe's
    # words took 3 % less.
    gc.freeze()
    yield pa.RecordBatch.from_pydict({"bytes": pa.array([bytes_free_for_worker(tasks)], pa.int64())})


def partition_keys(n_partitions: int) -> np.ndarray:
    """Return one key per partition, such that repartition(n_partitions, key) sends each key to another partition.

    Spark places a row by a hash of its key; keys 0, 1, 2, ... would leave a third of the partitions empty.

    returns : int32 (n_partitions,), for a column of type int
    """
    # Coupon collector: with so many keys some partition has none for fewer than one in 10^6 values of n_partitions.
    tried = np.arange(20 * n_partitions + n_partitions * n_partitions.bit_length())
    target, key = np.unique(_spark_hash(tried).astype(np.int64) % n_partitions, return_index=True)
    if len(target) < n_partitions:
        raise ValueError(f"partition_keys: no key for some of {n_partitions:,} partitions")
    return key.astype(np.int32)


def _spark_hash(values: np.ndarray) -> np.ndarray:
    """Return Spark's hash of a column of type int: int (n,) to int32 (n,).

    Source: MurmurHash3 for 32 bits (Appleby), as in org.apache.spark.unsafe.hash.Murmur3_x86_32.
    """
    k = values.astype(np.uint32) * np.uint32(0xCC9E2D51)
    h = np.uint32(_SEED) ^ (_rotated(k, 15) * np.uint32(0x1B873593))
    h = _rotated(h, 13) * np.uint32(5) + np.uint32(0xE6546B64)
    h ^= np.uint32(4)  # bytes of a value
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (h ^ (h >> np.uint32(16))).view(np.int32)


def _rotated(values: np.ndarray, bits: int) -> np.ndarray:
    return (values << np.uint32(bits)) | (values >> np.uint32(32 - bits))


def start_beside(spark: SparkSession, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Start a function in a thread of its own, where it runs Spark jobs beside the driver's work.

    The jobs have the job group and tags of the calling thread.  A process that ends does not wait for the thread.
    """
    done: Future[R] = Future()

    def run() -> None:
        try:
            done.set_result(work(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)

    # Spark 3.5 has no tags to hand on, so its thread takes no session.
    tags_of = {"session": spark} if "session" in signature(InheritableThread).parameters else {}
    InheritableThread(run, daemon=True, **tags_of).start()
    return done
