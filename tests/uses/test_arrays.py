"""Neighbor tables as arrays and sparse matrices, and back."""

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError, SettingsError, build_neighbors
from annspark.errors import ClusterError
from annspark.uses.arrays import to_arrays, to_csr
from annspark.uses.edges import to_edges
from annspark.uses.foreign import from_arrays
from tests.helpers import clustered, grid, lists_of, make_table
from tests.oracle import all_distances

pytestmark = pytest.mark.spark35
LONG = "user_id {id}, neighbor_id {id}, distance float"
# 1 and 2 are twins. 3 lists 1, which does not list it. 5 is a neighbor, and has no list.
PAIRS = [(3, 1, 3.0), (1, 2, 0.0), (2, 3, 1.0), (2, 1, 0.0), (3, 2, 1.0), (4, 5, 0.5)]
NAMES = {
    "bigint": int,
    "smallint": int,
    "string": lambda i: f"ü{i}",
    "binary": lambda i: bytes([i]),
    "date": lambda i: date(2000, 1, i),
    "decimal(20,0)": Decimal,
}
FAR = np.inf


def table_of(spark, pairs, kind="bigint"):
    name = NAMES[kind]
    rows = [(name(user), name(other), told) for user, other, told in pairs]
    return spark.createDataFrame(rows, LONG.format(id=kind)).repartition(3)


@pytest.mark.parametrize("kind", NAMES)
def test_rows_are_in_the_order_of_ids_of_any_type(spark, kind):
    ids, indices, distances = to_arrays(table_of(spark, PAIRS, kind))
    assert ids.tolist() == [NAMES[kind](i) for i in range(1, 6)]
    np.testing.assert_array_equal(indices, [[1, -1], [0, 2], [1, 0], [4, -1], [-1, -1]])
    np.testing.assert_array_equal(distances, [[0, FAR], [0, 1], [1, 3], [0.5, FAR], [FAR, FAR]])
    assert (indices.dtype, distances.dtype) == (np.int64, np.float32)


def test_the_own_entry_comes_first_also_before_twins_and_counts_as_a_column(spark):
    table = table_of(spark, PAIRS)
    _, indices, distances = to_arrays(table, self_first=True)
    np.testing.assert_array_equal(indices, [[0, 1, -1], [1, 0, 2], [2, 1, 0], [3, 4, -1], [4, -1, -1]])
    np.testing.assert_array_equal(distances[:3], [[0, 0, FAR], [0, 0, 1], [0, 1, 3]])
    _, indices, _ = to_arrays(table, k=2, self_first=True)
    np.testing.assert_array_equal(indices, [[0, 1], [1, 0], [2, 1], [3, 4], [4, -1]])
    _, indices, _ = to_arrays(table, k=1)
    np.testing.assert_array_equal(indices[:, 0], [1, 0, 1, 4, -1])


def test_more_columns_than_any_list_fills_are_refused(spark):
    table = table_of(spark, PAIRS)
    with pytest.raises(InputError, match=r"k is 3, .* lists of 3 neighbors, and the longest has 2\. Build .* k=3"):
        to_arrays(table, k=3)
    assert to_arrays(table, k=3, self_first=True)[1].shape == (5, 3)
    with pytest.raises(InputError, match=r"lists of 3 neighbors, and the longest has 2\. .* ask for 3 columns"):
        to_arrays(table, k=4, self_first=True)
    with pytest.raises(SettingsError, match="'k' is 0"):
        to_arrays(table, k=0)


def test_both_shapes_give_the_exact_neighbors(spark):
    vectors = clustered(80)
    far = all_distances(vectors, "euclidean")
    np.fill_diagonal(far, np.inf)
    order = np.argsort(far, axis=1, kind="stable")[:, :4]
    for shape in ("nested", "long"):
        result = build_neighbors(make_table(spark, vectors), k=4, metric="euclidean", shape=shape)
        ids, indices, distances = to_arrays(result.table)
        np.testing.assert_array_equal(ids, np.arange(80))
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_allclose(distances, np.take_along_axis(far, order, axis=1), rtol=1e-5)
        result.table.unpersist()


def test_a_user_with_an_empty_list_has_a_row(spark):
    kind = "user_id string, neighbors array<struct<neighbor_id: string, distance: double>>"
    table = spark.createDataFrame([("b", [("c", 0.25)]), ("a", []), ("c", None)], kind)
    ids, indices, distances = to_arrays(table)
    assert ids.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(indices, [[-1], [2], [-1]])
    assert distances.dtype == np.float64
    ids, matrix = to_csr(table)
    assert matrix.shape == (3, 3)
    np.testing.assert_array_equal(np.diff(matrix.indptr), [0, 1, 0])


def test_an_empty_table_has_no_rows(spark):
    ids, indices, _ = to_arrays(spark.createDataFrame([], LONG.format(id="string")))
    assert (len(ids), indices.shape) == (0, (0, 0))
    _, matrix = to_csr(spark.createDataFrame([], LONG.format(id="bigint")), links="mutual")
    assert matrix.shape == (0, 0)


def test_inner_products_stay_and_have_no_own_entry(spark):
    table = table_of(spark, [(1, 2, -3.0), (1, 3, 4.0), (2, 1, -3.0)]).withColumnRenamed("distance", "inner_product")
    _, indices, products = to_arrays(table)
    np.testing.assert_array_equal(indices, [[2, 1], [0, -1], [-1, -1]])
    np.testing.assert_array_equal(products, [[4, -3], [-3, -FAR], [-FAR, -FAR]])
    _, matrix = to_csr(table, links="either")
    np.testing.assert_array_equal(matrix.indices, [2, 1, 0, 0])
    np.testing.assert_array_equal(matrix.data, [4, -3, -3, 4])
    for export, argument in ((to_arrays, "self_first"), (to_csr, "with_self")):
        with pytest.raises(InputError, match=f"has inner products, and {argument} needs distances"):
            export(table, **{argument: True})


@pytest.mark.parametrize("links", ["directed", "mutual", "either"])
def test_the_matrix_has_the_edges_and_keeps_zeros(spark, links):
    points = make_table(spark, grid(4, 2, twins=20))
    result = build_neighbors(points, k=5, metric="euclidean")
    ids, matrix = to_csr(result.table, links=links)
    edges = {(src, dst): weight for src, dst, weight in to_edges(result.table, links=links).collect()}
    if links != "directed":
        edges |= {(dst, src): weight for (src, dst), weight in edges.items()}
    rows = np.repeat(np.arange(len(ids)), np.diff(matrix.indptr))
    found = dict(zip(zip(ids[rows].tolist(), ids[matrix.indices].tolist(), strict=True), matrix.data, strict=True))
    assert len(found) == matrix.nnz
    assert {pair: 1 / (1 + far) for pair, far in found.items()} == pytest.approx(edges)
    assert (matrix.data == 0).sum() > 40
    falls = (np.diff(matrix.data) < 0) & (np.diff(rows) == 0)
    assert not falls.any()
    result.table.unpersist()


def test_the_own_entry_of_a_matrix_is_the_first_of_its_row(spark):
    _, matrix = to_csr(table_of(spark, PAIRS), with_self=True)
    np.testing.assert_array_equal(matrix.indptr, [0, 2, 5, 8, 10, 11])
    np.testing.assert_array_equal(matrix.indices, [0, 1, 1, 0, 2, 2, 1, 0, 3, 4, 4])
    np.testing.assert_array_equal(matrix.data, np.array([0, 0, 0, 0, 1, 0, 1, 3, 0, 0.5, 0], np.float32))


def test_arrays_come_back_as_the_table_they_were(spark):
    names = [f"u{i}" for i in range(300)]
    vectors = make_table(spark, clustered(300), names, schema="user_id string, vector array<float>")
    result = build_neighbors(vectors, k=6)
    ids, indices, distances = to_arrays(result.table)
    assert lists_of(from_arrays(spark, indices, distances, ids=ids)) == lists_of(result.table)
    _, indices, distances = to_arrays(result.table, self_first=True)
    assert lists_of(from_arrays(spark, indices, distances, ids=ids)) == lists_of(result.table)
    result.table.unpersist()


def test_a_table_larger_than_the_free_memory_is_refused_before_it_is_collected(spark, monkeypatch):
    table = table_of(spark, PAIRS, "string")
    monkeypatch.setattr("annspark.uses.driver.bytes_free", lambda: 500)
    monkeypatch.setattr("annspark.uses.driver.collect", None)
    for export in (to_arrays, to_csr):
        with pytest.raises(ClusterError, match=r"4 users with 6 neighbors take .* GB .* nothing was collected"):
            export(table)
    for free in (0, 10_000):  # 0 stands for unknown
        monkeypatch.undo()
        monkeypatch.setattr("annspark.uses.driver.bytes_free", lambda free=free: free)
        assert len(to_arrays(table)[0]) == 5


def test_ids_that_are_only_neighbors_count_as_rows_of_arrays(spark, monkeypatch):
    table = spark.range(1, 1001).selectExpr("0L AS user_id", "id AS neighbor_id", "1d AS distance")
    monkeypatch.setattr("annspark.uses.driver.bytes_free", lambda: 1_000_000)
    with pytest.raises(ClusterError, match=r"1 users with 1,000 neighbors take 0\.0 GB"):
        to_arrays(table)  # a million cells
    assert to_csr(table)[1].shape == (1001, 1001)


def test_a_user_with_two_lists_is_refused(spark):
    kind = "user_id string, neighbors array<struct<neighbor_id: string, distance: double>>"
    table = spark.createDataFrame([("b", [("c", 0.25)]), ("b", [("a", 0.5)])], kind)
    with pytest.raises(InputError, match="the user 'b' has more than one list"):
        to_arrays(table)


def test_ids_of_users_may_be_narrower_than_those_of_neighbors(spark):
    table = table_of(spark, PAIRS).withColumn("user_id", F.col("user_id").cast("int"))
    ids, indices, _ = to_arrays(table)
    assert ids.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(indices[:, 0], [1, 0, 1, 4, -1])
