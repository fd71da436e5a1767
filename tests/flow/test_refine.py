"""Vectors in half precision on the wire: exact distances in the end, and all else as with whole vectors."""

from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError, build_neighbors
from annspark.config import Settings
from annspark.core.calibrate import choose_probes
from annspark.flow.cluster import partition_keys
from annspark.flow.meter import Meter
from annspark.flow.read import read_vectors
from annspark.flow.refine import refine_candidates
from tests.flow.test_join import lists_in
from tests.helpers import all_distances, assert_sound, clustered, configured, grid, lists_of, long_lists_of, make_table

ROWS, K = 600, 5
ALL_MEET = {"leaf_rows": 1_000_000, "probes": 1, "audit_users": 20, "k": K}


def built(table, **named):
    result = build_neighbors(table, **named)
    lists = (long_lists_of if named.get("shape") == "long" else lists_of)(result.table)
    result.table.unpersist()
    return lists, result.report


def test_candidates_get_exact_distances_and_each_vector_travels_once_to_whom_wants_it(spark, stage):
    vectors, settings = clustered(60, dim=3), Settings(k=K, metric="euclidean", wire="float16")
    users = read_vectors(make_table(spark, vectors), settings, stage, lambda: 2)
    keys = partition_keys(2).tolist()
    others = {user: [(user + 7 * step) % 60 for step in range(1, 10)] for user in range(60)}
    # Two lists a user that share some neighbors, at distances that are all wrong.
    wrong = np.arange(9, dtype=np.float32)
    blocks = [
        (keys[user % 2], [user], met[part], wrong[part].tobytes(), np.int32(len(met[part])).tobytes())
        for user, met in others.items()
        for part in (slice(6), slice(4, 9))
    ]
    schema = "target int, ids array<bigint>, neighbor_ids array<bigint>, distances binary, counts binary"
    meter = Meter()
    refined = refine_candidates(spark.createDataFrame(blocks, schema), 2, 3, users, settings, stage, meter).collect()
    true = all_distances(vectors, "euclidean")
    lists = lists_in(refined)
    assert sorted(user for _, user, _ in lists) == list(range(60))
    for _, user, pairs in lists:
        met = sorted(others[user], key=lambda other: true[user, other])[:K]
        assert [other for _, other in pairs] == met
        np.testing.assert_allclose([distance for distance, _ in pairs], true[user, met], rtol=1e-5)
    wanted = [{other for user in range(side, 60, 2) for other in [user, *others[user]]} for side in (0, 1)]
    assert meter.asked.get["ids"] == 60 + sum(map(len, wanted))
    assert meter.answered.get["ids"] == sum(map(len, wanted)) + 60 * (1 + 9)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product", "manhattan"])
def test_where_all_meet_the_table_is_that_of_whole_vectors_to_the_last_bit(spark, metric):
    table = make_table(spark, clustered(ROWS))
    named = ALL_MEET | {"metric": metric}
    assert built(table, **named, wire="float16")[0] == built(table, **named)[0]


def test_vectors_far_from_the_origin_keep_their_digits(spark):
    table = make_table(spark, clustered(ROWS) + np.float32(3000))
    named = ALL_MEET | {"metric": "euclidean"}
    assert built(table, **named, wire="float16")[0] == built(table, **named)[0]


# Whole numbers lose nothing, so that all has to be as with whole vectors: ties, twins, which leaves are visited.
TIES = grid(5, 3, twins=200)
TIED = {"probes": 3, "trees": 2, "metric": "euclidean", "leaf_rows": 40, "audit_users": 20, "k": K}


def test_numbers_that_half_precision_holds_give_the_table_of_whole_vectors_wherever_they_are(spark, monkeypatch):
    whole = built(make_table(spark, TIES), **TIED)[0]
    assert_sound(whole, TIES, range(len(TIES)), K, "euclidean")
    assert built(make_table(spark, TIES), **TIED, wire="float16")[0] == whole
    monkeypatch.setattr("annspark.pipeline.count_cores", lambda _: 3)
    order = np.random.default_rng(1).permutation(len(TIES))
    shuffled = make_table(spark, TIES[order], order.tolist(), partitions=5)
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=7):
        assert built(shuffled, **TIED, wire="float16")[0] == whole


def test_string_ids_the_long_shape_a_tree_more_and_scratch_go_with_it(spark, tmp_path, monkeypatch):
    # One leaf a user is promised to be enough, so that the target is missed and a tree added; missed again or not.
    monkeypatch.setattr("annspark.pipeline.choose_probes", lambda *told: replace(choose_probes(*told), probes=1.0))
    monkeypatch.setattr("annspark.pipeline._require_recall", lambda report: None)
    vectors = clustered(ROWS)
    names = [f"user {i:03d}" for i in range(ROWS)]
    table = make_table(spark, vectors, names, schema="user_id string, vector array<float>")
    named = {"recall": 0.99, "leaf_rows": 20, "k": K, "shape": "long", "top_up": True, "scratch": str(tmp_path)}
    lists, report = built(table, **named, wire="float16")
    assert_sound(lists, vectors, names, K, "cosine")
    assert report.topped_up == 1
    # Twice: every vector is shipped in half, and twice more is sent whole.
    assert report.cost.shuffle_bytes > 2 * ROWS * 16 * (2 + 4 + 4)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_users_get_as_many_neighbors_as_there_are(spark, n):
    vectors = clustered(n)
    assert_sound(built(make_table(spark, vectors), k=K, wire="float16")[0], vectors, range(n), K, "cosine")


def test_whoever_meets_too_few_is_compared_with_everybody(spark, monkeypatch):
    monkeypatch.setattr("annspark.pipeline.count_leaves", lambda rows, *_: max(1, rows // 4))
    named = {"k": 6, "metric": "euclidean", "probes": 1.5, "audit_users": 20}
    table = make_table(spark, TIES)
    lists, report = built(table, **named, wire="float16")
    assert report.rows.widened > 20
    assert lists == built(table, **named)[0]


def test_sparse_vectors_are_refused_before_they_are_read(spark):
    table = spark.range(9).select(
        F.col("id").alias("user_id"),
        F.create_map(F.col("id").cast("int"), F.raise_error("read").cast("float")).alias("vector"),
    )
    with pytest.raises(InputError, match=r"'vector' is map<int,float>: sparse vectors, and 'wire' is 'float16'"):
        build_neighbors(table, wire="float16")
