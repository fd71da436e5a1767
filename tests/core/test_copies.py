from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.boundaries import near_leaves
from annspark.core.centre_forest import CentreForest
from annspark.core.copies import route_vectors
from annspark.core.plan import Workers, plan_join


def make(rng, sizes, probes, n, dim=3, cores=4):
    forest = CentreForest(np.zeros(dim, np.float32), tuple(rng.normal(size=(m, dim)).astype(np.float32) for m in sizes))
    vectors = rng.normal(size=(n, dim)).astype(np.float32)
    sample = rng.normal(size=(60, dim)).astype(np.float32)
    return forest, plan_join(forest, sample, probes, rows=10**6, workers=Workers(cores)), vectors


def arrivals(copies):
    """Return every (row, leaf, is home) that was shipped, and the partition it was shipped to."""
    visits = np.split(copies.visits, np.cumsum(copies.n_visits)[:-1])
    found = []
    for row, partition, home, leaves in zip(copies.row, copies.partition, copies.home, visits, strict=True):
        found += [(row, leaf, False, partition) for leaf in leaves]
        if home >= 0:
            found.append((row, home, True, partition))
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 25), min_size=1, max_size=3),
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(1, 6),
)
def test_every_vector_goes_to_the_leaves_within_reach_once(seed, sizes, probes, n, cores):
    forest, plan, vectors = make(np.random.default_rng(seed), sizes, probes, n, cores=cores)
    copies = route_vectors(forest, plan, vectors)
    expected = set()
    for tree, groups in enumerate(forest.groups):
        near, margins = near_leaves(vectors, groups, probes)
        visited = (margins <= np.float32(plan.reach[tree])) | (np.arange(near.shape[1]) == 0)
        expected |= {(row, near[row, i] + plan.first_leaf[tree], i == 0) for row, i in np.argwhere(visited)}
    found = arrivals(copies)
    assert len(found) == len(expected)
    assert {(row, leaf, is_home) for row, leaf, is_home, _ in found} == expected
    assert all(plan.partition_of_leaf[leaf] == partition for _, leaf, _, partition in found)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 12), st.integers(1, 40))
def test_a_vector_has_one_home_a_tree_and_travels_once_to_a_partition(seed, trees, probes, n):
    forest, plan, vectors = make(np.random.default_rng(seed), [12] * trees, probes, n)
    copies = route_vectors(forest, plan, vectors)
    assert np.bincount(copies.row[copies.home >= 0]).tolist() == [trees] * n
    pairs = list(zip(copies.row.tolist(), copies.partition.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert len(copies.visits) == copies.n_visits.sum()


def test_more_probes_than_leaves_visit_every_leaf():
    forest, plan, vectors = make(np.random.default_rng(0), [3, 1], 99, 7)
    leaves = [(row, leaf) for row, leaf, _, _ in arrivals(route_vectors(forest, plan, vectors))]
    assert sorted(leaves) == [(row, leaf) for row in range(7) for leaf in range(4)]


def test_one_probe_ships_every_vector_home_and_nowhere_else():
    forest, plan, vectors = make(np.random.default_rng(0), [20], 1, 50)
    copies = route_vectors(forest, plan, vectors)
    order = np.lexsort((copies.row, copies.partition))
    assert order.tolist() == sorted(copies.row.tolist())
    home = np.square(vectors[:, None] - forest.trees[0]).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(copies.home, home[copies.row])
    assert copies.visits.size == 0
    assert not copies.n_visits.any()


@pytest.mark.parametrize("trees", [1, 2])
def test_no_vectors_ship_nothing(trees):
    forest, plan, vectors = make(np.random.default_rng(0), [5] * trees, 3, 0)
    copies = route_vectors(forest, plan, vectors)
    assert [len(field) for field in vars(copies).values()] == [0] * 5


def test_copies_are_fewer_than_leaves_visited_when_leaves_share_partitions():
    forest, plan, vectors = make(np.random.default_rng(0), [20], 8, 30)
    one = replace(plan, partition_of_leaf=np.zeros(20, np.int32), n_partitions=1)
    own = replace(plan, partition_of_leaf=np.arange(20, dtype=np.int32), n_partitions=20)
    assert len(route_vectors(forest, one, vectors).row) == 30
    copies = route_vectors(forest, own, vectors)
    assert len(copies.row) == 30 + len(copies.visits) > 30 * 6


def test_a_vector_is_routed_alike_in_any_batch():
    forest, plan, vectors = make(np.random.default_rng(0), [40, 30], 5, 300)
    together = arrivals(route_vectors(forest, plan, vectors))
    apart = []
    for start in range(0, 300, 77):
        part = arrivals(route_vectors(forest, plan, vectors[start : start + 77]))
        apart += [(row + start, *rest) for row, *rest in part]
    assert sorted(together) == sorted(apart)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 40))
def test_the_first_trees_partitions_come_first(seed, trees, n):
    _, plan, _ = make(np.random.default_rng(seed), [12] * trees, 5, n)
    assert plan.n_home_partitions == len(np.unique(plan.partition_of_leaf[:12]))
