import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.copies import route_vectors
from annspark.core.plan import (
    Workers,
    count_exact_users,
    count_leaves,
    count_limbs,
    count_merge_partitions,
    count_merge_task_bytes,
    count_query_task_bytes,
    count_sampled,
    count_sampled_for_limbs,
    count_task_bytes,
    plan_join,
)


def forest_of(rng, trees, most_leaves, dim=3):
    sizes = rng.integers(1, most_leaves + 1, trees)
    return CentreForest(np.zeros(dim, np.float32), tuple(rng.normal(size=(n, dim)).astype(np.float32) for n in sizes))


def assert_whole(plan, forest, probes):
    """Every leaf in one partition, partitions ascending, none empty, none shared by two trees."""
    sizes = [len(centres) for centres in forest.trees]
    assert plan.n_leaves == sum(sizes) == len(plan.partition_of_leaf)
    assert plan.first_leaf.tolist() == [0, *np.cumsum(sizes)]
    assert plan.probes == probes
    assert len(plan.reach) == len(sizes)
    assert len(sizes) <= plan.copies <= sum(min(2 * probes, n) for n in sizes)
    assert (np.diff(plan.partition_of_leaf) >= 0).all()
    assert np.unique(plan.partition_of_leaf).tolist() == list(range(plan.n_partitions))
    firsts = plan.partition_of_leaf[plan.first_leaf[1:-1]]
    assert (firsts > plan.partition_of_leaf[plan.first_leaf[1:-1] - 1]).all()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 60),
    st.floats(1, 12),
    st.integers(1, 40),
    st.integers(1, 10**8),
)
def test_every_leaf_is_in_one_partition_and_no_partition_is_empty(seed, trees, most_leaves, probes, cores, rows):
    rng = np.random.default_rng(seed)
    forest = forest_of(rng, trees, most_leaves)
    sample = rng.normal(size=(50, 3)).astype(np.float32)
    assert_whole(plan_join(forest, sample, probes, rows=rows, workers=Workers(cores)), forest, probes)


@given(st.integers(0, 2**32 - 1), st.integers(0, 29))
def test_no_partition_is_empty_when_one_leaf_has_nearly_all_the_work(seed, crowded):
    rng = np.random.default_rng(seed)
    forest = CentreForest(np.zeros(1, np.float32), (np.arange(30, dtype=np.float32)[:, None],))
    sample = np.append(np.full(1000, crowded), rng.integers(30, size=20)).astype(np.float32)[:, None]
    plan = plan_join(forest, sample, 2, rows=10**6, workers=Workers(4))
    assert plan.n_partitions == 8
    assert_whole(plan, forest, 2)


def test_partitions_get_about_equal_work():
    sample = np.random.default_rng(0).normal(size=(8000, 6)).astype(np.float32)
    forest = grow_forest(sample, 200, trees=1, split="two_means", seed=0, metric="euclidean")
    plan = plan_join(forest, sample, 8, rows=10**5, workers=Workers(4))
    leaves = np.bincount(plan.partition_of_leaf)
    assert len(leaves) == 8
    assert leaves.max() < 2 * leaves.mean()


def test_a_small_table_is_joined_in_one_partition():
    rng = np.random.default_rng(0)
    plan = plan_join(forest_of(rng, 1, 9), np.zeros((1, 3), np.float32), 4, rows=400, workers=Workers(64))
    assert plan.n_partitions == 1


@pytest.mark.parametrize(("rows", "leaf_rows", "k", "leaves"), [(1, 512, 10, 1), (5120, 512, 10, 10), (1000, 1, 4, 62)])
def test_a_leaf_has_the_rows_wanted_and_four_times_the_neighbors(rows, leaf_rows, k, leaves):
    assert count_leaves(rows, leaf_rows, k) == leaves


@given(st.integers(1, 10**9), st.integers(1, 10_000), st.integers(1, 10**6))
def test_the_sample_has_rows_for_every_leaf_and_is_never_more_than_the_table(rows, dim, n_leaves):
    sampled = count_sampled(rows, dim, n_leaves)
    assert min(rows, n_leaves) <= sampled <= rows
    assert sampled * dim * 4 <= max(512 << 20, n_leaves * dim * 4)
    if rows <= 10_000 and rows * dim * 4 <= 512 << 20:
        assert sampled == rows


@pytest.mark.parametrize("probes", [1, 2.5, 8])
def test_vectors_go_to_as_many_leaves_and_partitions_as_planned(probes):
    vectors = np.random.default_rng(0).normal(size=(30_000, 6)).astype(np.float32)
    sample = vectors[:10_000]
    forest = grow_forest(sample, 200, trees=1, split="two_means", seed=0, metric="euclidean")
    plan = plan_join(forest, vectors[10_000:15_000], probes, rows=10**6, workers=Workers(4))
    copies = route_vectors(forest, plan, vectors[15_000:])
    assert (copies.n_visits.sum() + (copies.home >= 0).sum()) / 15_000 == pytest.approx(probes, rel=0.05)
    assert len(copies.row) / 15_000 == pytest.approx(plan.copies, rel=0.05)


def test_partitions_fit_a_worker():
    sample = np.random.default_rng(0).normal(size=(5000, 50)).astype(np.float32)
    forest = grow_forest(sample, 300, trees=2, split="two_means", seed=0, metric="euclidean")
    plan = plan_join(forest, sample, 4, rows=10**7, workers=Workers(4))
    assert plan.n_partitions > 8
    assert 10**7 * plan.copies * 4 * 50 / plan.n_partitions <= 200 << 20


def test_copies_do_not_run_away_where_workers_have_memory():
    # Many dimensions: a vector's 40 nearest leaves are spread over all partitions.
    vectors = np.random.default_rng(0).normal(size=(12_000, 40)).astype(np.float32)
    forest = grow_forest(vectors[:8_000], 120, trees=1, split="two_means", seed=0, metric="euclidean")
    sample = vectors[8_000:]
    unknown, tight, roomy = (
        plan_join(forest, sample, 40, rows=3 * 10**6, workers=Workers(2, n_bytes), k=1)
        for n_bytes in (0, 2 * 1800 << 20, 16 << 30)
    )
    assert (roomy.n_partitions, roomy.copies) == (4, pytest.approx(3.9, abs=0.1))
    assert 4 < tight.n_partitions < unknown.n_partitions
    assert count_task_bytes(tight, 3 * 10**6, 40, 1) <= 1800 << 20
    assert 8 < unknown.copies <= 16


def test_memory_does_not_make_fewer_partitions_where_copies_are_few():
    vectors = np.random.default_rng(0).normal(size=(6_000, 4)).astype(np.float32)
    forest = grow_forest(vectors[:4_000], 300, trees=1, split="two_means", seed=0, metric="euclidean")
    plans = [plan_join(forest, vectors[4_000:], 3, rows=10**8, workers=Workers(2, n_bytes)) for n_bytes in (0, 1 << 40)]
    assert plans[0].n_partitions == plans[1].n_partitions > 8


@given(st.integers(1, 10**9), st.floats(1, 9), st.integers(1, 100), st.floats(1, 100), st.integers(1, 500))
def test_merge_partitions_fit_a_worker_and_small_tables_make_few(rows, copies, k, id_bytes, cores):
    partitions = count_merge_partitions(rows, copies, k, id_bytes, Workers(cores))
    assert 1 <= partitions <= max(1, rows // 500)
    if partitions < rows // 500:
        assert partitions >= 2 * cores
        assert partitions % cores == 0
        assert rows * copies * k * id_bytes / partitions <= 200 << 20


def test_a_worker_with_little_memory_gets_smaller_partitions():
    vectors = np.random.default_rng(0).normal(size=(6_000, 4)).astype(np.float32)
    forest = grow_forest(vectors[:4_000], 300, trees=1, split="two_means", seed=0, metric="euclidean")
    rows, tight, roomy = 10**7, Workers(2, 600 << 20), Workers(2, 4 << 30)
    small, large = (
        plan_join(forest, vectors[4_000:], 3, rows=rows, workers=workers, width=64) for workers in (tight, roomy)
    )
    assert count_task_bytes(small, rows, 64, 10) <= tight.free / 2 < count_task_bytes(large, rows, 64, 10)
    held, held_with_room = (count_merge_task_bytes(rows, 2, 10, 8, workers) for workers in (tight, roomy))
    assert held <= tight.free / 2 < held_with_room
    assert count_task_bytes(small, rows, 64, 100) > 3 * count_task_bytes(small, rows, 64, 10)
    assert count_merge_partitions(rows, 2, 10, 8, Workers(2)) == count_merge_partitions(rows, 2, 10, 8, roomy)


def test_leaves_are_grown_in_limbs_when_their_sample_is_too_large_for_the_driver():
    assert [count_limbs(n, 64) for n in (1, 52_000, 53_000, 200_000)] == [0, 0, 9, 31]
    assert count_sampled_for_limbs(10**9, 200_000) == 8_000_000
    assert count_sampled_for_limbs(1_000, 200_000) == 1_000


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([0, 1000]))
def test_no_user_is_both_audited_and_calibrated_on(rows, audit_users, calibrated):
    audited, known = count_exact_users(rows, audit_users, calibrated)
    assert 1 <= audited <= min(audit_users, rows)
    assert known <= calibrated
    assert audited + known <= max(rows, 2 if calibrated else 1)
    assert calibrated == 0 or known >= min(1000, rows // 2, 1)
    assert calibrated > 0 or audited == min(audit_users, rows)


def test_a_task_holds_the_leaves_that_short_vectors_visit():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12_000, 4)).astype(np.float32)
    forest = grow_forest(vectors[:8_000], 200, trees=1, split="two_means", seed=0, metric="euclidean")
    plan = plan_join(forest, vectors[8_000:], 80, rows=10**6, workers=Workers(2))
    # Eight times what the vectors take.  Once a task held 9 GB for 10,000,000 rows of 32 numbers, where 5 were planned.
    assert count_task_bytes(plan, 10**6, 4, 1) * plan.n_partitions >= 10**6 * 80 * 40
    assert plan.n_partitions > 4


def test_a_task_of_queries_holds_its_rows_and_the_copies_of_queries():
    rng = np.random.default_rng(0)
    plan = plan_join(
        forest_of(rng, 2, 30), rng.normal(size=(50, 3)).astype(np.float32), 3, rows=10**6, workers=Workers(4)
    )
    alone = count_query_task_bytes(plan, 0, 10**6, 60, 3)
    assert alone == pytest.approx(3 * 4 * 10**6 * 2 * 64 / plan.n_partitions)
    both = count_query_task_bytes(plan, 1000, 10**6, 60, 3)
    assert both - alone == pytest.approx(3 * 4 * 1000 * (plan.copies * 64 + 2 * 3) / plan.n_partitions, abs=1)
