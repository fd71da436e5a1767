"""Whole builds on numbers that float32, or a tolerance with a unit, has got wrong; judged in float64."""

import numpy as np
import pytest

from annspark import InputError, RecallMissed, build_neighbors
from annspark.evaluate import evaluate_neighbors
from annspark.settings import Settings
from tests.helpers import configured, lists_of, make_table
from tests.oracle import all_distances, recall_of

DOUBLES = "user_id bigint, vector array<double>"
K = 5
SLOW = pytest.mark.slow


def judged(lists, vectors, metric):
    """Return the strict recall of a table in float64, and the largest error of its distances as a share of them."""
    found = np.array([[other for other, _ in lists[i]] for i in range(len(vectors))])
    published = np.array([[distance for _, distance in lists[i]] for i in range(len(vectors))])
    true = np.take_along_axis(all_distances(vectors, metric), found, 1)
    error = np.abs(published * (-1 if metric == "inner_product" else 1) - true) / np.abs(true)
    return recall_of(lists, vectors, K, metric, tie=1e-12, floor=0), error.max()


def scan(n=900, *, towns=1, size=6.4e6):
    """Return coordinates in metres, to the millimetre, of points some 20 m around towns far from the origin."""
    rng = np.random.default_rng(7)
    centres = np.repeat(size * rng.normal(size=(towns, 3)), n // towns, axis=0)
    return (centres + rng.uniform(0, 20, (n, 3))).round(3)


def cones(n=900):
    """Return directions of a few bundles, whose cosines within a bundle are above 1 - 1e-11."""
    rng = np.random.default_rng(8)
    return np.repeat(rng.normal(size=(6, 12)), n // 6, axis=0) + 1e-6 * rng.normal(size=(n, 12))


FLUX = np.abs(np.random.default_rng(9).normal(1, 0.3, (900, 16)))


@pytest.mark.parametrize(
    ("vectors", "metric", "numbers"),
    [
        (scan(), "euclidean", "float32"),
        pytest.param(scan(), "manhattan", "float32", marks=SLOW),
        pytest.param(scan(towns=6), "euclidean", "float64", marks=SLOW),
        (cones(), "cosine", "float64"),
        pytest.param(1e-26 * FLUX, "euclidean", "float32", marks=SLOW),
        pytest.param(1e30 * FLUX, "manhattan", "float32", marks=SLOW),
    ],
    ids=["scan", "scan-manhattan", "towns", "cones", "tiny", "huge"],
)
def test_what_the_report_says_is_what_float64_says(spark, vectors, metric, numbers):
    result = build_neighbors(make_table(spark, vectors, schema=DOUBLES), metric=metric, k=K, audit_users=900)
    recall, error = judged(lists_of(result.table), vectors, metric)
    result.table.unpersist()
    told = result.report
    assert told.recall.mean == pytest.approx(recall, abs=0.02)  # of half of the users, as the others calibrate
    assert recall > 0.93
    assert told.precision.numbers == numbers
    assert error < max(3 * told.precision.distance_error, 3e-7)
    assert told.precision.recall_lost < 0.002


@pytest.mark.slow
def test_a_loose_join_is_as_loose_in_any_unit(spark):
    loose = {"metric": "euclidean", "k": K, "probes": 1, "leaf_rows": 1, "audit_users": 900}
    told, found = {}, {}
    for unit in (1.0, 2.0**-26):
        result = build_neighbors(make_table(spark, FLUX * unit, schema=DOUBLES), **loose)
        told[unit], found[unit] = result.report.recall, lists_of(result.table)
        result.table.unpersist()
    assert told[1.0] == told[2.0**-26]
    assert told[1.0].mean < 0.6
    assert {user: [other for other, _ in pairs] for user, pairs in found[1.0].items()} == {
        user: [other for other, _ in pairs] for user, pairs in found[2.0**-26].items()
    }


def test_a_random_table_is_told_as_what_it_is(spark):
    rng = np.random.default_rng(10)
    rows = [(i, [int(j) for j in rng.permutation(900)[:K]]) for i in range(900)]
    nobody = spark.createDataFrame(rows, "user_id bigint, neighbors array<bigint>")
    vectors = make_table(spark, 1e-8 * FLUX, schema=DOUBLES)
    report = evaluate_neighbors(vectors, nobody, Settings(metric="euclidean", k=K), {})
    assert report.recall.mean < 0.05


@pytest.mark.slow
def test_a_cut_off_keeps_the_pairs_within_it(spark):
    vectors = scan()
    result = build_neighbors(make_table(spark, vectors, schema=DOUBLES), metric="euclidean", k=K, max_distance=1.5)
    found = {(user, other) for user, pairs in lists_of(result.table).items() for other, _ in pairs}
    result.table.unpersist()
    distances = all_distances(vectors, "euclidean")
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :K]
    wanted = {(i, int(j)) for i in range(900) for j in nearest[i] if distances[i, j] <= 1.5}
    assert len(wanted) > 200
    assert found <= wanted
    assert len(found) > 0.95 * len(wanted)


def test_products_that_float_cannot_hold_are_refused_before_any_work(spark):
    with pytest.raises(InputError, match=r"inner products of these vectors are of the size of 1e-5\d, .* by 2\*\*8\d"):
        build_neighbors(make_table(spark, 1e-26 * FLUX, schema=DOUBLES), metric="inner_product")


def test_where_float32_cannot_tell_neighbors_apart_the_report_says_what_that_costs(spark, caplog):
    # All products are some 10^8; they differ by a few.
    vectors = np.random.default_rng(11).normal(size=(900, 8))
    vectors = np.concatenate([np.full((900, 1), 1e4), vectors], axis=1)
    with caplog.at_level("WARNING", logger="annspark"), pytest.raises(RecallMissed) as missed:
        build_neighbors(make_table(spark, vectors, schema=DOUBLES), metric="inner_product", k=K)
    assert missed.value.report.recall.mean < 0.6
    assert missed.value.report.precision.recall_lost > 0.3
    assert "lost to rounding" in caplog.text


@pytest.mark.slow
def test_a_recall_that_rounding_cost_is_not_blamed_on_probes(spark):
    # Ten copies each with the noise of float32: which of another group's copies is the tenth neighbor?
    rng = np.random.default_rng(11)
    vectors = np.repeat(rng.normal(size=(60, 16)), 10, 0) * (1 + 1e-7 * rng.normal(size=(600, 16)))
    with pytest.raises(RecallMissed, match=r"Rounding took 0\.0\d+ of it: .* Set recall to 0\.9\d?,") as missed:
        build_neighbors(make_table(spark, vectors, schema=DOUBLES), metric="euclidean", leaf_rows=600)
    assert "leaf_rows to" not in str(missed.value)
    told = missed.value.report
    asked = float(str(missed.value).partition("Set recall to ")[2].partition(",")[0])
    assert asked <= told.recall.mean <= asked + 0.01
    again = build_neighbors(make_table(spark, vectors, schema=DOUBLES), metric="euclidean", recall=asked)
    assert again.report.passed


@pytest.mark.slow
def test_neither_partitions_nor_batches_change_a_bit_where_some_numbers_fit_float32_and_others_do_not(spark):
    vectors = scan(towns=6)
    vectors[::2] = vectors[::2].round(0)
    order = np.random.default_rng(12).permutation(900)
    found = []
    for rows, ids, partitions, records in ((vectors, range(900), 1, 10_000), (vectors[order], order.tolist(), 6, 41)):
        with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=records):
            table = make_table(spark, rows, ids, schema=DOUBLES, partitions=partitions)
            result = build_neighbors(table, metric="euclidean", k=K)
            found.append(lists_of(result.table))
            result.table.unpersist()
    assert found[0] == found[1]
