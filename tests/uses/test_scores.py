"""Outlier scores, beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

from annspark import InputError, SettingsError
from annspark.uses import outliers
from tests.helpers import clustered, count_cached
from tests.uses.tables import as_pairs, as_table, column, exact_neighbors


def points_with_twins() -> np.ndarray:
    """Return points of which some have as many twins as neighbors are looked for, or more, and some stand alone."""
    points = clustered(300, 4, seed=3).astype(np.float64)
    return np.vstack([points, np.repeat(points[:3], 7, axis=0), np.repeat(points[5:6], 3, axis=0), points[:2] + 30])


@pytest.mark.filterwarnings("ignore:Duplicate values are leading to incorrect results")  # of scikit-learn
@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_local_outlier_factor_is_scikit_learns(spark, k):
    points = points_with_twins()
    table = as_table(spark, *exact_neighbors(points, k))
    found = outliers(table, method="lof")
    told = column(found.table, "score")
    expected = -LocalOutlierFactor(n_neighbors=k).fit(points).negative_outlier_factor_
    np.testing.assert_allclose([told[i] for i in range(len(points))], expected, rtol=1e-9)
    assert set(column(found.table, "neighbors").values()) == {k}
    assert found.report.facts["users"] == len(points)
    assert found.report.facts["k"] == k
    twins = (exact_neighbors(points, k)[0][:, -1] == 0).sum()
    assert found.report.facts["twins"] == twins
    assert bool(twins) == (k < 20)
    warned = [f"{twins} of {len(points)} users have k = {k} neighbors at distance 0"] if twins else []
    assert [sentence.partition(". ")[0] for sentence in found.report.warnings] == warned
    found.table.unpersist()


@pytest.mark.parametrize(("method", "expected"), [("kth", lambda far: far[:, -1]), ("mean", lambda far: far.mean(1))])
def test_distances_are_scores_and_fewer_neighbors_may_count(spark, method, expected):
    distances, numbers = exact_neighbors(points_with_twins(), 6)
    table = as_table(spark, distances, numbers, names=lambda number: f"user {number}", kind="string")
    for k in (None, 3):
        found = outliers(table, method=method, k=k)
        told = column(found.table, "score")
        np.testing.assert_allclose(
            [told[f"user {i}"] for i in range(len(distances))], expected(distances[:, :k]), rtol=1e-12
        )
        found.table.unpersist()


def test_who_has_fewer_neighbors_is_far_away_and_counted(spark):
    schema = "id string, neighbors array<struct<neighbor_id: string, distance: float>>"
    rows = [("a", [("b", 0.5), ("c", 0.5)]), ("b", [("a", 0.5)]), ("c", []), ("d", None)]
    table = spark.createDataFrame(rows, schema)
    inf = float("inf")
    for method, expected in {
        "kth": {"a": 0.5, "b": inf, "c": inf, "d": inf},
        "mean": {"a": 0.5, "b": inf, "c": inf, "d": inf},
        "lof": {"a": 1.0, "b": 1.0, "c": inf, "d": inf},
    }.items():
        found = outliers(table, method=method, id_col="id")
        assert column(found.table, "score", "id") == pytest.approx(expected)
        assert column(found.table, "neighbors", "id") == {"a": 2, "b": 1, "c": 0, "d": 0}
        assert found.report.facts["short"] == 3
        assert found.report.facts["infinite"] == (2 if method == "lof" else 3)
        assert "3 of 4 users have fewer than k = 2 neighbors" in found.report.warnings[0]
        found.table.unpersist()


def test_an_empty_table_has_no_scores(spark):
    for method in ("kth", "lof"):
        found = outliers(as_pairs(spark, []), method=method)
        assert found.table.count() == 0
        assert found.report.facts | {"score": {}} == {
            "users": 0,
            "k": 1,
            "short": 0,
            "twins": 0,
            "score": {},
            "infinite": 0,
        }
        found.table.unpersist()


def test_the_same_scores_from_files_and_nothing_else_stays(spark, tmp_path):
    table = as_table(spark, *exact_neighbors(points_with_twins(), 5))
    before = count_cached(spark)
    cached, stored = (outliers(table, method="lof", scratch=scratch) for scratch in (None, str(tmp_path)))
    assert count_cached(spark) == before + 1
    assert column(cached.table, "score") == pytest.approx(column(stored.table, "score"))
    assert len(list(tmp_path.iterdir())) == 1
    cached.table.unpersist()


def test_what_cannot_be_scored_is_refused(spark):
    table = as_pairs(spark, [(1, 2, 0.5)])
    with pytest.raises(InputError, match="inner products, and outliers needs distances"):
        outliers(table.withColumnRenamed("distance", "inner_product"))
    with pytest.raises(SettingsError, match="'method' is 'iforest'; it must be one of kth, mean, lof"):
        outliers(table, method="iforest")
    with pytest.raises(SettingsError, match="'id_col' is 'Score', which another column of the table to make is named"):
        outliers(table, id_col="Score")
    with pytest.raises(SettingsError, match="unknown setting 'kk'; known are id_col, k, method, scratch"):
        outliers(table, kk=3)
