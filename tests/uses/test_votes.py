"""Votes of neighbors, beside scikit-learn's."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import accuracy_score, mean_absolute_error, root_mean_squared_error
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from annspark import InputError, SettingsError
from annspark.uses import vote
from tests.helpers import clustered
from tests.uses.tables import as_pairs, as_table, column, exact_neighbors

K = 7


@pytest.fixture(scope="module")
def points():
    """Return points, some of them twins."""
    points = clustered(240, 3, seed=5).astype(np.float64)
    return np.vstack([points, points[:10], points[:4]])


def left_out(model, distances, numbers, labels):
    """Return what a model of scikit-learn predicts for each row from its nearest others."""
    rows = len(labels)
    nearest = csr_matrix((distances.ravel(), numbers.ravel(), np.arange(rows + 1) * K), (rows, rows))
    return model.fit(nearest, labels).predict(nearest)


@pytest.mark.parametrize("weights", ["distance", "uniform"])
def test_classes_are_scikit_learns_with_each_row_left_out(spark, points, weights):
    classes = np.random.default_rng(0).integers(3, size=len(points)) + 10
    nearest = exact_neighbors(points, K)
    model = KNeighborsClassifier(n_neighbors=K, weights=weights, metric="precomputed")
    expected = left_out(model, *nearest, classes)
    labels = spark.createDataFrame([(i, int(one)) for i, one in enumerate(classes)], "user_id int, label int")
    found = vote(as_table(spark, *nearest), labels, weights=weights)
    told = column(found.table, "predicted")
    assert [told[i] for i in range(len(points))] == expected.tolist()
    facts = found.report.facts
    assert facts["accuracy"] == accuracy_score(classes, expected)
    assert facts["commonest"] == np.bincount(classes).max() / len(classes)
    assert (facts["users"], facts["labeled"], facts["tested"], facts["predicted"]) == (len(points),) * 3 + (0,)
    assert set(column(found.table, "voters").values()) == {K}
    assert all(0 < share <= 1 + 1e-12 for share in column(found.table, "share").values())
    found.table.unpersist()


@pytest.mark.parametrize("weights", ["distance", "uniform"])
def test_numbers_are_scikit_learns(spark, points, weights):
    numbers = points.sum(axis=1)
    nearest = exact_neighbors(points, K)
    expected = left_out(KNeighborsRegressor(n_neighbors=K, weights=weights, metric="precomputed"), *nearest, numbers)
    labels = spark.createDataFrame([(i, float(one)) for i, one in enumerate(numbers)], "user_id bigint, y double")
    found = vote(as_table(spark, *nearest), labels, label_col="y", predict="number", weights=weights)
    told = column(found.table, "predicted")
    np.testing.assert_allclose([told[i] for i in range(len(points))], expected, rtol=1e-9)
    facts = found.report.facts
    assert facts["mean_error"] == pytest.approx(mean_absolute_error(numbers, expected))
    assert facts["rmse"] == pytest.approx(root_mean_squared_error(numbers, expected))
    assert facts["spread"] == pytest.approx(numbers.std())
    found.table.unpersist()


def test_labeled_neighbors_vote_and_rows_without_any_are_told(spark):
    pairs = [("a", "b", 0.5), ("a", "c", 0.25), ("a", "d", 0.5), ("e", "f", 0.5)]
    table = as_pairs(spark, pairs, "user_id string, neighbor_id string, distance float")
    labels = spark.createDataFrame([("b", "x"), ("c", "y"), ("d", "x"), ("a", None)], "user_id string, label string")
    found = vote(table, labels)
    rows = {row["user_id"]: tuple(row)[1:] for row in found.table.collect()}
    assert rows == {
        "a": (None, "x", 0.5, 3),  # as much weight for x as for y: the smaller label
        "b": ("x", None, None, 0),
        "c": ("y", None, None, 0),
        "d": ("x", None, None, 0),
        "e": (None, None, None, 0),
        "f": (None, None, None, 0),
    }
    assert found.report.facts == {
        **{"users": 6, "labeled": 3, "without_voters": 5, "predicted": 1, "tested": 0},
        **{"accuracy": None, "commonest": None},
    }
    assert "5 of 6 rows have no labeled neighbor" in found.report.warnings[0]
    nearest = vote(table, labels, k=1)
    assert column(nearest.table, "predicted")["a"] == "y"
    for used in (found, nearest):
        used.table.unpersist()


def test_only_twins_vote_where_there_are_some(spark):
    table = as_pairs(spark, [(1, 2, 0.0), (1, 3, 1e-9), (1, 4, 1e-9)])
    labels = spark.createDataFrame([(2, True), (3, False), (4, False)], "user_id bigint, label boolean")
    found = vote(table, labels)
    assert column(found.table, "predicted")[1] is True
    assert column(found.table, "share")[1] == 1.0
    found.table.unpersist()


def test_queries_take_the_labels_of_other_rows_with_their_own_ids(spark):
    rows = [(1, 1, 0.5), (2, 1, 0.5), (2, 3, 0.75)]
    table = spark.createDataFrame(rows, "user_id bigint, neighbor_id bigint, distance double")
    labels = spark.createDataFrame([(1, "x"), (3, "y")], "user_id bigint, label string")
    found = vote(table, labels, same_ids=False)
    assert {tuple(row)[:3] for row in found.table.collect()} == {(1, None, "x"), (2, None, "x")}
    assert (found.report.facts["labeled"], found.report.facts["predicted"]) == (0, 2)
    found.table.unpersist()


def test_inner_products_may_vote_all_alike(spark):
    table = as_pairs(spark, [(1, 2, 3.0), (1, 3, 2.0)]).withColumnRenamed("distance", "inner_product")
    labels = spark.createDataFrame([(2, 1.5), (3, 2.5)], "user_id bigint, label double")
    found = vote(table, labels, weights="uniform", predict="number")
    assert column(found.table, "predicted")[1] == 2.0
    found.table.unpersist()
    with pytest.raises(InputError, match="inner products, and weights 'distance' needs distances"):
        vote(table, labels)


def test_empty_tables_give_empty_answers(spark):
    labels = spark.createDataFrame([], "user_id bigint, label string")
    found = vote(as_pairs(spark, []), labels)
    assert found.table.columns == ["user_id", "given", "predicted", "share", "voters"]
    assert found.table.count() == found.report.facts["users"] == 0
    found.table.unpersist()


@pytest.mark.parametrize(
    ("rows", "schema", "asked", "error", "message"),
    [
        ([], "user_id bigint, klass string", {}, InputError, "labels: no column 'label'; there are 'user_id', 'klass'"),
        ([], "id bigint, label string", {}, InputError, "labels: no column 'user_id'"),
        ([], "user_id string, label string", {}, InputError, "ids in 'user_id' are string, and those of the neighbor"),
        ([(1, "a"), (1, "b")], "user_id bigint, label string", {}, InputError, "labels: 1 in 'user_id' has 2 rows"),
        ([], "user_id bigint, label string", {"predict": "number"}, SettingsError, "labels in 'label' are string"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(spark, rows, schema, asked, error, message):
    with pytest.raises(error, match=message):
        vote(as_pairs(spark, [(1, 2, 0.5)]), spark.createDataFrame(rows, schema), **asked)
