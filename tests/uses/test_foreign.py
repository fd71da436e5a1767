"""Tables and arrays of other systems as neighbor tables."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError
from annspark.evaluate import evaluate_neighbors
from annspark.settings import Settings
from annspark.uses.foreign import from_arrays, from_table
from tests.helpers import clustered, lists_of, make_table
from tests.oracle import all_distances, recall_of

VECTORS = clustered(200)
K = 5


def nearest_of(vectors, k=K, metric="euclidean"):
    """Return the numbers of the k nearest other rows of each row, and their distances."""
    far = all_distances(vectors, metric)
    np.fill_diagonal(far, np.inf)
    indices = np.argsort(far, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(far, indices, axis=1)


def as_lists(indices, distances):
    return {
        row: list(zip(near, far, strict=True))
        for row, (near, far) in enumerate(zip(indices.tolist(), distances.tolist(), strict=True))
    }


def test_what_faiss_finds_becomes_the_table(spark):
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatL2(VECTORS.shape[1])
    index.add(VECTORS)
    squares, indices = index.search(VECTORS, K + 1)  # itself is among them
    lists = lists_of(from_arrays(spark, indices, np.sqrt(squares)))
    assert recall_of(lists, VECTORS, K, "euclidean") == 1
    exact = as_lists(*nearest_of(VECTORS))
    for row, near in lists.items():
        assert [far for _, far in near] == pytest.approx([far for _, far in exact[row]], rel=1e-4)


def test_evaluate_reads_the_table(spark):
    indices, distances = nearest_of(VECTORS)
    indices[:, -1] = -1  # a fifth is not found
    found = from_arrays(spark, indices, distances)
    settings = Settings(k=K, metric="euclidean", audit_users=200)
    report = evaluate_neighbors(make_table(spark, VECTORS), found, settings, {})
    assert report.recall.mean == pytest.approx(0.8)
    assert report.rows.short == 200


def test_rows_of_arrays_may_have_any_ids(spark):
    indices, distances = np.array([[1, -1], [0, 2], [1, 0]]), np.array([[1, np.inf], [1, 2], [2, 3]], np.float32)
    ids = np.array(["c", "a", "b"])
    table = from_arrays(spark, indices, distances, ids=ids)
    assert table.schema["neighbors"].dataType.simpleString() == "array<struct<neighbor_id:string,distance:float>>"
    assert lists_of(table) == {"c": [("a", 1)], "a": [("c", 1), ("b", 2)], "b": [("a", 2), ("c", 3)]}


def test_arrays_of_queries_point_to_other_rows(spark):
    indices, products = np.array([[0, 2], [2, 1]], np.int32), np.array([[7.0, 9.0], [-1.0, 0.5]])
    ids, items = [1, 2], np.array([1, 2, 3])
    table = from_arrays(spark, indices, products, ids=ids, neighbor_ids=items, inner_product=True)
    assert table.schema["neighbors"].dataType.elementType.names == ["neighbor_id", "inner_product"]
    assert lists_of(table) == {1: [(3, 9), (1, 7)], 2: [(2, 0.5), (3, -1)]}


@pytest.mark.parametrize(
    ("indices", "distances", "named", "message"),
    [
        ([[0.5]], [[1]], {}, r"indices: float64 \(1, 1\) with distances .* faiss returns distances first"),
        ([[0]], [[1.0, 2.0]], {}, r"both must have the shape \(rows, k\)"),
        ([0], [1.0], {}, r"int64 \(1,\)"),
        ([[5]], [[1.0]], {}, "5 is the largest, and there are 1 rows to be neighbors"),
        ([[0], [0]], [[1.0], [1.0]], {"ids": ["a"]}, "1 for 2 rows of indices"),
        ([[1], [0]], [[1.0], [1.0]], {"ids": ["a", "a"]}, "1 of 2 are repeated"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(spark, indices, distances, named, message):
    with pytest.raises(InputError, match=message):
        from_arrays(spark, np.array(indices), np.array(distances), **named)


def test_no_rows_make_an_empty_table(spark):
    table = from_arrays(spark, np.empty((0, 3), np.int64), np.empty((0, 3), np.float32))
    assert table.count() == 0


# What the tables of other systems look like, all of the same three pairs; a Column is made once there is a session.
SHAPES = {
    "a row per pair": ("user_id int, neighbor_id int, distance float", [(1, 2, 0.5), (1, 3, 1.0), (2, 1, 0.5)], {}),
    "hnswlib-spark": (
        "id int, prediction array<struct<neighbor: int, distance: float>>",
        [(1, [(1, 0.0), (2, 0.5), (3, 1.0)]), (2, [(1, 0.5)])],
        {"user": "id", "neighbor": "prediction.neighbor", "distance": "prediction.distance"},
    ),
    "spark-rapids-ml": (
        "query_id long, indices array<long>, distances array<float>",
        [(1, [2, 3, 2**63 - 1], [0.5, 1.0, float("inf")]), (2, [1, 1, 2**63 - 1], [0.5, 0.5, float("inf")])],
        {"user": "query_id", "neighbor": "indices", "distance": "distances"},
    ),
    "MLlib's approxSimilarityJoin": (
        "datasetA struct<id: int>, datasetB struct<id: int>, distCol double",
        [((1,), (1,), 0.0), ((1,), (3,), 1.0), ((1,), (2,), 0.5), ((2,), (1,), 0.5)],
        {"user": "datasetA.id", "neighbor": "datasetB.id", "distance": "distCol"},
    ),
    "similarities": (
        "a string, b string, score double",
        [("1", "3", 0.0), ("1", "2", 0.5), ("2", "1", 0.5), ("2", None, None)],
        {"user": "a", "neighbor": "b", "distance": lambda: 1 - F.col("score")},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tables_of_other_systems_become_the_table(spark, name):
    schema, rows, columns = SHAPES[name]
    named = {ours: theirs() if callable(theirs) else theirs for ours, theirs in columns.items()}
    table = from_table(spark.createDataFrame(rows, schema), **named)
    assert table.columns == ["user_id", "neighbors"]
    lists = {int(user): [(int(near), far) for near, far in found] for user, found in lists_of(table).items()}
    assert lists == {1: [(2, 0.5), (3, 1.0)], 2: [(1, 0.5)]}


def test_inner_products_are_read_as_such(spark):
    table = spark.createDataFrame([(1, 2, 3.0), (1, 3, 9.0)], "u int, v int, dot float")
    found = from_table(table, user="u", neighbor="v", inner_product="dot")
    assert lists_of(found) == {1: [(3, 9.0), (2, 3.0)]}


def test_nearest_by_finds_what_the_table_has(spark):
    if not hasattr(spark.range(1), "nearestByJoin"):
        pytest.skip("Spark before 4.2 has no NEAREST BY")
    make_table(spark, VECTORS).createOrReplaceTempView("vectors")
    found = spark.sql(
        "SELECT v.user_id, o.user_id AS neighbor_id, vector_l2_distance(v.vector, o.vector) AS distance "
        f"FROM vectors v JOIN vectors o EXACT NEAREST {K + 1} BY DISTANCE vector_l2_distance(v.vector, o.vector)"
    )
    lists = lists_of(from_table(found))
    assert recall_of(lists, VECTORS, K, "euclidean") == 1
    assert all(len(near) == K for near in lists.values())


def test_columns_that_are_not_there_are_named(spark):
    table = spark.createDataFrame([(1, 2)], "id int, other int")
    with pytest.raises(InputError, match=r"`user_id`.*There are the columns 'id', 'other'"):
        from_table(table, neighbor="other", distance="score")
    with pytest.raises(InputError, match="'distance' is string"):
        from_table(table, user="id", neighbor="other", distance=F.lit("near"))
    with pytest.raises(InputError, match="a Spark DataFrame is wanted"):
        from_table([(1, 2)])
