import numpy as np
import pytest
from pyspark.sql.types import LongType

from annspark import build_neighbors
from annspark.output.finish import count_shorter, finish
from annspark.output.layout import layout_of
from annspark.settings import Settings
from tests.helpers import clustered, configured, lists_of, long_lists_of, make_table
from tests.oracle import assert_sound

N, K = 40, 4
LINKS = ("all", "mutual", "either")
ROW = "user_id string, neighbors array<struct<neighbor_id:string,{}:float>>"


def found_lists(sign=1):
    """Return lists as a join finds them: integer distances with many ties, of which every pair has one."""
    rng = np.random.default_rng(0)
    apart = np.triu(rng.integers(1, 6, (N, N)), 1)
    apart = apart + apart.T
    ids = [f"u{i}" for i in range(N)]
    lists = {}
    for i, user in enumerate(ids):
        others = [
            (other, float(sign * d)) for j, (other, d) in enumerate(zip(ids, apart[i].tolist(), strict=True)) if j != i
        ]
        some = [others[j] for j in sorted(rng.permutation(N - 1)[:9])]
        lists[user] = ordered(some, sign)[: K - (i == 7)]
    lists["u9"] = []
    return lists


def ordered(neighbors, sign=1):
    return sorted(neighbors, key=lambda one: (sign * one[1], one[0]))


def restricted(lists, links, max_distance=None, sign=1):
    """Restrict lists in plain Python."""
    limit = np.inf if max_distance is None else max_distance
    near = {user: [one for one in neighbors if one[1] <= limit] for user, neighbors in lists.items()}
    names = {(user, other) for user, neighbors in near.items() for other, _ in neighbors}
    if links == "mutual":
        return {user: [one for one in neighbors if (one[0], user) in names] for user, neighbors in near.items()}
    if links == "either":
        named = {user: [(by, d) for by in near for other, d in near[by] if other == user] for user in near}
        return {user: ordered(set(near[user]) | set(named[user]), sign) for user in near}
    return near


@pytest.fixture
def restrict(spark, stage):
    """Return the restricted lists and how many are said to have fewer than K."""

    def call(lists, field="distance", **named):
        found = spark.createDataFrame(list(lists.items()), ROW.format(field)).repartition(3)
        settings = Settings(**({"k": K} | named))
        layout = layout_of(settings)
        table = stage(finish(found, layout.nested, layout, settings, LongType()))
        fewer = count_shorter(table, layout, K, len(lists))
        assert table.schema.simpleString().count(f"{field}:float") == 1
        return (long_lists_of if settings.shape == "long" else lists_of)(table), fewer

    return call


@pytest.mark.spark35
@pytest.mark.parametrize("shape", ["nested", "long"])
@pytest.mark.parametrize(
    ("links", "max_distance"), [*((links, 2) for links in LINKS), ("mutual", None), ("either", None)]
)
def test_restricted_lists_are_those_of_plain_python_and_nobody_is_lost(restrict, shape, links, max_distance):
    lists = found_lists()
    wanted = restricted(lists, links, max_distance)
    table, fewer = restrict(lists, links=links, max_distance=max_distance, shape=shape)
    assert fewer == sum(len(neighbors) < K for neighbors in wanted.values())
    assert (fewer > 0) == ((links, max_distance) != ("either", None))
    if shape == "long":  # a user without neighbors has no row of the long shape
        wanted = {user: neighbors for user, neighbors in wanted.items() if neighbors}
    assert table == wanted


@pytest.mark.parametrize(("links", "ansi"), [("mutual", "true"), ("either", "false")])
def test_links_of_inner_products_stay_largest_first(restrict, spark, links, ansi):
    lists = found_lists(sign=-1)
    with configured(spark, spark__sql__ansi__enabled=ansi):
        table, _ = restrict(lists, "inner_product", links=links, metric="inner_product")
    assert table == restricted(lists, links, sign=-1)


def test_a_distance_just_at_the_limit_stays_though_it_is_a_float(restrict):
    lists = {"a": [("b", 0.1)], "b": [("a", 0.1)], "c": [("a", 0.2)]}
    table, _ = restrict(lists, max_distance=0.1)
    assert {user: [other for other, _ in neighbors] for user, neighbors in table.items()} == {
        "a": ["b"],
        "b": ["a"],
        "c": [],
    }


@pytest.fixture(scope="module")
def whole(spark):
    """Return the table of 300 users, their neighbors unrestricted, and the report on those."""
    vectors = clustered(300, 6)
    table = make_table(spark, vectors)
    result = build_neighbors(table, k=K, metric="euclidean", seed=1)
    found = lists_of(result.table)
    result.table.unpersist()
    assert_sound(found, vectors, range(300), K, "euclidean")
    return table, found, result.report


@pytest.mark.parametrize("links", [pytest.param("mutual", marks=pytest.mark.slow), "either"])
def test_a_build_publishes_the_links_asked_for_and_counts_who_has_fewer(whole, links):
    table, found, of_all = whole
    limit = float(np.median([distance for neighbors in found.values() for _, distance in neighbors]))
    result = build_neighbors(table, k=K, metric="euclidean", seed=1, links=links, max_distance=limit)
    wanted = restricted(found, links, np.float32(limit))
    assert lists_of(result.table) == wanted
    rows = result.report.rows
    assert (rows.written, rows.short) == (300, 0)
    assert rows.restricted == sum(len(neighbors) < K for neighbors in wanted.values()) > 0
    # The recall is that of all neighbors found, however few are published.
    assert result.report.recall == of_all.recall
    result.table.unpersist()


@pytest.mark.parametrize("shape", ["nested", "long"])
def test_where_all_are_too_far_nobody_has_neighbors_and_all_are_counted(restrict, shape):
    table, fewer = restrict(found_lists(), max_distance=0, shape=shape)
    assert fewer == N
    assert table == ({} if shape == "long" else {user: [] for user in found_lists()})


@pytest.mark.parametrize("shape", ["nested", pytest.param("long", marks=pytest.mark.slow)])
def test_a_single_user_has_no_links(spark, shape):
    result = build_neighbors(make_table(spark, clustered(1)), links="mutual", shape=shape)
    assert result.table.count() == (shape == "nested")
    assert result.report.rows.written == 1
    result.table.unpersist()
