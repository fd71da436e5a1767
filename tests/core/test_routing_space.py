import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark.core.centre_forest import grow_forest
from annspark.core.copies import route_vectors
from annspark.core.join import join_leaves
from annspark.core.plan import Workers, plan_join
from annspark.core.routes import EVERY_LEAF, SAME_LEAF, visits_of
from annspark.core.routing_space import RoutingSpace, choose_space
from annspark.core.vectors import sparse_rows


def normal(n, dim=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def some_of(vectors):
    kept = csr_array(vectors * (np.random.default_rng(3).random(vectors.shape) < 0.6))
    return sparse_rows(np.diff(kept.indptr), kept.indices, kept.data, vectors.shape[1])


def test_the_nearest_home_points_to_a_visit_point_are_the_largest_products():
    vectors = normal(300)
    space = choose_space(vectors, "inner_product")
    points, visiting = space.home_points(vectors), space.visit_points(vectors)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), space.radius, rtol=1e-5)
    distances = np.linalg.norm(visiting[:, None] - points, axis=2)
    np.testing.assert_array_equal(np.argsort(distances, axis=1)[:, :5], np.argsort(-vectors @ vectors.T, axis=1)[:, :5])


def test_other_metrics_are_routed_as_they_are():
    vectors = normal(20)
    space = choose_space(vectors, "manhattan")
    assert space.home_points(vectors) is vectors
    assert space.visit_points(vectors) is None
    assert not space.are_hubs(vectors * 1000).any()


def test_zero_vectors_have_finite_visit_points():
    assert np.isfinite(RoutingSpace(2.0).visit_points(np.zeros((3, 4), np.float32))).all()


def test_a_vector_longer_than_all_sampled_ones_visits_every_leaf_of_a_tree():
    vectors = normal(3000)
    vectors[[7, 2500]] *= 100
    forest = grow_forest(vectors[100:1100], 40, trees=2, split="two_means", seed=0, metric="inner_product")
    plan = plan_join(forest, vectors[1100:2000], 3, rows=3000, workers=Workers(2))
    copies = route_vectors(forest, plan, vectors)
    start = np.cumsum(copies.n_visits) - copies.n_visits
    for hub in (7, 2500):
        mine = np.flatnonzero(copies.row == hub)
        visiting = mine[copies.n_visits[mine] == 1]
        assert copies.partition[visiting].tolist() == list(range(plan.n_home_partitions))
        assert (copies.visits[start[visiting]] == EVERY_LEAF).all()
        assert (copies.home[mine] >= 0).sum() == 2
        assert len(mine) == plan.n_home_partitions + 1
    _, margins = forest.find_home_distances(vectors, np.arange(50), vectors, np.full(50, 7))
    assert (margins == SAME_LEAF).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("metric", ["inner_product", "euclidean"])
def test_a_hub_is_compared_with_all_rows_once(metric, sparse):
    vectors, home = normal(400), np.random.default_rng(1).integers(0, 9, 400).astype(np.int32)
    if sparse:
        vectors = some_of(np.abs(vectors))
    home[::50] = -1
    visits = np.full((400, 2), -1, np.int32)
    visits[[3, 50, 200], 0] = EVERY_LEAF
    everywhere = np.full((400, 9), -1, np.int32)
    everywhere[[3, 50, 200]] = np.where(np.arange(9) == home[[3, 50, 200]][:, None], -1, np.arange(9))
    hubs, same = (join_leaves(vectors, home, visits_of(these), 6, metric) for these in (visits, everywhere))
    np.testing.assert_array_equal(hubs.neighbors, same.neighbors)
    np.testing.assert_array_equal(hubs.distances, same.distances)
    assert sparse or hubs.pairs == same.pairs
