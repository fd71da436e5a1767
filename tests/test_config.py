"""Settings are checked once, and complain by name."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from annspark.config import Job, Settings, make_job, read_config, require_folder_name
from annspark.errors import SettingsError


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


@pytest.mark.parametrize("output", ["spark_catalog.db.users", "DB.`users`"])
def test_one_table_spelled_otherwise_is_the_same(output):
    with pytest.raises(SettingsError, match="one is or holds the other"):
        Job(input="db.users", output=output)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", 0),
        ("k", 1001),
        ("k", True),
        ("k", 2.0),
        ("probes", 0),
        ("probes", True),
        ("recall", 0),
        ("recall", 1),
        ("recall", 95),
        ("recall", "high"),
        ("top_up", 1),
        ("metric", "l1"),
        ("shape", "wide"),
        ("seed", -1),
        ("links", "both"),
        ("max_distance", -0.5),
        ("max_distance", True),
        ("max_distance", float("nan")),
        ("max_distance", float("inf")),
        ("values_col", ""),
        ("id_col", ""),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_is_allowed(name, value):
    with pytest.raises(SettingsError, match=f"'{name}' is {value!r}; it must be"):
        Settings(**{name: value})


@pytest.mark.parametrize("id_col", ["neighbors", "Neighbors"])
def test_an_id_column_named_like_the_output_is_refused(id_col):
    with pytest.raises(SettingsError, match="Rename the id column"):
        Settings(id_col=id_col)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"id_col": "vector"}, "'id_col' and 'vector_col' are both 'vector'"),
        ({"values_col": "vector"}, "'vector_col' and 'values_col' are both 'vector'"),
        ({"values_col": "user_id"}, "'id_col' and 'values_col' are both 'user_id'"),
    ],
)
def test_one_column_cannot_be_two_things(named, told):
    with pytest.raises(SettingsError, match=told):
        Settings(**named)


def test_an_inner_product_has_no_distance_to_be_restricted_by():
    with pytest.raises(SettingsError, match="'max_distance' is 1 and 'metric' 'inner_product', which has no distance"):
        Settings(max_distance=1, metric="inner_product")


def test_restricted_settings_find_the_neighbors_that_unrestricted_ones_do():
    asked = Settings(k=7, links="mutual", max_distance=0.5, shape="long")
    assert asked.restricted
    assert asked.found == Settings(k=7)
    assert Settings(shape="long").found == Settings(shape="long")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("k", np.int64(7), int),
        ("k", np.uint8(7), int),
        ("k", np.array(7), int),
        ("seed", np.int32(1), int),
        ("leaf_rows", np.int16(64), int),
        ("recall", np.float32(0.5), float),
        ("recall", np.float16(0.5), float),
        ("recall", np.longdouble(0.5), float),
        ("probes", np.float64(2.5), float),
        ("max_distance", np.array(0.5, np.float32), float),
        ("top_up", np.True_, bool),
        ("metric", np.str_("euclidean"), str),
        ("id_col", np.str_("name"), str),
    ],
)
def test_numpy_scalars_are_taken_and_kept_as_python_values(name, value, kind):
    settings = Settings(**{name: value})
    assert type(getattr(settings, name)) is kind
    assert getattr(settings, name) == value
    assert json.loads(json.dumps(asdict(settings)))[name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", np.float64(10)),
        ("k", np.True_),
        ("k", np.array([10])),
        ("k", np.array("10")),
        ("recall", np.array([0.9])),
        ("recall", np.timedelta64(1, "s")),
        ("top_up", np.int64(1)),
        ("top_up", np.array([True, False])),
        ("metric", np.array(["cosine"])),
        ("metric", ["cosine"]),
        ("max_distance", np.float32("nan")),
        ("max_distance", 10**400),
        ("id_col", np.bytes_(b"user_id")),
    ],
)
def test_other_numpy_values_are_refused_with_the_sentence(name, value):
    with pytest.raises(SettingsError, match=f"'{name}' is .*must be"):
        Settings(**{name: value})


def test_a_job_takes_numpy_scalars_too():
    job = make_job({"input": np.str_("a"), "output": np.str_("b"), "overwrite": np.True_, "k": np.int64(3)})
    assert job == Job(input="a", output="b", overwrite=True, settings=Settings(k=3))
    assert [type(value) for value in (job.input, job.overwrite, job.settings.k)] == [str, bool, int]


@pytest.mark.parametrize("given", ["", "  ", 5, b"here", ["here"]])
def test_what_names_no_folder_is_refused(given):
    with pytest.raises(SettingsError, match=r"'scratch' is .* must be a folder"):
        require_folder_name("scratch", given)


def test_a_path_object_names_a_folder(tmp_path):
    assert require_folder_name("scratch", tmp_path) == str(tmp_path)
    assert require_folder_name("scratch", None) is None


def test_a_config_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "night.toml").write_bytes(b"\xef\xbb\xbfk = 5\r\n")
    assert read_config(str(tmp_path / "night.toml")) == {"k": 5}
