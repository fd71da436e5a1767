import numpy as np
import pytest

from annspark import RecallMissed, build_neighbors
from tests.helpers import grid, lists_of, long_lists_of, make_table
from tests.oracle import all_distances, assert_sound, recall_of

K = 6
SLOW = pytest.mark.slow
# Integer points: distances are exact, and nearly all of them tie.
POINTS = grid(5, 3, twins=60)
N = len(POINTS)


@pytest.fixture
def tiny_leaves(monkeypatch):
    """Make leaves of about four users, fewer than K of whom are others."""
    monkeypatch.setattr("annspark.flow.grow.count_leaves", lambda rows, *_: max(1, rows // 4))


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
    monkeypatch.setattr("annspark.pipeline.complete", lambda found, *_: found)
    before, _ = built(table)
    short = {user for user, neighbors in before.items() if len(neighbors) < K}
    assert 20 < len(short) < N
    assert (rows.widened, rows.short, rows.written) == (len(short), 0, N)
    exact = exact_lists(POINTS, K)
    assert widened == {user: exact[user] if user in short else before[user] for user in range(N)}


@pytest.mark.slow
def test_neither_partitions_nor_the_shape_change_who_is_found(spark, tiny_leaves):
    nested, rows = built(make_table(spark, POINTS, partitions=1))
    assert_sound(nested, POINTS, range(N), K, "euclidean")
    order = np.random.default_rng(0).permutation(N)
    shuffled = make_table(spark, POINTS[order], order.tolist(), partitions=5)
    assert built(shuffled) == (nested, rows)
    assert built(shuffled, shape="long") == (nested, rows)


@pytest.mark.slow
def test_many_searches_of_few_users_find_what_one_of_all_does(spark, tiny_leaves, monkeypatch):
    table = make_table(spark, POINTS)
    together = built(table)
    monkeypatch.setattr("annspark.flow.complete._AT_ONCE_BYTES", 4 * 3 * 150)
    assert built(table) == together


@pytest.mark.parametrize("shape", [pytest.param("nested", marks=SLOW), "long"])
def test_where_nobody_met_anybody_all_are_compared_with_all(spark, monkeypatch, shape):
    monkeypatch.setattr("annspark.flow.grow.count_leaves", lambda rows, *_: rows)
    points = np.arange(1, 13, dtype=np.float32)[:, None] ** [1, 2, 3]
    lists, rows = built(make_table(spark, points), shape=shape, probes=1)
    assert lists == exact_lists(points, K)
    assert (rows.widened, rows.written) == (12, 12)


@pytest.mark.parametrize("shape", ["nested", pytest.param("long", marks=SLOW)])
def test_sets_that_share_nothing_with_anybody_get_neighbors_too(spark, shape):
    rows = [(f"u{i:03d}", [i % 20, 20 + i % 7]) for i in range(900)] + [
        ("alone", [99]),
        ("none", []),
        ("also", [98, 97]),
    ]
    table = spark.createDataFrame(rows, "user_id string, vector array<int>").repartition(3)
    lists, found = built(table, metric="jaccard", shape=shape, leaf_rows=50)
    assert found.widened >= 3
    assert {len(neighbors) for neighbors in lists.values()} == {K}
    assert len(lists) == 903
    for user in ("alone", "none", "also"):
        others = sorted(other for other, _ in rows if other != user)[:K]
        assert lists[user] == [(other, 1.0) for other in others]


@pytest.mark.parametrize("metric", ["cosine", pytest.param("jaccard", marks=SLOW)])
def test_sparse_users_who_share_something_with_one_other_get_that_one_and_the_first_of_everybody(spark, metric):
    users = [(user, {user // 2: 1.0, 1000 + user // 2: 2.0}) for user in range(200)]
    table = spark.createDataFrame(users, "user_id bigint, vector map<int,float>")
    lists, rows = built(table, metric=metric, probes=None, recall=0.9)
    assert (rows.widened, rows.short, rows.written) == (200, 0, 200)
    for user, neighbors in lists.items():
        first = [other for other in range(8) if other // 2 != user // 2][: K - 1]
        assert neighbors == [(user ^ 1, 0.0), *((other, 1.0) for other in first)]


def sparse_euclidean(kind, n=700):
    """Return rows whose nearest share no column with them: few columns each, short ones among them."""
    rng = np.random.default_rng(23)
    values = rng.normal(0, 1, (n, 5)) * rng.lognormal(0, 1.5, (n, 1))
    rows = [dict(zip(rng.choice(500, 5, False).tolist(), row, strict=True)) for row in values.tolist()]
    if kind == "many empty":
        rows[::2] = [{}] * len(rows[::2])
    if kind == "many twins":
        rows[::2] = [{3: 0.01}] * len(rows[::2])
    return rows


def as_dense(rows):
    dense = np.zeros((len(rows), 500), np.float32)
    for i, row in enumerate(rows):
        dense[i, list(row)] = list(row.values())
    return dense


@pytest.mark.parametrize(
    "kind", ["lengths", pytest.param("many empty", marks=SLOW), pytest.param("many twins", marks=SLOW)]
)
def test_sparse_euclidean_neighbors_that_share_nothing_are_found_whatever_the_partitioning(spark, kind):
    rows = sparse_euclidean(kind)
    schema, named = "user_id int, vector map<int,double>", {"leaf_rows": 50, "probes": None}
    lists, told = built(spark.createDataFrame(list(enumerate(rows)), schema).repartition(3), **named)
    if kind == "many empty":
        order = np.random.default_rng(0).permutation(len(rows))
        shuffled = spark.createDataFrame([(int(i), rows[i]) for i in order], schema).repartition(5)
        assert built(shuffled, **named) == (lists, told)
    assert_sound(lists, as_dense(rows), range(len(rows)), K, "euclidean")
    assert recall_of(lists, as_dense(rows), K, "euclidean") > 0.95
    assert (told.widened, told.short) == (0, 0)
    if kind == "many empty":  # nobody's nearest are other than the first of them
        assert [other for other, _ in lists[0]] == [2, 4, 6, 8, 10, 12]


@pytest.mark.slow
def test_top_up_of_sparse_rows_of_few_columns_ends_well_though_nobody_lives_in_the_tree(spark, monkeypatch):
    monkeypatch.setattr("annspark.flow.first_rows.count_first_rows", lambda k: 3)
    rows = sparse_euclidean("lengths")
    table = spark.createDataFrame(list(enumerate(rows)), "user_id int, vector map<int,double>")
    with pytest.raises(RecallMissed) as missed:
        build_neighbors(table, k=K, metric="euclidean", leaf_rows=50, top_up=True)
    assert missed.value.report.topped_up == 1


@pytest.mark.slow
def test_where_no_probes_and_trees_would_do_that_is_told_beforehand_with_what_does(spark, monkeypatch, caplog):
    monkeypatch.setattr("annspark.flow.first_rows.count_first_rows", lambda k: 3)
    rows = sparse_euclidean("lengths")
    table = spark.createDataFrame(list(enumerate(rows)), "user_id int, vector map<int,double>")
    with pytest.raises(RecallMissed) as missed:
        build_neighbors(table, k=K, metric="euclidean", leaf_rows=50)
    advice = "More probes or trees would not do. Set leaf_rows to 700 (one leaf, which is exact, if slow), or"
    assert str(missed.value).endswith(f"{advice} ask for less.")
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "is predicted for the most probes there are, 0.95 was asked for" in warned
    assert warned.endswith(f"{advice} ask for less.")
    lists, _ = built(table, leaf_rows=700, probes=None)
    assert recall_of(lists, as_dense(rows), K, "euclidean") == 1


@pytest.mark.parametrize(
    ("metric", "limits"),
    [
        pytest.param("cosine", ["_COLLECTED"], marks=SLOW),
        ("inner_product", ["_SEARCHED", "_PRODUCTS"]),
        pytest.param("jaccard", ["_SEARCHED", "_AT_ONCE_BYTES"], marks=SLOW),
    ],
)
def test_lists_are_filled_in_bounded_time_where_too_many_are_short(spark, monkeypatch, metric, limits):
    rng = np.random.default_rng(4)
    signs = 1 if metric == "jaccard" else rng.choice([-1, 1], (900, 3))
    values = (signs * rng.integers(1, 4, (900, 3))).astype(float).tolist()
    rows = [dict(zip(rng.choice(1500, 3, False).tolist(), row, strict=True)) for row in values]
    table = spark.createDataFrame(list(enumerate(rows)), "user_id int, vector map<int,float>")
    dense = np.zeros((900, 1500), np.float32)
    for i, row in enumerate(rows):
        dense[i, list(row)] = list(row.values())
    named = {"metric": metric, "leaf_rows": 50, "probes": None}
    for limit in limits:
        monkeypatch.setattr(f"annspark.flow.complete.{limit}", 0)
    filled, told = built(table.repartition(2), **named)
    assert told.widened > 500
    assert_sound(filled, dense, range(900), K, metric)
    assert recall_of(filled, dense, K, metric) > 0.95
    # Whoever has neighbors that share nothing has the first of them, for ties go by ids.
    unrelated = 0.0 if metric == "inner_product" else 1.0
    shares = (dense != 0).astype(float) @ (dense != 0).T.astype(float) > 0
    for user, neighbors in filled.items():
        apart = [other for other, distance in neighbors if abs(distance - unrelated) < 1e-6]
        assert apart == [other for other in range(900) if not shares[user, other] and other != user][: len(apart)]


@pytest.mark.slow
def test_dense_users_are_compared_with_everybody_only_while_few(spark, tiny_leaves, monkeypatch):
    for limit in ("_SEARCHED", "_PAIRS"):
        monkeypatch.setattr(f"annspark.flow.complete.{limit}", 0)
    lists, rows = built(make_table(spark, POINTS))
    assert rows.widened > 20
    assert_sound(lists, POINTS, range(N), K, "euclidean")
