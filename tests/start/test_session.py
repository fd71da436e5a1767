import os
import re
import shlex
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annspark.start import session
from annspark.start.configured import settings_of_user
from annspark.start.row_groups import heap_to_read
from tests.helpers import REPOSITORY

GB = 1 << 30


@pytest.mark.parametrize(
    ("free", "to_read", "heap"),
    [(24 * GB, 0, 8 * GB), (24 * GB, 10 * GB, 10 * GB), (24 * GB, 20 * GB, 12 * GB), (GB, 0, GB), (0, 0, GB),
     (1000 * GB, 0, 30 * GB)],
)  # fmt: skip
def test_the_heap_is_a_third_of_what_is_free_and_half_for_large_row_groups(free, to_read, heap):
    assert session.heap_bytes(free, to_read) == heap


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 24 GB free, and nothing set."""
    for name in ("PYSPARK_SUBMIT_ARGS", "SPARK_REMOTE", "SPARK_SUBMIT_OPTS", "MASTER", "SPARK_DRIVER_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("ANNSPARK_JAVA_ARCHIVE", "off")
    monkeypatch.setattr(session, "bytes_free", lambda: 24 * GB)
    monkeypatch.setattr("pyspark.sql.SparkSession.getActiveSession", lambda: None)
    monkeypatch.setenv("PYSPARK_PYTHON", os.environ.get("PYSPARK_PYTHON", "python"))
    return tmp_path


def prepared():
    session.prepare([])
    return settings_of_user(session.spark_home())


def test_where_nothing_is_set_a_run_gets_what_conf_says_and_memory(machine):
    file = (REPOSITORY / "conf" / "spark-local.conf").read_text()
    told = dict(re.findall(r"^(spark\.\S+) +(.+)$", file, re.MULTILINE))
    ours = prepared()
    assert ours.pop("spark.driver.memory") == "8192m"
    assert ours.pop("spark.python.daemon.module") == "annspark.start.python_daemon"
    assert {told.pop("spark.driver.memory"), told.pop("spark.master")} == {"3g", "local[*,4]"}
    ours["spark.ui.showConsoleProgress"] = told["spark.ui.showConsoleProgress"]  # as the console is a terminal or not
    assert ours == told


def test_what_the_user_has_set_stays(machine, monkeypatch):
    (machine / "spark-defaults.conf").write_text("spark.driver.memory 3g\nspark.shuffle.compress true\n")
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master local[1] --conf spark.ui.enabled=true pyspark-shell")
    ours = prepared()
    names = ("spark.driver.memory", "spark.shuffle.compress", "spark.master", "spark.ui.enabled")
    assert [ours[name] for name in names] == ["3g", "true", "local[1]", "true"]
    words = shlex.split(os.environ["PYSPARK_SUBMIT_ARGS"])
    assert [word for word in words if word.startswith(("spark.driver.memory", "spark.shuffle.compress"))] == []
    assert words[-5:] == ["--master", "local[1]", "--conf", "spark.ui.enabled=true", "pyspark-shell"]


def test_java_gets_no_second_garbage_collector(machine, monkeypatch):
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-XX:+UseG1GC")
    assert "spark.driver.extraJavaOptions" not in prepared()


def test_a_cluster_only_gets_an_end_of_stalls(machine, monkeypatch):
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell")
    assert set(prepared()) == {
        *("spark.master", "spark.python.worker.idleTimeoutSeconds", "spark.python.worker.killOnIdleTimeout"),
    }


def test_a_server_elsewhere_is_left_as_it_is(machine, monkeypatch):
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--remote sc://host pyspark-shell")
    assert set(prepared()) == {"spark.remote"}


def write_vectors(path, rows, dim, group):
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1) * dim, pa.int32()), np.random.default_rng(0).random(rows * dim, np.float32)
    )
    pq.write_table(pa.table({"user_id": np.arange(rows), "vector": lists}), path, row_group_size=group)


def test_the_heap_to_read_grows_with_the_largest_row_groups_and_with_the_cores(tmp_path):
    write_vectors(tmp_path / "whole.parquet", 12_000, 1000, 12_000)
    write_vectors(tmp_path / "parts.parquet", 12_000, 1000, 3_000)
    whole, parts = (heap_to_read([str(tmp_path / name)], 4) for name in ("whole.parquet", "parts.parquet"))
    assert whole == pytest.approx((48e6 + 300 * 2**20) / 0.55, rel=0.02)
    assert parts == pytest.approx(whole, rel=0.02)  # four at once are as large as one
    assert heap_to_read([f"file:{tmp_path}/parts.parquet"], 1) < 0.95 * parts
    (tmp_path / "two").mkdir()
    for name in ("a.parquet", "b.parquet"):
        shutil.copy(tmp_path / "whole.parquet", tmp_path / "two" / name)
    assert heap_to_read([str(tmp_path / "two")], 4) == pytest.approx(whole + 48e6 / 0.55, rel=0.02)


@pytest.mark.parametrize("place", ["catalog.table", "s3://bucket/table", "none.parquet", "small.parquet"])
def test_what_is_small_or_not_here_tells_nothing(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    write_vectors(tmp_path / "small.parquet", 10, 10, 10)
    assert heap_to_read([place], 4) == 0
