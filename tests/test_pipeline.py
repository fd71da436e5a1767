import logging

import numpy as np
import pytest
from pyspark.sql import functions as F
from pyspark.util import InheritableThread

from annspark import InputError, SettingsError, build_neighbors
from annspark.core.metric import prepare
from annspark.core.recall import recall_by_user
from annspark.pipeline import warn_of_little_memory
from annspark.spark.staging import stage_table
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered, configured, count_cached, files_in, grid, lists_of, long_lists_of, make_table
from tests.oracle import assert_sound

K, FEW = 8, {"leaf_rows": 60, "audit_users": 50}
SLOW = pytest.mark.slow


def built(table, **named):
    """Return the lists of a build, having given its table back."""
    result = build_neighbors(table, **({"k": K} | FEW | named))
    lists = lists_of(result.table, named.get("id_col", "user_id"))
    result.table.unpersist()
    return lists


@pytest.fixture(scope="module")
def large(spark):
    """Return vectors and the result of a build of 3,000 users."""
    vectors = clustered(3000)
    named = {"k": K, "metric": "cosine", "recall": 0.98, "leaf_rows": 60, "audit_users": 300}
    return vectors, build_neighbors(make_table(spark, vectors), **named)


@pytest.fixture(scope="module")
def small(spark):
    """Return vectors of 300 users, their table and its lists."""
    vectors = clustered(300)
    table = make_table(spark, vectors)
    return vectors, table, built(table)


def test_every_user_once_with_k_others_in_order_at_true_distances(large):
    vectors, result = large
    assert_sound(lists_of(result.table), vectors, range(len(vectors)), K, "cosine")


def test_recall_against_brute_force_is_high_and_inside_the_reported_interval(large):
    vectors, result = large
    lists = lists_of(result.table)
    found = np.array([[d for _, d in lists[i]] for i in range(len(vectors))])
    _, exact = exact_neighbors(prepare(vectors, "cosine"), np.arange(len(vectors)), K, "cosine")
    recall = recall_by_user(found, exact[:, -1], K).mean()
    assert recall > 0.97
    assert result.report.recall.low <= recall <= result.report.recall.high
    assert (result.report.recall.k, result.report.recall.users) == (K, 300)


def test_the_report_tells_what_was_done(large):
    report = large[1].report
    assert (report.rows.read, report.rows.valid, report.rows.written) == (3000, 3000, 3000)
    assert (report.rows.dropped, report.rows.short) == ({}, 0)
    assert report.settings["metric"] == "cosine"
    assert 20 < report.leaves.count < 120
    assert report.leaves.max_rows < 600
    # Less than a third of all pairs, and more than one leaf's.
    assert 60 < report.cost.pairs_per_user < 1000
    assert 1 <= report.cost.copies_per_user <= 4
    assert report.cost.shuffle_bytes > 3000 * 16 * 4
    assert list(report.seconds) == ["total", "read", "sample", "grow", "calibrate", "join", "audit"]


def test_the_table_is_cached_for_its_caller(large):
    assert large[1].table.storageLevel.useMemory


# A grid of integers with twins: whoever breaks ties by chance, or by where a row was met, is caught here.
TIES = grid(6, 4, twins=300)


@pytest.fixture(scope="module")
def tied(spark):
    return built(make_table(spark, TIES), probes=4, trees=2, metric="euclidean")


def test_ties_and_twins_are_sound(tied):
    assert_sound(tied, TIES, range(len(TIES)), K, "euclidean")


@pytest.mark.parametrize(
    ("partitions", "cores", "confs"),
    [
        pytest.param(1, 1, {"spark__sql__execution__arrow__maxRecordsPerBatch": 1000}, marks=SLOW),
        (7, 3, {"spark__sql__execution__arrow__maxRecordsPerBatch": 7, "spark__sql__ansi__enabled": "false"}),
        pytest.param(
            *(3, 2),
            {"spark__sql__adaptive__enabled": "false", "spark__sql__shuffle__partitions": 5}
            | {"spark__sql__ansi__enabled": "true"},
            marks=SLOW,
        ),
    ],
    ids=["one_partition_and_core", "seven_partitions_batches_of_7_no_ansi", "no_aqe_ansi"],
)
def test_nothing_about_the_session_or_the_order_of_rows_changes_a_single_bit(
    spark, tied, monkeypatch, partitions, cores, confs
):
    monkeypatch.setattr("annspark.pipeline.count_cores", lambda _: cores)
    order = np.random.default_rng(partitions).permutation(len(TIES))
    with configured(spark, **confs):
        shuffled = make_table(spark, TIES[order], order.tolist(), partitions=partitions)
        assert built(shuffled, probes=4, trees=2, metric="euclidean") == tied


def test_another_seed_gives_another_table(small):
    _, table, _ = small
    assert built(table, probes=1) != built(table, probes=1, seed=5)


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=SLOW)])
def test_identical_vectors_get_the_smallest_other_ids(spark, metric):
    vectors = np.tile(np.float32([0.3, -1.7, 2.1]), (1200, 1))
    lists = built(make_table(spark, vectors), metric=metric)
    assert sorted(lists) == list(range(1200))
    for user, neighbors in lists.items():
        assert neighbors == [(other, 0.0) for other in range(K + 1) if other != user][:K]


def test_the_other_split_builds_a_sound_table(spark):
    vectors = clustered(800)
    assert_sound(built(make_table(spark, vectors), split="two_points"), vectors, range(800), K, "cosine")


@pytest.mark.slow
def test_a_second_tree_finds_more(spark):
    table, total = make_table(spark, clustered(1500)), {}
    for trees in (1, 2):
        result = build_neighbors(table, k=K, probes=1, trees=trees, leaf_rows=60, audit_users=1500)
        total[trees] = result.report.recall.mean
        result.table.unpersist()
    assert total[2] > total[1] + 0.02


def test_nested_and_long_tell_the_same(large, small):
    assert large[1].table.dtypes == [("user_id", "bigint"), ("neighbors", NESTED.format("bigint"))]
    _, table, lists = small
    long = build_neighbors(table, k=K, shape="long", **FEW)
    assert long.table.dtypes == [
        ("user_id", "bigint"), ("rank", "int"), ("neighbor_id", "bigint"), ("distance", "float"),
    ]  # fmt: skip
    assert long_lists_of(long.table) == lists
    assert long.report.rows.written == 300
    long.table.unpersist()


NESTED = "array<struct<neighbor_id:{0},distance:float>>"


def test_ids_keep_their_type_under_any_column_name(spark):
    ids = [f"user {i:03d}" for i in range(150)]
    names = {"id_col": "the user.id", "vector_col": "als vector.`v1`"}
    schema = "`the user.id` string, `als vector.``v1``` array<double>, other string"
    vectors = clustered(150)
    rows = [(i, v.tolist(), "x") for i, v in zip(ids, vectors, strict=True)]
    result = build_neighbors(spark.createDataFrame(rows, schema), k=K, **FEW, **names)
    assert result.table.dtypes == [("the user.id", "string"), ("neighbors", NESTED.format("string"))]
    assert_sound(lists_of(result.table, "the user.id"), vectors, ids, K, "cosine")
    result.table.unpersist()


@pytest.mark.parametrize(
    ("n", "k", "partitions"),
    [
        (1, 10, 9),
        (5, 10, 40),
        (40, 39, 1),
        *(pytest.param(*few, marks=SLOW) for few in [(2, 1, 9), (40, 1, 1), (40, 1000, 2)]),
    ],
)
def test_few_users_get_as_many_neighbors_as_there_are_in_however_many_partitions(spark, n, k, partitions):
    vectors = clustered(n)
    result = build_neighbors(make_table(spark, vectors, partitions=partitions), k=k)
    assert_sound(lists_of(result.table), vectors, range(n), k, "cosine")
    assert (result.report.rows.short, result.report.recall.k) == (0, min(k, n - 1))
    assert result.report.recall.mean == 1.0
    result.table.unpersist()


def test_a_single_user_has_no_row_in_the_long_shape(spark):
    result = build_neighbors(make_table(spark, clustered(1)), shape="long")
    assert result.table.count() == 0
    assert "users" in result.report.as_text()
    result.table.unpersist()


@pytest.mark.parametrize(
    "rows", [[], [(1, None)], [(1, [])], [(None, [1.0])]], ids=["empty", "null", "no_numbers", "no_id"]
)
def test_a_table_without_a_valid_row_is_an_input_error(spark, rows):
    before = count_cached(spark)
    with pytest.raises(InputError, match="no valid row"):
        build_neighbors(spark.createDataFrame(rows, "user_id int, vector array<float>"), on_bad_row="drop")
    assert count_cached(spark) == before


def test_dropped_rows_are_neither_users_nor_neighbors_and_only_the_result_stays_cached(spark, small):
    vectors, table, wanted = small
    bad = spark.createDataFrame(
        [(1000, [0.0] * 16), (1001, None), (1002, [1.0]), (None, [1.0] * 16)], "user_id bigint, vector array<float>"
    )
    before = count_cached(spark)
    result = build_neighbors(table.union(bad).union(table.where("user_id < 3")), k=K, on_bad_row="drop", **FEW)
    assert count_cached(spark) == before + 1
    lists = lists_of(result.table)
    assert_sound(lists, vectors, range(300), K, "cosine")
    assert lists == wanted
    rows = result.report.rows
    assert rows.dropped == {
        "null_id": 1, "null_vector": 1, "zero_vector": 1, "wrong_length": 1, "duplicate_id": 3,
    }  # fmt: skip
    assert (rows.read, rows.valid, rows.written) == (307, 300, 300)
    result.table.unpersist()
    assert count_cached(spark) == before


def test_an_input_that_changes_when_read_again_is_read_once(spark):
    table = spark.range(0, 900, numPartitions=3).select(
        F.col("id").alias("user_id"), F.array(*[F.rand() - 0.5 for _ in range(6)]).alias("vector")
    )
    result = build_neighbors(table, k=K, probes=30, **FEW)
    # Probing every leaf finds every neighbor, but only of the very vectors that were joined.
    assert result.report.recall.mean == 1.0
    assert result.report.rows.written == 900
    result.table.unpersist()


def test_only_the_result_stays_in_scratch_and_equals_the_cached_one(spark, small, tmp_path):
    (_, table, lists), before = small, count_cached(spark)
    twice = table.union(table.limit(5))
    result = build_neighbors(twice, k=K, scratch=str(tmp_path), on_bad_row="drop", **FEW)
    assert len(files_in(tmp_path)) == 1
    assert lists_of(result.table) == lists
    assert count_cached(spark) == before


@pytest.mark.parametrize(
    "step",
    [
        "read",
        "join_partitions",
        *(pytest.param(step, marks=SLOW) for step in ("sample_vectors", "require_complete", "audit_neighbors")),
    ],
)
def test_a_failure_leaves_nothing_cached_and_nothing_in_scratch(spark, tmp_path, monkeypatch, step):
    table, before = make_table(spark, clustered(120)), count_cached(spark)
    if step == "read":
        table = table.union(table.limit(1))
    else:

        def fail(*_, **__):
            raise ZeroDivisionError

        monkeypatch.setattr(f"annspark.pipeline.{step}", fail)
    for scratch in (None, str(tmp_path)):
        with pytest.raises((ZeroDivisionError, InputError)):
            build_neighbors(table, scratch=scratch, **FEW)
    assert count_cached(spark) == before
    assert files_in(tmp_path) == []


def test_bad_settings_are_refused_before_anything_is_read(spark):
    untouched = spark.range(3).select(F.raise_error("read").alias("user_id"), F.col("id").alias("vector"))
    with pytest.raises(SettingsError, match="'metric' is 'dot'; it must be one of cosine, euclidean"):
        build_neighbors(untouched, metric="dot")


def test_a_staged_table_may_be_the_input(spark):
    table = stage_table(make_table(spark, clustered(100)), None)
    assert len(built(table)) == 100
    # The caller's own cache is the caller's.
    assert table.storageLevel.useMemory
    table.unpersist()


@pytest.mark.slow
def test_one_user_far_out_costs_nobody_a_digit(spark):
    vectors = np.random.default_rng(3).normal(size=(400, 16)).astype(np.float32)
    vectors[7] = 1e9
    result = build_neighbors(make_table(spark, vectors), k=5, metric="euclidean", leaf_rows=400, probes=4)
    assert_sound(lists_of(result.table), vectors, list(range(400)), 5, "euclidean")
    # To the one far out all others are as far as float32 can tell.
    assert result.report.recall.mean >= 1 - 1 / 400
    assert result.report.recall.mean + result.report.precision.recall_lost == pytest.approx(1)
    result.table.unpersist()


@pytest.mark.parametrize("scratch", ["", "nowhere://x"])
def test_a_scratch_folder_out_of_reach_is_a_settings_error(spark, scratch):
    with pytest.raises(SettingsError, match="'scratch' is"):
        build_neighbors(make_table(spark, clustered(50)), scratch=scratch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "places"),
    [("read", ["scratch"]), ("grow", [None]), ("calibrate", [None, "scratch"]), ("join", ["scratch"])],
)
def test_a_cancelled_job_group_gives_scratch_and_cache_back(spark, tmp_path, caplog, step, places):
    caplog.set_level(logging.INFO, "annspark")
    table = make_table(spark, clustered(800))
    for scratch in (place and str(tmp_path) for place in places):
        before, failed = count_cached(spark), []
        caplog.clear()

        def build(scratch=scratch, failed=failed):
            spark.sparkContext.setJobGroup("night", "to be cancelled", interruptOnCancel=True)
            try:
                build_neighbors(table, k=4, leaf_rows=60, audit_users=40, scratch=scratch)
            except Exception as error:
                failed.append(error)

        thread = InheritableThread(target=build)
        thread.start()
        while thread.is_alive():
            if any(message.startswith(step) for message in caplog.messages):
                spark.sparkContext.cancelJobGroup("night")
            thread.join(0.05)
        assert len(failed) == 1
        assert count_cached(spark) == before
        assert files_in(tmp_path) == []


def test_too_little_memory_for_a_partition_is_told_before_the_join(caplog):
    warn_of_little_memory(3 * 10**9, 25 * 10**8)
    assert "3,000 MB while it joins, and 2,500 MB are free for it" in caplog.messages[-1]
    caplog.clear()
    warn_of_little_memory(3 * 10**9, 35 * 10**8)
    warn_of_little_memory(3 * 10**9, 0)  # not known
    assert not caplog.messages


def test_a_build_tells_that_its_workers_have_little_memory(small, caplog, monkeypatch):
    monkeypatch.setattr("annspark.pipeline.start_workers", lambda _: 1000)
    _, table, _ = small
    built(table, probes=2)
    assert any(message.startswith("plan: a Python worker will hold about") for message in caplog.messages)
