"""Where a run reads and writes is checked once, and a file of settings is read whole or not at all."""

import re
import tomllib
from dataclasses import MISSING

import numpy as np
import pytest

from annspark.allowed import settings_in
from annspark.errors import SettingsError
from annspark.job import (
    Job,
    folder_name_if_any,
    make_fit_job,
    make_job,
    make_query_job,
    read_config,
    require_folder_name,
)
from annspark.settings import Settings
from tests.helpers import REPOSITORY
from tests.settings_pages import EVERY, local_toml

FILES = ["conf/local.toml", "conf/cluster.toml"]


@pytest.mark.parametrize(
    ("taken", "output"),
    [("d/vectors", "d"), ("d", "d/neighbors"), ("x", "./x"), ("/a/x", "file:/a/x"), ("x", "y/../x"), ("a.b", "A.b")],
)
@pytest.mark.parametrize("name", ["input", "scratch", "report"])
def test_an_output_that_is_or_holds_another_place_is_refused(name, taken, output):
    places = {"input": "elsewhere", "output": output} | {name: taken}
    with pytest.raises(SettingsError, match=f"'{name}' is .*folder of its own"):
        make_job(places)


@pytest.mark.parametrize(("source", "output"), [("a/x", "a/xy"), ("a.b", "a/b"), ("hdfs://h/a", "/a"), ("a.b", "a.c")])
def test_places_side_by_side_are_fine(source, output):
    assert Job(input=source, output=output).output == output


@pytest.mark.parametrize(("name", "taken"), [("report", "real"), ("scratch", "link/below"), ("input", "link")])
def test_a_link_to_the_output_is_the_output(tmp_path, name, taken):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    places = {"input": str(tmp_path / "in"), name: str(tmp_path / taken)}
    with pytest.raises(SettingsError, match=f"'{name}' is .*folder of its own"):
        Job(output=str(tmp_path / "real"), **places)
    with pytest.raises(SettingsError, match=f"'{name}' is .*folder of its own"):
        Job(output=str(tmp_path / "link"), **places)


@pytest.mark.parametrize("name", ["input", "output", "report", "scratch"])
def test_a_name_no_file_can_have_is_refused(name):
    with pytest.raises(SettingsError, match=f"'{name}' is 'a.x00b'"):
        Job(**({"input": "in", "output": "out"} | {name: "a\0b"}))


@pytest.mark.parametrize("name", ["report", "scratch"])
@pytest.mark.parametrize("below", ["", "/", "/reports/x"])
def test_nothing_is_written_into_the_input(name, below):
    with pytest.raises(SettingsError, match=f"'{name}' is .*would be read as a part of the input"):
        Job(input="/data/in", output="/out", **{name: f"/data/in{below}"})
    assert Job(input="/data/in", output="/out", **{name: "/data"}).input == "/data/in"


@pytest.mark.parametrize(
    ("taken", "index"), [("d/x", "d"), ("d", "d/x"), ("x", "./x"), ("/a/x", "file:/a/x"), ("x", "y/../x")]
)
@pytest.mark.parametrize("name", ["input", "candidates", "output", "report", "scratch"])
def test_an_index_that_is_or_holds_another_place_is_refused(name, taken, index):
    places = {"input": "elsewhere", "output": "there", "index": index} | {name: taken}
    with pytest.raises(SettingsError, match=r"one is or holds the other, and the index's folder is replaced"):
        make_job(places)
    if name in ("input", "scratch"):
        with pytest.raises(SettingsError, match=r"one is or holds the other, and the index's folder is replaced"):
            make_fit_job({"input": "elsewhere", "index": index} | {name: taken})


@pytest.mark.parametrize(("name", "taken"), [("index", "d"), ("input", "d/x"), ("report", "d/r"), ("scratch", "d")])
def test_answers_do_not_replace_what_they_come_from(name, taken):
    places = {"index": "i", "input": "q"} | {name: taken}
    with pytest.raises(SettingsError, match=r"one is or holds the other, and the output's folder is replaced"):
        make_query_job({"output": "d"} | places)


@pytest.mark.parametrize("read", ["index", "input"])
@pytest.mark.parametrize("written", ["report", "scratch"])
def test_nothing_is_written_into_an_index_that_is_asked(read, written):
    with pytest.raises(SettingsError, match=rf"'{written}' is .*would be read as a part of the {read}"):
        make_query_job({"index": "i", "input": "q", "output": "o", read: "d", written: "d/below"})


def test_an_index_lies_in_a_folder_even_where_its_name_has_a_dot():
    assert Job(input="db.rows", output="db.out", index="db.index").index == "db.index"
    with pytest.raises(SettingsError, match="one is or holds the other"):
        Job(input="db.rows", output="./my.index", index="my.index")


@pytest.mark.parametrize(
    ("make", "values", "missing"),
    [
        (make_fit_job, {"k": 3}, "'input' and 'index' not given"),
        (make_query_job, {"index": "i"}, "'input' and 'output' not given"),
        (make_fit_job, {"input": "a", "index": "  "}, "'index' is '  '"),
        (make_fit_job, {"input": "a", "index": "b", "same_ids": True}, "there are no candidates"),
        (make_fit_job, {"input": "a", "index": "b", "probes": 2, "recall": 0.9}, "probes follow from the recall"),
    ],
)
def test_jobs_of_an_index_say_what_they_lack(make, values, missing):
    with pytest.raises(SettingsError, match=missing):
        make(values)


def test_a_query_keeps_apart_what_it_sets_from_where_it_is():
    job = make_query_job({"index": "i", "input": "q", "output": "o", "k": 3, "same_ids": True, "overwrite": True})
    assert (job.settings, job.overwrite) == ({"k": 3, "same_ids": True}, True)


@pytest.mark.parametrize("output", ["spark_catalog.db.users", "DB.`users`"])
def test_one_table_spelled_otherwise_is_the_same(output):
    with pytest.raises(SettingsError, match="one is or holds the other"):
        Job(input="db.users", output=output)


def test_a_job_takes_numpy_scalars_too():
    job = make_job({"input": np.str_("a"), "output": np.str_("b"), "overwrite": np.True_, "k": np.int64(3)})
    assert job == Job(input="a", output="b", overwrite=True, settings=Settings(k=3))
    assert [type(value) for value in (job.input, job.overwrite, job.settings.k)] == [str, bool, int]


@pytest.mark.parametrize("given", ["", "  ", "a\0b", 5, b"here", ["here"]])
def test_what_names_no_folder_is_refused(given):
    with pytest.raises(SettingsError, match=r"'scratch' is .* must be a folder, or left out\.$"):
        folder_name_if_any("scratch", given)
    with pytest.raises(SettingsError, match=r"'path' is .* must be a folder\.$"):
        require_folder_name("path", given)


def test_a_path_object_names_a_folder(tmp_path):
    assert folder_name_if_any("scratch", tmp_path) == str(tmp_path)
    assert folder_name_if_any("scratch", None) is None
    with pytest.raises(SettingsError, match=r"'path' is None; it must be a folder\.$"):
        require_folder_name("path", None)


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "night.toml").write_bytes(b"\xef\xbb\xbfk = 5\r\n")
    assert read_config(str(tmp_path / "night.toml")) == {"k": 5}


def test_a_job_without_places_names_all_that_are_missing():
    with pytest.raises(SettingsError, match="'input' and 'output' not given, on the command line or in the file"):
        make_job({"k": 3})


def test_names_nobody_knows_are_told_with_those_that_are_known():
    with pytest.raises(SettingsError, match=r"unknown settings 'kk', 'ouput'; known are audit_users, .*, vector_col"):
        make_job({"input": "a", "ouput": "b", "kk": 3})


def test_the_local_file_is_made_from_the_settings():
    assert (REPOSITORY / "conf/local.toml").read_text() == local_toml(), "python -m tests.settings_pages makes it anew"


def test_the_local_file_changes_no_default_but_that_the_demo_may_run_again():
    told = read_config(str(REPOSITORY / "conf/local.toml"))
    places = {name: told.pop(name) for name in ("input", "output", "overwrite")}
    assert make_job(places | told) == make_job(places)
    assert set(told) == {name for name, one in EVERY.items() if one.default not in (MISSING, None)} - set(places)


@pytest.mark.parametrize("path", FILES)
def test_a_file_shows_every_setting_once_and_what_is_commented_out_would_be_taken(path):
    text = (REPOSITORY / path).read_text()
    told = read_config(str(REPOSITORY / path))
    make_job(told)
    commented = [line[2:] for line in text.splitlines() if re.match(r"# \w+ = ", line)]
    shown = [next(iter(tomllib.loads(line))) for line in commented]
    assert sorted([*told, *shown]) == sorted(EVERY)
    for line in commented:
        given = tomllib.loads(line)
        alone = "candidate_col" in given  # it needs no candidates, and goes without top_up, too
        pairing = not alone and any(name.startswith("candidate") or name == "same_ids" for name in given)
        without = ("recall", "top_up") if "probes" in given else ("top_up",) if pairing or alone else ()
        rest = {name: value for name, value in told.items() if name not in without}
        assert make_job(rest | ({"candidates": "items"} if pairing else {}) | given)


def test_every_place_says_what_it_is():
    assert [name for name, one in settings_in(Job).items() if not one.help.endswith(".")] == []
