"""A job with resume goes on from the last finished step of a run that failed, and ends with the same table."""

from dataclasses import replace

import pytest

from annspark.errors import SettingsError
from annspark.job import make_job
from annspark.nightly import publish_neighbors
from annspark.spark.steps import Steps
from tests.helpers import clustered, files_in, lists_of, make_table

# By the last step that the first run finishes: what fails in it next, and the tables that the second run then stores.
FAILING = {
    "read-input": ("annspark.pipeline.sample_vectors", 1),
    "exact": ("annspark.pipeline.plan_for", 1),
    "join": ("annspark.pipeline.audit_found", 0),
}


class Killed(Exception):
    """Stands for whatever ends a run."""


def fail(*_, **__):
    raise Killed


@pytest.fixture(scope="module")
def inputs(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    make_table(spark, clustered(500)).write.parquet(str(folder / "in"))
    make_table(spark, clustered(300, seed=2)).write.parquet(str(folder / "items"))
    return folder


@pytest.fixture
def job(inputs, tmp_path):
    places = {"input": str(inputs / "in"), "output": str(tmp_path / "out"), "scratch": str(tmp_path / "scratch")}
    return make_job(places | {"k": 4, "leaf_rows": 60, "audit_users": 40, "overwrite": True, "resume": True})


@pytest.fixture(scope="module")
def expected(spark, inputs):
    """Return the lists of a run without resume."""
    places = {"input": str(inputs / "in"), "output": str(inputs / "out")}
    publish_neighbors(spark, make_job(places | {"k": 4, "leaf_rows": 60, "audit_users": 40}))
    return lists_of(spark.read.parquet(places["output"]))


def run_until(spark, job, monkeypatch, failing):
    with monkeypatch.context() as patched:
        patched.setattr(failing, fail)
        with pytest.raises(Killed):
            publish_neighbors(spark, job)


@pytest.mark.parametrize("step", FAILING)
def test_a_run_goes_on_from_the_last_finished_step(spark, job, expected, tmp_path, monkeypatch, step):
    failing, n_stored = FAILING[step]
    run_until(spark, job, monkeypatch, failing)
    assert files_in(tmp_path) == ["scratch"]
    assert list((tmp_path / "scratch").glob(f"resume-*/{step}.json")) != []
    stored, store = [], Steps.store
    monkeypatch.setattr(Steps, "store", lambda self, table: stored.append(table) or store(self, table))
    if step != "read-input":
        monkeypatch.setattr("annspark.flow.exact.find_exact", fail)
    publish_neighbors(spark, job)
    assert lists_of(spark.read.parquet(job.output)) == expected
    assert len(stored) == n_stored
    assert files_in(tmp_path / "scratch") == []


def test_without_resume_a_run_starts_clean(spark, job, expected, tmp_path, monkeypatch):
    run_until(spark, job, monkeypatch, FAILING["join"][0])
    publish_neighbors(spark, replace(job, resume=False))
    assert lists_of(spark.read.parquet(job.output)) == expected
    assert files_in(tmp_path / "scratch") == []


@pytest.mark.slow
def test_items_for_users_go_on_too(spark, job, inputs, tmp_path, monkeypatch):
    job = replace(job, candidates=str(inputs / "items"))
    publish_neighbors(spark, replace(job, output=str(tmp_path / "other"), resume=False))
    run_until(spark, job, monkeypatch, "annspark.query.audit_found")
    monkeypatch.setattr("annspark.query.find_for_queries", fail)
    publish_neighbors(spark, job)
    assert lists_of(spark.read.parquet(job.output)) == lists_of(spark.read.parquet(str(tmp_path / "other")))


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"links": "mutual"}, {"shape": "long"}], ids=str)
def test_the_table_is_that_of_a_run_without_resume(spark, job, more):
    found = []
    for resume in (True, False):
        publish_neighbors(spark, replace(job, settings=replace(job.settings, **more), resume=resume))
        table = spark.read.parquet(job.output)
        found.append((table.dtypes, sorted(map(str, table.collect()))))
    assert found[0] == found[1]


def test_resume_needs_scratch():
    with pytest.raises(SettingsError, match="'resume' is true and there is no 'scratch'"):
        make_job({"input": "in", "output": "out", "resume": True})
