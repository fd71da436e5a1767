"""Neighbor tables as edges of a graph."""

import pytest

from annspark import InputError, SettingsError
from annspark.uses.edges import to_edges

LONG = "user_id {id}, neighbor_id {id}, distance float"
# 1 and 2 are twins. 3 lists 1, which does not list it. 5 is a neighbor, and has no list.
PAIRS = [(1, 2, 0.0), (2, 1, 0.0), (2, 3, 1.0), (3, 2, 1.0), (3, 1, 3.0), (4, 5, 0.5)]


def edges_of(table):
    assert table.columns == ["src", "dst", "weight"]
    return sorted(tuple(row) for row in table.collect())


@pytest.fixture(params=["bigint", "string"])
def table(request, spark):
    name = {"bigint": int, "string": str}[request.param]
    rows = [(name(user), name(other), told) for user, other, told in PAIRS]
    return spark.createDataFrame(rows, LONG.format(id=request.param))


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ("directed", [(1, 2, 1.0), (2, 1, 1.0), (2, 3, 0.5), (3, 1, 0.25), (3, 2, 0.5), (4, 5, 2 / 3)]),
        ("mutual", [(1, 2, 1.0), (2, 3, 0.5)]),
        ("either", [(1, 2, 1.0), (1, 3, 0.25), (2, 3, 0.5), (4, 5, 2 / 3)]),
    ],
)
def test_pairs_become_edges_whose_weight_falls_with_the_distance(table, links, expected):
    found = edges_of(to_edges(table, links=links))
    assert [(int(src), int(dst)) for src, dst, _ in found] == [(src, dst) for src, dst, _ in expected]
    assert [weight for *_, weight in found] == pytest.approx([weight for *_, weight in expected])


def test_the_nested_shape_has_the_same_edges(spark):
    lists = {}
    for user, other, told in PAIRS:
        lists.setdefault(user, []).append((other, told))
    kind = "id bigint, neighbors array<struct<neighbor_id: bigint, distance: float>>"
    nested = spark.createDataFrame([*lists.items(), (6, [])], kind)
    long = spark.createDataFrame(PAIRS, LONG.format(id="bigint"))
    assert edges_of(to_edges(nested, id_col="id", links="either")) == edges_of(to_edges(long, links="either"))


def test_inner_products_are_weights_as_they_are(spark):
    table = spark.createDataFrame([(1, 2, -3.0), (2, 1, -3.0), (2, 3, 4.0)], LONG.format(id="int"))
    table = table.withColumnRenamed("distance", "inner_product")
    assert edges_of(to_edges(table)) == [(1, 2, -3.0), (2, 1, -3.0), (2, 3, 4.0)]
    assert edges_of(to_edges(table, links="mutual")) == [(1, 2, -3.0)]


def test_a_pair_told_with_two_distances_has_the_smaller_one(spark):
    table = spark.createDataFrame([(1, 2, 1.0), (2, 1, 3.0)], LONG.format(id="int"))
    assert edges_of(to_edges(table, links="either")) == [(1, 2, 0.5)]


def test_items_may_have_the_ids_of_users(spark):
    table = spark.createDataFrame([(1, 1, 0.0), (1, 2, 1.0)], LONG.format(id="int"))
    assert edges_of(to_edges(table)) == [(1, 2, 0.5)]
    assert edges_of(to_edges(table, same_ids=False)) == [(1, 1, 1.0), (1, 2, 0.5)]
    with pytest.raises(SettingsError, match="Items list no users"):
        to_edges(table, same_ids=False, links="mutual")


def test_what_cannot_be_is_refused(spark):
    table = spark.createDataFrame([(1, 2, 0.0)], LONG.format(id="int"))
    with pytest.raises(SettingsError, match="'links' is 'all'; it must be one of directed, mutual, either"):
        to_edges(table, links="all")
    with pytest.raises(InputError, match="there are 'user_id', 'neighbor_id'"):
        to_edges(table.drop("distance"))
