"""Neighbor tables of any shape, as pairs."""

import pytest
from pyspark.sql import functions as F

from annspark import InputError, build_neighbors
from annspark.output.layout import Layout, laid_out
from annspark.uses.pairs import neighbor_lists, value_in

LONG = "user_id bigint, neighbor_id bigint, distance double"


def neighbor_pairs(table, id_col="user_id", **named):
    """Return the lists as a long table, which is what the long shape of a build has."""
    layout = Layout("user_id", long=True, value=value_in(table, id_col))
    return laid_out(neighbor_lists(table, id_col, **named), layout)


def rows_of(table):
    return sorted(tuple(row) for row in table.collect())


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_both_shapes_and_any_name_of_users_give_the_same_pairs(spark, vectors, metric):
    points = vectors(60)
    nested = build_neighbors(points, k=4, metric=metric).table
    named = points.withColumnRenamed("user_id", "the id")
    long = build_neighbors(named, k=4, metric=metric, shape="long", id_col="the id").table
    value = "inner_product" if metric == "inner_product" else "distance"
    pairs = neighbor_pairs(nested)
    assert pairs.columns == ["user_id", "rank", "neighbor_id", value]
    assert rows_of(pairs) == rows_of(long.select("the id", "rank", "neighbor_id", value))
    assert rows_of(neighbor_pairs(long, "the id")) == rows_of(pairs)
    assert value_in(nested) == value_in(long, "the id") == value
    for table in (nested, long):
        table.unpersist()


def test_ranks_follow_the_distances_whatever_the_order_of_rows_and_what_rank_says(spark):
    table = spark.createDataFrame([(1, 2, 0.5, 1), (1, 3, 0.25, 0), (1, 4, 0.5, 9)], f"{LONG}, rank int")
    gathered = F.sort_array(F.collect_list(F.struct("neighbor_id", "distance")), asc=False).alias("neighbors")
    expected = [(1, 1, 3, 0.25), (1, 2, 2, 0.5), (1, 3, 4, 0.5)]
    assert rows_of(neighbor_pairs(table)) == expected
    assert rows_of(neighbor_pairs(table.groupBy("user_id").agg(gathered))) == expected


def test_the_largest_inner_product_comes_first(spark):
    table = spark.createDataFrame([(1, 2, 0.0), (1, 3, 7.0), (1, 4, -2.0)], LONG)
    table = table.withColumnRenamed("distance", "inner_product")
    assert rows_of(neighbor_pairs(table)) == [(1, 1, 3, 7.0), (1, 2, 2, 0.0), (1, 3, 4, -2.0)]


def test_users_themselves_nulls_and_repeated_neighbors_are_left_out(spark):
    nan, inf = float("nan"), float("inf")
    rows = [(1, 1, 0.0), (1, 2, 0.5), (1, 2, 0.25), (1, 3, 0.4), (1, 4, nan), (1, 5, inf), (1, 6, None)]
    rows += [(1, None, 0.1), (None, 1, 0.1), (2, 2, 0.0)]
    table = spark.createDataFrame(rows, LONG)
    assert rows_of(neighbor_pairs(table)) == [(1, 1, 2, 0.25), (1, 2, 3, 0.4)]
    other = [(1, 1, 1, 0.0), (1, 2, 2, 0.25), (1, 3, 3, 0.4), (2, 1, 2, 0.0)]
    assert rows_of(neighbor_pairs(table, same_ids=False)) == other


def test_users_without_neighbors_keep_an_empty_list(spark):
    kind = "user_id string, neighbors array<struct<neighbor_id: string, distance: float>>"
    table = spark.createDataFrame([("a", []), ("b", None), ("c", [("a", 0.5)])], kind)
    lists = {row["user_id"]: [tuple(one) for one in row["neighbors"]] for row in neighbor_lists(table).collect()}
    assert lists == {"a": [], "b": [], "c": [("a", 0.5)]}
    assert rows_of(neighbor_pairs(table)) == [("c", 1, "a", 0.5)]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("id bigint, neighbor_id bigint, distance double", r"no column 'user_id'; there are 'id', 'neighbor_id'"),
        ("user_id bigint, other bigint, distance double", "neither an array column 'neighbors' nor a column"),
        ("user_id bigint, neighbors array<bigint>", "neither 'distance' nor 'inner_product'"),
        ("user_id bigint, neighbors array<struct<id: bigint>>", "have no field 'neighbor_id'"),
        ("user_id bigint, neighbor_id bigint, similarity double", "neither 'distance' nor 'inner_product'"),
        ("user_id bigint, neighbor_id bigint, distance string", "'distance' is string, and it must be a number"),
        ("user_id bigint, neighbor_id string, distance float", "users are bigint and those of neighbors string"),
    ],
)
def test_a_table_without_the_columns_is_refused(spark, schema, message):
    with pytest.raises(InputError, match=message):
        neighbor_pairs(spark.createDataFrame([], schema))


def test_what_is_no_table_is_refused():
    with pytest.raises(InputError, match="a Spark DataFrame is wanted"):
        neighbor_pairs([(1, 2, 0.5)])
