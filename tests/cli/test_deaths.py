"""Each way in which a run may die for want of memory or disk space, for real, and what the person is told."""

import os
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.builds import QUICK
from tests.helpers import files_in, python_environment

pytestmark = pytest.mark.process
BUILD = [sys.executable, "-m", "annspark", "build", "--output", "out", *QUICK]


def started(folder, source, *arguments, before=(), more=()):
    """Start a build with arguments for Spark, as `before` starts it."""
    environment = python_environment() | {"PYSPARK_SUBMIT_ARGS": " ".join([*arguments, "pyspark-shell"])}
    command = [*before, *BUILD, "--input", str(source), *more]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def sentence_of(process):
    """Return the one sentence with which a build fails with code 1."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    return [line for line in said.splitlines() if line.startswith("annspark: ")][-1]


def children_of(process, name):
    return [child for child in psutil.Process(process.pid).children(recursive=True) if name in child.name()]


def test_a_heap_that_is_too_small(tmp_path):
    n, dim = 1000, 100_000
    lists = pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * dim, pa.int32()), np.zeros(n * dim, np.float32))
    # A single page of 400 MB, which takes no room in the file.
    options = {"use_dictionary": False, "data_page_size": 1 << 30, "write_batch_size": n * dim}
    pq.write_table(pa.table({"user_id": np.arange(n), "vector": lists}), tmp_path / "in.parquet", **options)
    said = sentence_of(started(tmp_path, "./in.parquet", "--driver-memory 460m"))
    assert "Java ran out of memory" in said
    assert "spark.driver.memory" in said
    assert files_in(tmp_path) == ["in.parquet"]


def test_java_is_killed_as_by_the_kernel(inputs, tmp_path):
    process = started(tmp_path, inputs / "good", more=["--scratch", "scratch"])
    while process.poll() is None and not list(tmp_path.glob("scratch/*/0")):
        time.sleep(0.02)
    [java] = children_of(process, "java")
    java.kill()
    said = sentence_of(process)
    assert "Java was killed (SIGKILL)" in said
    assert "spark.driver.memory" in said


def test_a_worker_is_killed_as_by_the_kernel(inputs, tmp_path):
    process = started(tmp_path, inputs / "good")
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for daemon in children_of(process, "python"):
                for worker in daemon.children():
                    worker.kill()
        time.sleep(0.02)
    said = sentence_of(process)
    assert "a Python worker died" in said
    assert "spark.executor.memoryOverhead" in said


def test_the_limit_of_the_workers_memory_is_reached(inputs, tmp_path):
    limit = "--conf spark.executor.pyspark.memory=500m"
    said = sentence_of(started(tmp_path, inputs / "good", "--master local[1]", limit))
    # NumPy and Arrow raise MemoryError.  OpenBLAS ends the worker.
    assert "a Python worker died" in said or "Python ran out of memory" in said
    assert "raise spark.executor.pyspark.memory" in said


def test_the_disk_of_sparks_own_files_is_full(inputs, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size=64k none {small} && exec "$@"', "sh"]
    if os.name == "nt" or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    said = sentence_of(started(tmp_path, inputs / "good", f"--conf spark.local.dir={small}", before=mount))
    assert "a disk is full" in said
    assert "spark.local.dir" in said
