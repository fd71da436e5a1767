"""Queries go to leaves, and rows stay at home: routes, copies and plans of the two, and how far they are apart."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.boundaries import near_leaves
from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.copies import route_queries, route_residents
from annspark.core.plan import Workers, expect_query_pairs, plan_parts, plan_queries, reach_of_queries
from annspark.core.routes import SAME_LEAF, reach_for, within_reach
from annspark.core.routing_space import PLAIN, RoutingSpace
from annspark.core.vectors import len_of, sparse_rows, squared_lengths, take_rows
from tests.core.test_copies import arrivals
from tests.core.test_distance import sparse
from tests.core.test_plan import assert_whole, forest_of

ALL = 99  # probes: more than there are leaves


def normal(rng, n, dim=3):
    return rng.normal(size=(n, dim)).astype(np.float32)


def sparse_of(n, dim=30, density=0.2, seed=0):
    rows = sparse(n, dim, density, seed)
    return sparse_rows(np.diff(rows.indptr), rows.indices, rows.data, dim)


def residents_of(forest, rows):
    """Return how many rows are at home in each leaf of each tree."""
    routes = forest.find_routes(rows, 1)
    return tuple(
        np.bincount(one.leaf[one.home], minlength=n).astype(float) for one, n in zip(routes, forest.sizes, strict=True)
    )


def planned(forest, sample, indexed, probes, **more):
    sizes = {"queries": len_of(sample), "rows": len_of(indexed), "workers": Workers(4), "width": 3.0} | more
    return plan_queries(forest, sample, residents_of(forest, indexed), probes, **sizes)


FORESTS = ["plain", "inner_product", "columns"]


def world(kind, seed=0, n=300, n_queries=120, trees=2):
    """Return a forest, rows and queries; under the inner product some rows are hubs."""
    rng = np.random.default_rng(seed)
    if kind == "columns":
        rows, queries = sparse_of(n, seed=seed), sparse_of(n_queries, seed=seed + 1)
        forest = grow_columns(take_rows(rows, np.arange(n // 2)), n, 3, homes=tuple(range(trees)), metric="cosine")
        return replace(forest, longest=float(np.sort(squared_lengths(rows))[-6])), rows, queries
    rows, queries = normal(rng, n, 5), normal(rng, n_queries, 5)
    metric = "inner_product" if kind == "inner_product" else "euclidean"
    if kind == "inner_product":
        rows[:5] *= 20
        queries[:5] *= 300  # a query that is longer than all rows is no hub
    forest = grow_forest(rows[5:], 20, trees=trees, split="two_means", seed=0, metric=metric)
    return forest, rows, queries


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 25), min_size=1, max_size=3),
    st.integers(1, 30),
    st.integers(1, 40),
    st.sampled_from([None, 1.0]),
)
def test_every_query_goes_once_to_each_leaf_within_reach_and_is_at_home_in_none(seed, sizes, probes, n, radius):
    rng = np.random.default_rng(seed)
    space = PLAIN if radius is None else RoutingSpace(radius)
    dim = 3 if radius is None else 4
    forest = CentreForest(np.zeros(dim, np.float32), tuple(normal(rng, m, dim) for m in sizes), space)
    plan = planned(forest, normal(rng, 60), normal(rng, 200), probes, rows=10**6, queries=10**6)
    queries = normal(rng, n)
    copies = route_queries(forest, plan, queries)
    expected = set()
    for tree, groups in enumerate(forest.groups):
        near, margins = near_leaves(forest.query_points(queries), groups, probes)
        visited = (margins <= np.float32(plan.reach[tree])) | (np.arange(near.shape[1]) == 0)
        expected |= {(row, near[row, i] + plan.first_leaf[tree]) for row, i in np.argwhere(visited)}
    found = arrivals(copies)
    assert len(found) == len(expected)
    assert {(row, leaf) for row, leaf, _, _ in found} == expected
    assert all(plan.partition_of_leaf[leaf] == partition for _, leaf, _, partition in found)
    assert (copies.home == -1).all()
    assert set(copies.row.tolist()) == set(range(n))
    pairs = list(zip(copies.row.tolist(), copies.partition.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert (copies.n_visits > 0).all()


@pytest.mark.parametrize("kind", FORESTS)
def test_residents_go_home_in_every_tree_and_nowhere_else_hubs_too(kind):
    forest, rows, queries = world(kind)
    plan = planned(forest, queries, rows, 3, rows=10**6)
    copies = route_residents(forest, plan, rows)
    homes = set()
    for tree, routes in enumerate(forest.find_routes(rows, 1)):
        leaf = routes.leaf[routes.home] + plan.first_leaf[tree]
        homes |= set(zip(routes.row[routes.home].tolist(), leaf.tolist(), strict=True))
    assert copies.visits.size == copies.n_visits.sum() == 0
    found = [(row, leaf) for row, leaf, _, _ in arrivals(copies)]
    assert len(found) == len(homes)
    assert set(found) == homes
    np.testing.assert_array_equal(plan.partition_of_leaf[copies.home], copies.partition)
    in_first = copies.home < plan.first_leaf[1]
    assert sorted(copies.row[in_first].tolist()) == list(range(len_of(rows)))


@pytest.mark.parametrize("kind", FORESTS)
def test_no_residents_and_no_queries_ship_nothing(kind):
    forest, rows, queries = world(kind)
    plan = planned(forest, queries, rows, 3)
    for route, some in ((route_residents, rows), (route_queries, queries)):
        copies = route(forest, plan, take_rows(some, np.arange(0)))
        assert [len(field) for field in vars(copies).values()] == [0] * 5


@pytest.mark.parametrize("kind", FORESTS)
@pytest.mark.parametrize("route", [route_residents, route_queries])
def test_a_vector_is_routed_alike_in_any_batch(kind, route):
    forest, rows, queries = world(kind)
    plan = planned(forest, queries, rows, 4, rows=10**6)
    together, apart = arrivals(route(forest, plan, queries)), []
    for start in range(0, len_of(queries), 37):
        some = np.arange(start, min(start + 37, len_of(queries)))
        part = arrivals(route(forest, plan, take_rows(queries, some)))
        apart += [(row + start, *rest) for row, *rest in part]
    assert sorted(together) == sorted(apart)


@pytest.mark.parametrize("kind", FORESTS)
@pytest.mark.parametrize("probes", [1, 2.5, 6, ALL])
def test_a_pair_is_near_just_where_the_routes_of_the_query_hold_the_home_of_the_row(kind, probes):
    forest, rows, queries = world(kind)
    n, m = len_of(queries), len_of(rows)
    i, j = (index.ravel() for index in np.indices((n, m)))
    leaves_nearer, margins = forest.find_query_distances(queries, i, rows, j)
    assert leaves_nearer.shape == margins.shape == (n * m, len(forest.sizes))
    assert (leaves_nearer.dtype, margins.dtype) == (np.int32, np.float32)
    hubs = forest.are_hubs(rows)
    assert hubs.any() == (kind != "plain")
    assert (margins[hubs[j]] == SAME_LEAF).all()  # every query is compared with them
    most, found = forest.most_leaves(probes), 0
    homes = [one.take(one.home) for one in forest.find_routes(rows, 1)]
    for tree, routes in enumerate(forest.find_query_routes(queries, probes)):
        assert np.bincount(routes.row, minlength=n).max() <= most
        assert (routes.row[routes.home] == np.arange(n)).all()
        home = np.full(m, -1)
        home[homes[tree].row] = homes[tree].leaf
        for reach in (-1.0, reach_for(routes, min(probes, 2)), 0.5, np.inf):
            visited = within_reach(routes, reach)
            goes = np.zeros((n, forest.sizes[tree]), bool)
            goes[visited.row, visited.leaf] = True
            wanted = goes[i, home[j]] & (home[j] >= 0)
            near = (margins[:, tree] <= np.float32(reach)) & (leaves_nearer[:, tree] < most)
            np.testing.assert_array_equal(near | hubs[j], wanted | hubs[j])
            found += wanted.sum()
    assert found > 0


@pytest.mark.parametrize("kind", FORESTS)
def test_a_query_goes_first_to_the_leaf_that_comes_first_for_it(kind):
    forest, _, queries = world(kind)
    for tree, routes in enumerate(forest.find_query_routes(queries, 1)):
        assert (routes.margin[routes.home] == 0).all()
        first = routes.leaf[routes.home]
        if kind != "columns":
            apart = np.square(forest.query_points(queries)[:, None] - forest.trees[tree]).sum(axis=2)
            np.testing.assert_array_equal(first, apart.argmin(axis=1))
        else:  # whichever tree: in the second a row is at home in its second column, and a query starts at its first
            np.testing.assert_array_equal(first, forest.find_query_routes(queries, 1)[0].leaf[routes.home])


def test_the_length_of_a_query_does_not_change_where_it_goes_under_the_inner_product():
    forest, _, queries = world("inner_product")
    one, other = (forest.find_query_routes(queries * np.float32(f), 4) for f in (1, 4096))
    for routes, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(routes.leaf, again.leaf)
        np.testing.assert_allclose(routes.margin, again.margin, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", FORESTS)
def test_the_first_trees_alone_route_queries_as_among_others(kind):
    forest, rows, queries = world(kind, trees=3)
    pairs = np.arange(100), np.arange(100)
    _, margins = forest.find_query_distances(queries, pairs[0], rows, pairs[1])
    _, first = forest.first(1).find_query_distances(queries, pairs[0], rows, pairs[1])
    np.testing.assert_array_equal(margins[:, :1], first)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 60),
    st.floats(1, 12),
    st.integers(1, 40),
    st.integers(1, 10**8),
    st.integers(1, 10**8),
)
def test_every_leaf_is_in_one_partition_and_no_partition_is_empty(seed, trees, most, probes, cores, rows, queries):
    rng = np.random.default_rng(seed)
    forest = forest_of(rng, trees, most)
    plan = planned(forest, normal(rng, 50), normal(rng, 50), probes, rows=rows, queries=queries, workers=Workers(cores))
    assert_whole(plan, forest, probes)
    assert plan.expected.pairs >= 0


@pytest.mark.parametrize("crowded", [0, 17, 29])
@pytest.mark.parametrize("asked", [True, False])
def test_no_partition_is_empty_when_one_leaf_has_nearly_all_rows_or_queries(crowded, asked):
    rng = np.random.default_rng(0)
    forest = CentreForest(np.zeros(1, np.float32), (np.arange(30, dtype=np.float32)[:, None],))
    heap = np.append(np.full(1000, crowded), rng.integers(30, size=20)).astype(np.float32)[:, None]
    even = rng.integers(30, size=1000).astype(np.float32)[:, None]
    sample, rows = (heap, even) if asked else (even, heap)
    plan = planned(forest, sample, rows, 2, rows=10**6, queries=10**6)
    assert plan.n_partitions >= 8
    assert_whole(plan, forest, 2)


def test_partitions_get_about_equal_work_which_is_rows_times_queries():
    rng = np.random.default_rng(0)
    leaves = np.arange(200, dtype=np.float32)[:, None]
    forest = CentreForest(np.zeros(1, np.float32), (leaves,))
    rows = (199 * rng.random((20_000, 1)) ** 3).astype(np.float32)  # most at the one end
    queries = (199 * rng.beta(4, 2, (8_000, 1))).astype(np.float32)  # most near the other
    plan = planned(forest, queries[:4000], rows, 3, workers=Workers(4))
    assert plan.n_partitions == 8
    copies = route_queries(forest, plan, queries[4000:])
    work = np.bincount(copies.visits, minlength=plan.n_leaves) * residents_of(forest, rows)[0]
    by_partition = np.bincount(plan.partition_of_leaf, work)
    assert by_partition.max() < 1.25 * by_partition.mean()
    assert by_partition.min() > 0.8 * by_partition.mean()


@pytest.mark.parametrize("kind", FORESTS)
@pytest.mark.parametrize("probes", [1, 2, 3.5])
def test_queries_go_to_as_many_leaves_partitions_and_rows_as_planned(kind, probes):
    forest, rows, _ = world(kind, n=4000, trees=2)
    _, _, queries = world(kind, seed=5, n_queries=6000)
    sample, others = take_rows(queries, np.arange(3000)), take_rows(queries, np.arange(3000, 6000))
    plan = planned(forest, sample, rows, probes, rows=10**6, queries=10**6)
    copies = route_queries(forest, plan, others)
    assert copies.n_visits.sum() / 3000 == pytest.approx(probes * 2, rel=0.05)
    assert len(copies.row) / 3000 == pytest.approx(plan.copies, rel=0.05)
    residents = residents_of(forest, rows)
    pairs = np.concatenate(residents)[copies.visits].sum() / 3000
    assert plan.expected.pairs == pytest.approx(pairs, rel=0.07)
    assert plan.expected.pairs == expect_query_pairs(forest, probes, sample=sample, residents=residents)
    assert plan.reach == reach_of_queries(forest, sample, probes)
    assert plan.expected.max_rows == max(one.max() for one in residents)


def test_few_queries_of_a_large_table_do_not_make_a_partition_larger_than_a_worker_holds():
    rng = np.random.default_rng(0)
    rows = normal(rng, 5000, 50)
    forest = grow_forest(rows, 300, trees=2, split="two_means", seed=0, metric="euclidean")
    plan = planned(forest, normal(rng, 100, 50), rows, 4, rows=10**7, queries=100, width=50.0)
    assert 10**7 * 2 * 4 * 54 / plan.n_partitions <= 200 << 20
    many = planned(forest, normal(rng, 100, 50), rows, 4, rows=1000, queries=10**7, width=50.0)
    assert 10**7 * many.copies * 4 * 54 / many.n_partitions <= 200 << 20


def test_a_small_table_is_asked_in_one_partition():
    rng = np.random.default_rng(0)
    plan = planned(
        forest_of(rng, 1, 9), normal(rng, 30), normal(rng, 30), 4, rows=300, queries=100, workers=Workers(64)
    )
    assert plan.n_partitions == 1


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 10**7),
    st.floats(1, 2000),
)
def test_the_parts_of_an_index_hold_every_leaf_once_and_about_as_many_rows_each(seed, trees, most, cores, rows, width):
    rng = np.random.default_rng(seed)
    forest = forest_of(rng, trees, most)
    residents = tuple(rng.integers(0, 50, n).astype(float) for n in forest.sizes)
    plan = plan_parts(forest.sizes, residents, rows, width, cores)
    assert plan.first_leaf.tolist() == [0, *np.cumsum(forest.sizes)]
    assert (np.diff(plan.partition_of_leaf) >= 0).all()
    assert np.unique(plan.partition_of_leaf).tolist() == list(range(plan.n_partitions))
    firsts = plan.first_leaf[1:-1]
    assert (plan.partition_of_leaf[firsts] > plan.partition_of_leaf[firsts - 1]).all()
    assert plan.n_partitions <= trees * max(1, rows // 500)
    assert len(plan.reach) == trees


def test_a_part_is_of_a_size_that_a_reader_takes_whole():
    even = (np.full(1000, 1000.0),)
    plan = plan_parts((1000,), even, 10**6, 96.0, 4)
    rows = np.bincount(plan.partition_of_leaf, even[0])
    assert rows.max() * 100 * 4 <= 72 << 20
    assert rows.max() < 1.3 * rows.min()
    assert plan_parts((1000,), even, 499, 96.0, 4).n_partitions == 1
    assert plan_parts((1000,), even, 10**5, 1.0, 4).n_partitions == 4
