"""Settings are typed once, checked once, and complain by name."""

import inspect
import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from annspark.allowed import Allowed, settings_in
from annspark.errors import SettingsError
from annspark.settings import Settings, make_settings, takes_settings


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
        ("vector_cols", {}),
        ("vector_cols", {"a": 0}),
        ("vector_cols", {"a": 1, "b": -0.5}),
        ("vector_cols", {"a": float("inf")}),
        ("vector_cols", {"a": float("nan")}),
        ("vector_cols", {"a": 10**400}),
        ("vector_cols", {"a": True}),
        ("vector_cols", {"a": "1"}),
        ("vector_cols", {"": 1}),
        ("vector_cols", {1: 1}),
        ("vector_cols", "a"),
        ("vector_cols", 3),
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


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"vector_col": "v"}, "'vector_col' is 'v' and 'vector_cols' {'b': 2, 'a': 1}, which name all columns"),
        ({"values_col": "v"}, "'values_col' is 'v' and 'vector_cols' .* Leave 'values_col' or 'vector_cols' out"),
        ({"candidate_vector_col": "v"}, "'candidate_vector_col' is 'v' .* of users and of candidates"),
        ({"metric": "euclidean"}, "'metric' is 'euclidean' and 'vector_cols' .* Choose cosine or inner_product"),
        ({"id_col": "a"}, "'id_col' is 'a', which is also one of the 'vector_cols'"),
    ],
)
def test_weighted_columns_exclude_what_does_not_go_with_them(named, told):
    with pytest.raises(SettingsError, match=told):
        Settings(vector_cols={"b": 2, "a": 1}, **named)


def test_weighted_columns_are_the_same_in_any_order_and_of_any_numbers():
    one = Settings(vector_cols={"b": np.float32(0.5), "a": np.int64(2)})
    assert one == Settings(vector_cols={"a": 2, "b": 0.5})
    assert list(one.vector_cols) == list(one.vector_names) == ["a", "b"]
    assert json.loads(json.dumps(asdict(one)))["vector_cols"] == {"a": 2, "b": 0.5}
    assert Settings(vector_cols={"a": 1}, id_col="vector").vector_names == ("a",)
    assert Settings(vector_col="v").vector_names == ("v",)


def test_an_inner_product_has_no_distance_to_be_restricted_by():
    with pytest.raises(SettingsError, match="'max_distance' is 1 and 'metric' 'inner_product', which has no distance"):
        Settings(max_distance=1, metric="inner_product")


@pytest.mark.parametrize(
    ("named", "changes"),
    [({}, False), ({"shape": "long"}, False), ({"links": "either"}, True), ({"max_distance": 0.5}, True)],
)
def test_max_distance_and_links_change_lists(named, changes):
    assert Settings(**named).changes_lists is changes


def test_a_recall_is_asked_for_unless_probes_are_given():
    assert Settings().recall_asked == 0.95
    assert Settings(recall=0.5).recall_asked == 0.5
    assert Settings(probes=3).recall_asked is None


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


ENTRIES = settings_in(Settings)


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_all_there_is_to_say(name):
    one = ENTRIES[name]
    assert isinstance(one.allowed, Allowed)
    assert one.help.endswith(".")
    assert "\n" not in one.help
    assert (one.default is None) == bool(one.unset) == (one.example is not None)
    assert one.allowed.takes(one.example if one.default is None else one.default)
    Settings(**{name: one.example if one.default is None else one.default})


def test_every_field_of_the_settings_is_an_entry():
    assert list(ENTRIES) == [field.name for field in fields(Settings)]
    assert {name: one.default for name, one in ENTRIES.items()} == asdict(Settings())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("k", 0, "'k' is 0; it must be a whole number from 1 to 1,000."),
        ("trees", 0, "'trees' is 0; it must be a whole number from 1 to 100."),
        ("leaf_rows", None, "'leaf_rows' is None; it must be a whole number from 1 to 1,000,000."),
        ("probes", 0, "'probes' is 0; it must be a number from 1 to 1,000."),
        (
            "recall",
            95,
            "'recall' is 95; it must be a number between 0 and 1, both excluded, such as 0.95. For exact neighbors set "
            "leaf_rows to the number of users.",
        ),
        ("max_distance", -1, "'max_distance' is -1; it must be a number from 0 on."),
        ("top_up", 1, "'top_up' is 1; it must be true or false."),
        ("shape", "wide", "'shape' is 'wide'; it must be one of nested, long."),
        ("id_col", "", "'id_col' is ''; it must be the name of a column."),
        ("values_col", "", "'values_col' is ''; it must be the name of a column, or left out."),
        (
            "vector_cols",
            {"tags": 0},
            "'vector_cols' is {'tags': 0}; it must be names of columns with positive numbers, or left out. Such as "
            "{'profile': 0.8, 'tags': 0.2}.",
        ),
    ],
)
def test_messages_keep_their_texts(name, value, message):
    with pytest.raises(SettingsError) as caught:
        Settings(**{name: value})
    assert str(caught.value) == message


def test_the_python_call_shows_the_settings_with_types_and_defaults():
    from annspark import build_neighbors

    shown = inspect.signature(build_neighbors).parameters
    named = {name: one for name, one in shown.items() if one.kind is one.KEYWORD_ONLY}
    assert {name: one.default for name, one in named.items()} == asdict(Settings()) | {
        "candidates": None,
        "exclude": None,
        "scratch": None,
    }
    own = ("candidates", "exclude", "scratch")
    assert {name: one.annotation for name, one in named.items() if name not in own} == Settings.__annotations__
    assert list(shown) == ["vectors", *ENTRIES, *own]


def test_the_python_call_describes_every_setting_in_lines_that_fit():
    from annspark import build_neighbors

    told = inspect.getdoc(build_neighbors)
    assert "{settings}" not in told
    assert max(map(len, told.splitlines())) <= 116
    joined = " ".join(told.split())
    assert [name for name, one in ENTRIES.items() if f"{name}: {one.text}" not in joined.replace(" :", ":")] == []


def test_a_name_that_the_python_call_does_not_know_is_named_with_those_it_knows(spark):
    from annspark import build_neighbors

    table = spark.createDataFrame([(1, [1.0])], "user_id int, vector array<float>")
    with pytest.raises(SettingsError, match=r"unknown setting 'neighbors'; known are audit_users, .*, scratch, .*"):
        build_neighbors(table, neighbors=5)
    with pytest.raises(TypeError, match="positional argument"):
        build_neighbors(table, 5)


def test_a_function_without_docstring_takes_settings_too():
    def call(vectors, **settings):
        return make_settings(settings)

    assert takes_settings(call)(None, k=3) == Settings(k=3)
    assert inspect.signature(call).parameters["k"].default == 10
