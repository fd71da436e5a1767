import subprocess

import pytest

from annspark.errors import ClusterError
from annspark.start.death import explain_death

pytestmark = pytest.mark.skipif("not hasattr(__import__('os'), 'waitid')")
LOST = ConnectionRefusedError(111, "Connection refused")


@pytest.fixture(autouse=True)
def one_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--driver-memory 3g pyspark-shell")
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)


def death_of(command):
    """Return what is told when a child that runs a command in place of Java has ended."""
    with subprocess.Popen(["sh", "-c", command], stderr=subprocess.DEVNULL):
        return str(explain_death(LOST, []))


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("exit 52", ["Java ran out of memory", "heap of 3g (spark.driver.memory)", "--driver-memory 8g"]),
        ("kill -9 $$", ["Java was killed (SIGKILL)", "MB are free now", "3g (spark.driver.memory)", "container"]),
        ("kill -7 $$", ["Java was ended by SIGBUS", "hs_err_pid"]),
        ("exit 1", ["Java has ended with code 1", "hs_err_pid"]),
    ],
)
def test_how_java_ended_is_told_with_what_to_do(command, parts):
    said = death_of(command)
    assert [part for part in parts if part not in said] == []


def test_a_full_heap_is_told_with_what_the_row_groups_need(monkeypatch):
    monkeypatch.setattr("annspark.start.death.heap_to_read", lambda reads, cores: 5 << 30)
    said = str(explain_death(ClusterError("Java ran out of memory (Java heap space). Give it more."), ["in"]))
    assert "needs some 5 GB" in said
    assert "--driver-memory 5g" in said


def test_an_error_of_another_kind_is_left_as_it_is():
    assert explain_death(ValueError("no"), []) is None
    assert explain_death(ClusterError("a disk is full"), []) is None
