"""Whole jobs on an S3 server, through Hadoop's S3A and PyArrow; run by python -m tests.stores."""

import json
import logging
import shlex
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pyarrow import fs

import annspark
from annspark import RecallMissed, SettingsError, filesystem, nightly
from annspark.evaluate import evaluate
from annspark.job import make_fit_job, make_job, make_query_job, make_update_job
from annspark.settings import Settings
from tests.conftest import make_session
from tests.helpers import clustered, lists_of, make_table, python_environment
from tests.stores.server import BUCKET, KEY, SECRET, confs_of, reach, s3a_jar, served

LAKE = f"s3a://{BUCKET}/night"
QUICK = {"k": 4, "leaf_rows": 40, "audit_users": 60}
ROWS = clustered(600, 8)


@pytest.fixture(scope="module")
def endpoint():
    with served() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def arguments(endpoint):
    """Return PYSPARK_SUBMIT_ARGS with which Spark reaches the server."""
    confs = [part for name, value in confs_of(endpoint).items() for part in ("--conf", f"{name}={value}")]
    return shlex.join(["--packages", s3a_jar(), *confs, "pyspark-shell"])


@pytest.fixture(scope="module")
def spark(arguments, tmp_path_factory):
    """Return a session that reaches the server; neither this process nor Python workers have AWS_* variables."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patched.delenv(name, raising=False)
        patched.setenv("PYSPARK_SUBMIT_ARGS", arguments)
        session = make_session(str(tmp_path_factory.mktemp("warehouse")))
        yield session
        session.stop()


@pytest.fixture(autouse=True)
def lake(endpoint, spark):
    """Empty the store, and put the input there."""
    system = reach(endpoint)
    if system.get_file_info(f"{BUCKET}/night").type.name == "Directory":
        system.delete_dir(f"{BUCKET}/night")
    make_table(spark, ROWS).write.parquet(f"{LAKE}/vectors")


def read_text(endpoint, path):
    return reach(endpoint).open_input_stream(path.partition("://")[2]).read().decode()


def names(endpoint, path):
    found = reach(endpoint).get_file_info(fs.FileSelector(path.partition("://")[2], allow_not_found=True))
    return sorted(info.base_name for info in found)


def job(**more):
    return make_job({"input": f"{LAKE}/vectors", "output": f"{LAKE}/neighbors", **QUICK} | more)


def read(spark, path=f"{LAKE}/neighbors"):
    return spark.read.option("recursiveFileLookup", True).parquet(path)


def test_a_night_on_a_store_is_that_on_a_disk(spark, endpoint, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG, "annspark")
    make_table(spark, ROWS).write.parquet(str(tmp_path / "vectors"))
    here, there = (
        {name: f"{folder}/{name}" for name in ("output", "index", "report", "scratch")} for folder in (tmp_path, LAKE)
    )
    for places in (here, there):
        nightly.publish_neighbors(spark, job(**places, resume=True))
    assert lists_of(read(spark, there["output"])) == lists_of(spark.read.parquet(here["output"]))
    assert {name.partition("-")[0] for name in names(endpoint, there["output"])} == {"_run", "_spark_metadata"}
    assert names(endpoint, there["scratch"]) == []
    spark.sql(f"CREATE TABLE seen USING parquet OPTIONS (recursiveFileLookup true) LOCATION '{there['output']}'")
    assert spark.table("seen").count() == len(ROWS)
    indexes = [annspark.open_index(places["index"]) for places in (here, there)]
    for one, other in zip(*(index.search(ROWS[:50], k=4) for index in indexes), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = [annspark.load(spark, places["index"]) for places in (here, there)]
    one, other = (index.query(make_table(spark, ROWS[:50]), audit_users=20).table for index in loaded)
    assert lists_of(one) == lists_of(other)
    found = evaluate(
        *(spark, Settings(**QUICK)), input=f"{LAKE}/vectors", neighbors=there["output"], report=f"{LAKE}/audit"
    )
    assert found.rows.written == len(ROWS)
    folders = (there["report"], f"{LAKE}/audit")
    told = [read_text(endpoint, f"{folder}/report.{kind}") for folder in folders for kind in ("json", "html")]
    assert json.loads(told[0])["recall"] == json.loads((tmp_path / "report" / "report.json").read_text())["recall"]
    everything = "\n".join([*told, *caplog.messages, *capfd.readouterr()])
    assert SECRET not in everything
    assert KEY not in everything


def test_pandas_reads_what_aws_variables_let_it(spark, endpoint, monkeypatch):
    nightly.publish_neighbors(spark, job())
    monkeypatch.setattr(filesystem, "_TOLD", {})
    for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
        monkeypatch.setenv(f"AWS_{name}", value)
    files = annspark.files_of(f"s3://{BUCKET}/night/neighbors")
    assert sorted(pd.concat(map(pd.read_parquet, files))["user_id"]) == list(range(len(ROWS)))


def test_readers_of_last_night_go_on_and_a_night_later_its_files_are_gone(spark, endpoint):
    nightly.publish_neighbors(spark, job())
    before = read(spark)
    with pytest.raises(SettingsError, match="exists"):
        nightly.publish_neighbors(spark, job())
    nightly.publish_neighbors(spark, job(k=3, overwrite=True))
    assert before.selectExpr("max(size(neighbors)) AS k").collect()[0].k == 4
    assert read(spark).selectExpr("max(size(neighbors)) AS k").collect()[0].k == 3
    nightly.publish_neighbors(spark, job(k=2, overwrite=True))
    assert len(names(endpoint, f"{LAKE}/neighbors")) == 3  # two runs and the list


def test_a_night_that_misses_its_recall_leaves_the_table_of_the_night_before(spark, endpoint, monkeypatch):
    nightly.publish_neighbors(spark, job())
    before = names(endpoint, f"{LAKE}/neighbors")

    def miss(ready, report, advice):
        raise RecallMissed("too few were found", report)

    monkeypatch.setattr(nightly, "_require_recall", miss)
    with pytest.raises(RecallMissed):
        nightly.publish_neighbors(spark, job(k=3, overwrite=True))
    assert names(endpoint, f"{LAKE}/neighbors") == before
    assert read(spark).selectExpr("max(size(neighbors)) AS k").collect()[0].k == 4


def test_a_process_killed_before_it_publishes_leaves_the_table_and_the_next_night_cleans_up(
    spark, endpoint, arguments, tmp_path
):
    nightly.publish_neighbors(spark, job())
    before = names(endpoint, f"{LAKE}/neighbors")
    code = (
        "import os, signal, annspark.cli, annspark.output.stores as stores\n"
        "stores.list_of = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"annspark.cli.main(['build', '--input', '{LAKE}/vectors', '--output', '{LAKE}/neighbors', '--overwrite', "
        "'--leaf-rows', '40', '--audit-users', '60', '--k', '3'])"
    )
    environment = python_environment() | {"PYSPARK_SUBMIT_ARGS": arguments}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert SECRET not in done.stdout + done.stderr
    left = [name for name in names(endpoint, f"{LAKE}/neighbors") if name.startswith("_run-")]
    assert len(left) == 2
    assert read(spark).selectExpr("max(size(neighbors)) AS k").collect()[0].k == 4
    nightly.publish_neighbors(spark, job(k=2, overwrite=True))
    after = names(endpoint, f"{LAKE}/neighbors")
    assert len(after) == 3  # the run before, this one and the list
    assert set(after) & set(left) == set(before) & set(left)


def test_table_and_index_are_updated_together_and_are_those_on_a_disk(spark, tmp_path):
    changed = np.concatenate([ROWS[:590], clustered(10, 8, seed=9)])
    tables = []
    for folder in (str(tmp_path), LAKE):
        places = {name: f"{folder}/{name}" for name in ("input", "output", "index")}
        make_table(spark, ROWS).write.parquet(places["input"])
        nightly.publish_neighbors(spark, job(**places))
        make_table(spark, changed).write.mode("overwrite").parquet(places["input"])
        for _ in range(2):  # the second night starts from what the first has published
            nightly.publish_update(spark, make_update_job(places | {"audit_users": 60}))
        np.testing.assert_array_equal(annspark.open_index(places["index"]).vector(599), changed[599])
        tables.append(lists_of(read(spark, places["output"])))
    assert tables[0] == tables[1]
    nightly.publish_neighbors(spark, job(output=places["output"], overwrite=True))
    with pytest.raises(SettingsError, match="is not the table that was published with the index"):
        nightly.publish_update(spark, make_update_job(places | {"audit_users": 60}))


def test_an_index_is_made_replaced_and_asked(spark):
    places = {"input": f"{LAKE}/vectors", "index": f"{LAKE}/index"}
    for overwrite in (False, True):
        nightly.publish_index(spark, make_fit_job(places | {"k": 4, "overwrite": overwrite}))
    asked = {"output": f"{LAKE}/found", "same_ids": True, "audit_users": 60}
    nightly.publish_queries(spark, make_query_job(places | asked))
    assert read(spark, f"{LAKE}/found").count() == len(ROWS)
    with pytest.raises(SettingsError, match="holds an index, which a table must not replace"):
        nightly.publish_neighbors(spark, job(output=f"{LAKE}/index", overwrite=True))
    with pytest.raises(SettingsError, match="holds something else than an index"):
        annspark.load(spark, f"{LAKE}/index").save(f"{LAKE}/found", overwrite=True)
