import numpy as np
import pytest

from annspark import build_neighbors
from tests.helpers import all_distances, assert_sound, grid, lists_of, long_lists_of, make_table

K = 6
# Integer points: distances are exact, and nearly all of them tie.
POINTS = grid(5, 3, twins=60)
N = len(POINTS)


@pytest.fixture
def tiny_leaves(monkeypatch):
    """Make leaves of about four users, fewer than K of whom are others."""
    monkeypatch.setattr("annspark.pipeline.count_leaves", lambda rows, *_: max(1, rows // 4))


def built(table, **named):
    result = build_neighbors(table, **({"k": K, "metric": "euclidean", "probes": 1.5, "audit_users": 20} | named))
    lists = (long_lists_of if named.get("shape") == "long" else lists_of)(result.table)
    result.table.unpersist()
    return lists, result.report.rows


def exact_lists(points, k):
    distances = all_distances(points, "euclidean").astype(np.float32)
    lists = {}
    for user, row in enumerate(distances.tolist()):
        nearest = sorted((distance, other) for other, distance in enumerate(row) if other != user)[:k]
        lists[user] = [(other, distance) for distance, other in nearest]
    return lists


def test_whoever_met_too_few_gets_exact_neighbors_and_all_others_keep_theirs(spark, tiny_leaves, monkeypatch):
    table = make_table(spark, POINTS)
    widened, rows = built(table)
    monkeypatch.setattr("annspark.pipeline._widen", lambda found, *_: found)
    before, _ = built(table)
    short = {user for user, neighbors in before.items() if len(neighbors) < K}
    assert 20 < len(short) < N
    assert (rows.widened, rows.short, rows.written) == (len(short), 0, N)
    exact = exact_lists(POINTS, K)
    assert widened == {user: exact[user] if user in short else before[user] for user in range(N)}


def test_neither_partitions_nor_the_shape_change_who_is_found(spark, tiny_leaves):
    nested, rows = built(make_table(spark, POINTS, partitions=1))
    assert_sound(nested, POINTS, range(N), K, "euclidean")
    order = np.random.default_rng(0).permutation(N)
    shuffled = make_table(spark, POINTS[order], order.tolist(), partitions=5)
    assert built(shuffled) == (nested, rows)
    assert built(shuffled, shape="long") == (nested, rows)


def test_many_searches_of_few_users_find_what_one_of_all_does(spark, tiny_leaves, monkeypatch):
    table = make_table(spark, POINTS)
    together = built(table)
    monkeypatch.setattr("annspark.flow.widen._AT_ONCE_BYTES", 4 * 3 * 150)
    assert built(table) == together


@pytest.mark.parametrize("shape", ["nested", "long"])
def test_where_nobody_met_anybody_all_are_compared_with_all(spark, monkeypatch, shape):
    monkeypatch.setattr("annspark.pipeline.count_leaves", lambda rows, *_: rows)
    points = np.arange(1, 13, dtype=np.float32)[:, None] ** [1, 2, 3]
    lists, rows = built(make_table(spark, points), shape=shape, probes=1)
    assert lists == exact_lists(points, K)
    assert (rows.widened, rows.written) == (12, 12)


def test_sets_that_share_nothing_with_anybody_get_neighbors_too(spark):
    rows = [(f"u{i:03d}", [i % 20, 20 + i % 7]) for i in range(900)] + [
        ("alone", [99]),
        ("none", []),
        ("also", [98, 97]),
    ]
    table = spark.createDataFrame(rows, "user_id string, vector array<int>").repartition(3)
    for shape in ("nested", "long"):
        lists, found = built(table, metric="jaccard", shape=shape, leaf_rows=50)
        assert found.widened >= 3
        assert {len(neighbors) for neighbors in lists.values()} == {K}
        assert len(lists) == 903
        for user in ("alone", "none", "also"):
            others = sorted(other for other, _ in rows if other != user)[:K]
            assert lists[user] == [(other, 1.0) for other in others]


@pytest.mark.parametrize("metric", ["cosine", "jaccard"])
def test_sparse_users_who_share_something_with_one_other_get_that_one_and_the_first_of_everybody(spark, metric):
    users = [(user, {user // 2: 1.0, 1000 + user // 2: 2.0}) for user in range(200)]
    table = spark.createDataFrame(users, "user_id bigint, vector map<int,float>")
    lists, rows = built(table, metric=metric, probes=None, recall=0.9)
    assert (rows.widened, rows.short, rows.written) == (200, 0, 200)
    for user, neighbors in lists.items():
        first = [other for other in range(8) if other // 2 != user // 2][: K - 1]
        assert neighbors == [(user ^ 1, 0.0), *((other, 1.0) for other in first)]
