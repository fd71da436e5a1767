"""A night whose executors and Python workers have little memory, and the most that a process of each kind takes."""

import time
from contextlib import suppress
from pathlib import Path

import psutil

from jobs.benchmark.sets import load, write_vectors
from tests.cluster.night import running
from tests.cluster.standalone import Cluster

_DIM = 64
_KINDS = ("executor", "Python worker", "driver", "driver's Python")
# What a job takes where nobody sets it, not what QUICK sets.
_USUAL = ("--k", "10", "--leaf-rows", "512", "--audit-users", "1000")


def hold(cluster: Cluster, place: Path, size: str, rows: int) -> int:
    """Run a night, print what it says and the most memory that processes were seen to take, and return its exit code.

    size : limit of each Python worker, as Spark takes it
    """
    (place / "in").mkdir()
    write_vectors(place / "in" / "vectors.parquet", load(f"synthetic:{rows}x{_DIM}"))
    conf = {"spark.executor.memory": "1g", "spark.driver.memory": "1g", "spark.executor.pyspark.memory": size}
    resident, addressed = dict.fromkeys(_KINDS, 0), dict.fromkeys(_KINDS, 0)
    with running(cluster, place, *_USUAL, conf=conf) as night:
        while not night.is_over:
            for kind in _KINDS:
                for process in cluster.processes(kind):
                    with suppress(psutil.NoSuchProcess):
                        taken = process.memory_info()
                        resident[kind] = max(resident[kind], taken.rss)
                        addressed[kind] = max(addressed[kind], taken.vms)
            time.sleep(0.5)
    print("\n".join(night.said))
    print("| process | MB of memory | MB of address space |\n|---|---|---|")
    for kind in _KINDS:
        print(f"| {kind} | {resident[kind] / 1e6:,.0f} | {addressed[kind] / 1e6:,.0f} |")
    return int(night.code or 0)
