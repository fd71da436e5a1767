"""What finished steps have made is kept for the next run of the job, and for no other."""

import json

import numpy as np
import pytest

from annspark.errors import InputError
from annspark.spark.leftovers import OWNER
from annspark.spark.steps import _alive, digest_of, forget_steps, steps_kept, store_once
from tests.helpers import files_in
from tests.spark.test_leftovers import ended

OUTPUT = "file:/somewhere/out"


class Killed(Exception):
    """Stands for whatever ends a run but an error of annspark."""


def fail(table):
    raise AssertionError("it is made again")


@pytest.fixture
def run(spark, tmp_path):
    """Return a context manager: the steps of a run of the job."""
    return lambda made_of="a": steps_kept(spark, str(tmp_path), OUTPUT, made_of)


def do_steps(spark, steps, error=Killed):
    """Do a step that makes a table and one that makes numbers, and fail in a third."""
    store_once(steps, "read", fail, spark.range(3))
    steps.save("exact", facts={"users": 2}, arrays={"hashes": np.arange(4, dtype=np.int64)})
    steps.store(spark.range(4))
    raise error


def fail_with(run, work, made_of="a"):
    """Return the error that a run of the job ends with."""
    try:
        with run(made_of) as steps:
            work(steps)
            raise Killed
    except Exception as error:
        return error


@pytest.fixture
def kept(spark, run, tmp_path):
    """Return the folder that a failed run leaves."""
    assert isinstance(fail_with(run, lambda steps: do_steps(spark, steps)), Killed)
    (folder,) = tmp_path.iterdir()
    return folder


def test_the_next_run_has_what_finished_and_nothing_stays_when_it_ends(spark, run, kept, tmp_path):
    with run() as steps:
        assert sorted(row.id for row in store_once(steps, "read", fail, spark.range(99)).collect()) == [0, 1, 2]
        found = steps.load("exact")
        assert (found.table, found.facts, found.arrays["hashes"].tolist()) == (None, {"users": 2}, [0, 1, 2, 3])
        assert steps.load("join") is None
        assert len([name for name in files_in(kept) if name.startswith("table-")]) == 1
    assert files_in(tmp_path) == []


def test_a_run_of_other_inputs_settings_or_versions_starts_clean(run, kept):
    with run("b") as steps:
        assert steps.load("read") is None
        assert files_in(kept) == [OWNER]


@pytest.mark.parametrize("damage", ["a file of the table", "the numbers", "the note"])
def test_what_is_not_whole_is_made_again(run, kept, damage):
    table = json.loads((kept / "read.json").read_text())["table"]
    broken = {
        "a file of the table": ("read", next((kept / table).glob("*.parquet"))),
        "the numbers": ("exact", kept / "exact.npz"),
        "the note": ("exact", kept / "exact.json"),
    }
    step, file = broken[damage]
    file.unlink()
    with run() as steps:
        assert steps.load(step) is None
        assert steps.load({"read": "exact", "exact": "read"}[step]) is not None


def test_an_error_of_annspark_keeps_nothing(spark, run, tmp_path):
    error = fail_with(run, lambda steps: do_steps(spark, steps, InputError))
    assert isinstance(error, InputError)
    assert files_in(tmp_path) == []


def test_what_a_dead_process_of_this_machine_kept_is_taken_or_deleted(run, kept, tmp_path):
    taken = []
    for _ in range(2):
        (kept / OWNER).write_text(json.dumps(ended()))
        fail_with(run, lambda steps: taken.append(steps.load("read")))
    assert None not in taken
    (kept / OWNER).write_text(json.dumps(ended()))
    forget_steps(str(tmp_path), OUTPUT)
    assert files_in(tmp_path) == []


def test_what_a_running_job_of_this_process_keeps_is_its_own(run, kept):
    with run() as first, run() as second:
        assert first.load("read") is not None
        assert second.load("read") is None


def test_what_a_run_elsewhere_kept_is_taken_when_it_shows_no_life(spark, run, kept, tmp_path, monkeypatch):
    elsewhere = json.dumps(ended() | {"host": "elsewhere"})
    (kept / OWNER).write_text(elsewhere)
    alive = kept / "_alive"
    monkeypatch.setattr("annspark.spark.steps.sleep", lambda _: alive.write_text("another beat"))
    with run() as steps:
        assert store_once(steps, "read", lambda table: table.limit(1), spark.range(99)).count() == 1
        assert steps.load("read") is None
    forget_steps(str(tmp_path), OUTPUT)
    assert (kept / OWNER).read_text() == elsewhere
    monkeypatch.setattr("annspark.spark.steps.sleep", lambda _: None)
    with run() as steps:
        assert steps.load("read") is not None
    assert files_in(tmp_path) == []


def test_a_living_run_shows_it_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr("annspark.spark.steps._BEAT", 0.001)
    shown = set()
    with _alive(str(tmp_path)):
        while len(shown - {""}) < 2:
            shown |= {path.read_text() for path in tmp_path.glob("_alive")}


def test_the_digest_changes_with_facts_columns_and_files_and_is_empty_for_a_table_without_files(spark, tmp_path):
    spark.range(3).write.parquet(str(tmp_path / "a b"))
    table = spark.read.parquet(str(tmp_path / "a b"))
    found = digest_of({"k": 1}, [table])
    assert found == digest_of({"k": 1}, [spark.read.parquet(str(tmp_path / "a b"))]) != ""
    assert found != digest_of({"k": 2}, [table])
    assert found != digest_of({"k": 1}, [table.withColumnRenamed("id", "user_id")])
    assert digest_of({"k": 1}, [table, spark.range(3)]) == ""
    spark.range(3).write.mode("append").parquet(str(tmp_path / "a b"))
    assert found != digest_of({"k": 1}, [spark.read.parquet(str(tmp_path / "a b"))])
