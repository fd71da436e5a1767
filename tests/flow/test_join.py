import numpy as np
import pytest

from annspark.core.centre_forest import grow_forest
from annspark.core.metric import prepare
from annspark.core.plan import Workers, plan_join
from annspark.flow.join import join_partitions
from annspark.flow.read import read_vectors
from annspark.flow.route import ship_vectors
from annspark.settings import Settings
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered, configured, make_table

ROWS, K, LEAVES = 1500, 5, 12


def joined(
    spark,
    stage,
    vectors,
    *,
    metric="cosine",
    probes,
    n_merge_partitions=3,
    ids=None,
    schema="user_id int, vector array<float>",
):
    settings = Settings(metric=metric, k=K)
    users = read_vectors(make_table(spark, vectors, ids, schema=schema), settings, stage, 2)
    ready = prepare(vectors, metric)
    forest = grow_forest(ready, LEAVES, trees=1, split="two_means", seed=0, metric=metric)
    plan = plan_join(forest, ready, probes, rows=len(vectors), workers=Workers(2))
    assert plan.n_partitions == 3
    shipped = ship_vectors(users.table, forest, plan, users.wire, users.coordinates)
    candidates = join_partitions(shipped, plan, n_merge_partitions, users.wire, users.coordinates, K)
    return candidates.collect()


def lists_in(blocks):
    """Return the blocks' lists as (key, user, [(distance, neighbor), ...])."""
    lists = []
    for block in blocks:
        counts = np.frombuffer(block["counts"], np.int32)
        ends = np.cumsum(counts).tolist()
        distances = np.frombuffer(block["distances"], np.float32).tolist()
        assert len(distances) == len(block["neighbor_ids"]) == sum(counts)
        pairs = list(zip(distances, block["neighbor_ids"], strict=True))
        lists += [
            (block["partition_key"], user, pairs[end - count : end])
            for user, count, end in zip(block["ids"], counts.tolist(), ends, strict=True)
        ]
    return lists


def best(blocks):
    """Return each user's k best candidates over all partitions, {id: [(distance, id), ...]}."""
    met = {}
    for _, user, pairs in lists_in(blocks):
        met.setdefault(user, set()).update(pairs)
    return {user: sorted(candidates)[:K] for user, candidates in met.items()}


@pytest.fixture(scope="module")
def rows(spark, stage):
    """Return the blocks of a join of cosine with three probes, for a merge in four partitions."""
    return joined(spark, stage, clustered(ROWS), probes=3, n_merge_partitions=4)


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.slow)])
def test_with_every_leaf_visited_the_candidates_hold_the_exact_neighbors(spark, stage, metric):
    vectors = clustered(ROWS)
    found = best(joined(spark, stage, vectors, metric=metric, probes=LEAVES * 2))
    neighbors, distances = exact_neighbors(prepare(vectors, metric), np.arange(ROWS), K, metric)
    assert sorted(found) == list(range(ROWS))
    np.testing.assert_allclose([[d for d, _ in found[i]] for i in range(ROWS)], distances, rtol=1e-4, atol=1e-6)
    same = np.array([[j for _, j in found[i]] for i in range(ROWS)]) == neighbors
    assert same.mean() > 0.999  # float32 differences may swap near-equal neighbors


def test_lists_are_ordered_hold_k_at_most_and_never_the_user(rows):
    lists = lists_in(rows)
    assert {user for _, user, _ in lists} == set(range(ROWS))
    for _, user, pairs in lists:
        assert pairs == sorted(pairs)
        assert len({other for _, other in pairs} - {user}) == len(pairs) <= K


def test_all_lists_of_a_user_go_to_one_partition_of_the_merge(rows):
    lists = lists_in(rows)
    keys = {}
    for key, user, _ in lists:
        keys.setdefault(user, set()).add(key)
    assert {len(found) for found in keys.values()} == {1}
    shares = np.unique([key for (key,) in keys.values()], return_counts=True)[1]
    assert len(shares) == 4
    assert shares.min() > ROWS / 4 * 0.8


def test_what_a_partition_did_stands_once_in_its_first_row(spark, stage):
    rows = joined(spark, stage, clustered(ROWS), probes=1)
    told = [(row["pairs"], row["max_rows"]) for row in rows if row["pairs"]]
    assert len(told) == 3
    # With a single probe every pair is one of two residents of a leaf.
    pairs, largest = sum(p for p, _ in told), max(m for _, m in told)
    assert ROWS / LEAVES <= largest < ROWS
    assert ROWS**2 / LEAVES <= pairs <= ROWS * largest
    assert sum(row["max_rows"] for row in rows) == sum(m for _, m in told)


def test_batches_do_not_change_the_candidates(spark, stage, rows):
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=41):
        again = joined(spark, stage, clustered(ROWS), probes=3, n_merge_partitions=4)
    assert sorted(lists_in(again)) == sorted(lists_in(rows))


def test_string_ids_travel_as_they_are(spark, stage, rows):
    vectors = clustered(ROWS)
    names = [f"user {i:04d}" for i in range(ROWS)]
    named = best(joined(spark, stage, vectors, probes=3, ids=names, schema="user_id string, vector array<float>"))
    # Names in the order of the numbers: the same vectors, the same ties.
    assert {u: [(d, int(v[5:])) for d, v in named[names[u]]] for u in range(ROWS)} == best(rows)
