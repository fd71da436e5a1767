"""Object stores as PyArrow reaches them, on an S3 server; what needs Spark is in trial.py."""

import json
import logging
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import annspark
from annspark import filesystem
from annspark.errors import InputError, SettingsError
from annspark.job import make_job
from annspark.output import folders, stores
from annspark.output.outputs import Output, Pending
from annspark.spark import files, leftovers
from annspark.spark.leftovers import OWNER, clear, this_owner, working_in
from annspark.spark.places import identity_of
from tests.helpers import REPOSITORY
from tests.spark.test_leftovers import ended
from tests.stores.server import BUCKET, KEY, SECRET, confs_of, served

SAVED = REPOSITORY / "tests" / "saved" / "format-1" / "dense"
PLACE = f"s3a://{BUCKET}/night/neighbors"


@pytest.fixture(scope="module")
def endpoint():
    with served() as endpoint:
        yield endpoint


@pytest.fixture
def store(endpoint, monkeypatch):
    """Give the store to PyArrow by Spark's confs, and empty it."""
    monkeypatch.setattr(filesystem, "_TOLD", {})
    monkeypatch.setattr(leftovers, "_FAILED", {})  # later tests do not reach the store
    filesystem.learn_store(PLACE, confs_of(endpoint).get)
    for name in files.names_in(f"s3a://{BUCKET}"):
        files.remove(f"s3a://{BUCKET}/{name}")


def opened(overwrite=False):
    return Output(name=PLACE, place=PLACE, mark=files.new_mark(), overwrite=overwrite, found=identity_of(None, PLACE))


def put(first, output, happens=lambda: None, rows=20):
    """Publish rows as a run does that began when the output was opened; something may happen before it publishes."""
    with working_in(output.aside, "output", output.name, None):
        folder = f"{output.aside}/table"
        output.written.append(folder)
        system, inside = filesystem.open_place(folder)
        pq.write_table(pa.table({"user_id": range(first, first + rows)}), f"{inside}/part-0.parquet", filesystem=system)
        happens()
        with files.alone(PLACE):
            stores.commit(Pending(None, folder, output))
        stores.tidy(output)


def first_row(paths):
    (path,) = paths
    system, inside = filesystem.open_place(path)
    return pq.read_table(inside, filesystem=system)["user_id"][0].as_py()


def runs():
    return [name for name in files.names_in(PLACE) if name.startswith("_run-")]


def test_one_put_leads_readers_to_the_new_files_and_those_of_the_night_before_stay(store):
    read = []
    for first in (0, 100, 200, 300):
        put(first, opened(overwrite=True))
        read.append(annspark.files_of(PLACE))
        assert first_row(read[-1]) == first
        assert files.is_published(PLACE)
    assert first_row(read[-2]) == 200
    assert not files.exists(read[-3][0])
    assert files.names_in(PLACE) == sorted([*runs(), "_spark_metadata"])
    assert len(runs()) == 2
    told = json.loads(files.read_text(f"{PLACE}/_spark_metadata/0").splitlines()[1])
    assert (told["path"], told["size"], told["action"]) == (read[-1][0], files.size_of(read[-1][0]), "add")
    assert annspark.files_of(PLACE.replace("s3a", "s3")) == [read[-1][0].replace("s3a", "s3")]


def test_a_run_that_fails_or_is_killed_before_it_publishes_changes_nothing(store, caplog):
    caplog.set_level(logging.INFO, "annspark")
    put(0, opened())
    before = runs()

    def fail():
        raise RuntimeError("the audit")

    with pytest.raises(RuntimeError, match="the audit"):
        put(100, opened(overwrite=True), fail)
    assert (runs(), first_row(annspark.files_of(PLACE))) == (before, 0)
    files.write_text(f"{PLACE}/_run-killed/{OWNER}", json.dumps(ended()))
    files.write_text(f"{PLACE}/_run-killed/table/part-0.parquet", "half")
    files.write_text(f"{PLACE}/_run-alive/{OWNER}", json.dumps(this_owner()))
    clear(PLACE, "_run-", lambda folder: folders._rescue_folder(folder, PLACE))
    assert runs() == sorted([*before, "_run-alive"])
    (said,) = [line for line in caplog.messages if "left over" in line]
    assert "_run-killed, of a run that ended before its time, is deleted" in said
    put(100, opened(overwrite=True))
    assert set(runs()) > {*before, "_run-alive"}


@pytest.mark.parametrize("done", [False, True])
def test_a_put_that_fails_leads_to_whole_files_whether_it_was_done_or_not(store, monkeypatch, done):
    put(0, opened())
    write = files.write_text

    def fail(path, text):
        if path.endswith("/_spark_metadata/0"):
            if done:
                write(path, text)
            raise OSError("the line is cut")
        write(path, text)

    monkeypatch.setattr(files, "write_text", fail)
    if done:
        put(100, opened(overwrite=True))
    else:
        with pytest.raises(OSError, match="the line is cut"):
            put(100, opened(overwrite=True))
    assert first_row(annspark.files_of(PLACE)) == 100 * done
    assert len(runs()) == 1 + done


def test_of_two_runs_the_last_wins_with_overwrite_and_the_first_without(store):
    put(200, opened())
    put(400, opened(overwrite=True), lambda: put(300, opened(overwrite=True)))
    assert first_row(annspark.files_of(PLACE)) == 400
    files.remove(PLACE)
    with pytest.raises(SettingsError, match="something appeared there") as caught:
        put(400, opened(), lambda: put(300, opened()))
    assert first_row(annspark.files_of(PLACE)) == 300
    kept = next(name for name in runs() if f"{PLACE}/{name}/table" in str(caught.value))
    put(500, opened(overwrite=True))
    put(600, opened(overwrite=True))
    assert kept in runs()


def test_runs_that_publish_at_the_same_moment_do_so_one_after_the_other(store):
    inside, most = [], []

    def publish():
        for _ in range(3):
            with files.alone(PLACE):
                inside.append(1)
                files.write_text(f"{PLACE}/part-{files.new_mark()}", "")
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9
    assert len(files.names_in(PLACE)) == 9  # the claims are gone


def test_a_claim_of_a_dead_run_holds_others_up_only_once(store, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    files.write_text(f"{PLACE}/_claim-dead", "")
    with files.alone(PLACE):
        assert "_claim-dead" not in files.names_in(PLACE)
    assert files.names_in(PLACE) == []


def test_plain_files_are_replaced_where_they_were_there_first_and_stay_where_they_came_later(store):
    files.write_text(f"{PLACE}/part-0.parquet", "yesterday's")
    put(0, opened(overwrite=True))
    assert files.names_in(PLACE) == [*runs(), "_spark_metadata"]
    with pytest.raises(SettingsError, match="changed or replaced meanwhile"):
        put(100, opened(overwrite=True), lambda: files.write_text(f"{PLACE}/part-7.parquet", "somebody's"))
    assert files.read_text(f"{PLACE}/part-7.parquet") == "somebody's"
    assert first_row(annspark.files_of(PLACE)) == 0


@pytest.mark.parametrize("before", [False, True])
def test_a_commit_can_be_taken_back(store, before):
    if before:
        put(0, opened())
    output = opened(overwrite=True)
    pending = Pending(None, f"{output.aside}/table", output)
    with working_in(output.aside, "output", PLACE, None):
        files.write_text(f"{pending.name}/part-0.parquet", "tonight's")
        stores.commit(pending)
        stores.take_back(pending)
    assert len(runs()) == before
    assert files.exists(f"{PLACE}/_spark_metadata/0") == before
    assert not before or first_row(annspark.files_of(PLACE)) == 0


@pytest.mark.parametrize("told_by", ["confs", "environment"])
def test_an_index_is_opened_without_spark(store, endpoint, monkeypatch, told_by):
    saved = annspark.open_index(str(SAVED))
    output = opened()
    with working_in(output.aside, "index", PLACE, None):
        for file in SAVED.iterdir():
            files.write_bytes(f"{output.aside}/index/{file.name}", file.read_bytes())
        stores.commit(Pending(None, f"{output.aside}/index", output))
    if told_by == "environment":
        monkeypatch.setattr(filesystem, "_TOLD", {})
        for name, value in (("ENDPOINT_URL_S3", endpoint), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
            monkeypatch.setenv(f"AWS_{name}", value)
    for scheme in ("s3a", "s3"):
        index = annspark.open_index(PLACE.replace("s3a", scheme))
        asked = np.random.default_rng(1).normal(size=(3, index.dim))
        for found, wanted in zip(index.search(asked, k=5), saved.search(asked, k=5), strict=True):
            np.testing.assert_array_equal(found, wanted)
    with pytest.raises(InputError, match="there is no such folder"):
        annspark.open_index(f"s3://{BUCKET}/nowhere")


def test_a_bucket_may_have_confs_of_its_own():
    own = {
        "spark.hadoop.fs.s3a.endpoint": "https://all",
        "spark.hadoop.fs.s3a.bucket.mine.endpoint": "http://mine:9000",
    }
    found = filesystem._arguments(filesystem._told_by("mine", own.get))
    assert (found["scheme"], found["endpoint_override"]) == ("http", "mine:9000")
    assert filesystem._arguments(filesystem._told_by("other", own.get))["endpoint_override"] == "all"


@pytest.mark.parametrize("path", [f"s3a://{KEY}:{SECRET}@lake/t", f"s3://{SECRET}@lake/t", f"ftp://me:{SECRET}@host/t"])
def test_a_path_with_a_password_is_refused_and_not_repeated(path):
    for call in (
        lambda: make_job({"input": path, "output": "out"}),
        lambda: make_job({"input": "in", "output": "out", "report": path}),
        lambda: annspark.open_index(path),
    ):
        with pytest.raises(SettingsError, match="a user or a password") as caught:
            call()
        assert SECRET not in str(caught.value)
    make_job({"input": "abfss://box@account.dfs.core.windows.net/in", "output": "out"})
