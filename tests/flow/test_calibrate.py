import numpy as np
import pytest

from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.metric import prepare
from annspark.core.routes import SAME_LEAF
from annspark.flow.calibrate import place_neighbors
from annspark.flow.exact import find_exact
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from annspark.settings import Settings
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered, configured, grid, make_table

K = 6


def found(spark, stage, vectors, metric, *, partitions=4, k=K, audit=30, calibrate=20, trees=1, order=None):
    """Return the samples, the forest and what find_exact says."""
    order = np.arange(len(vectors)) if order is None else order
    table = make_table(spark, vectors[order], order.tolist(), partitions=partitions)
    users = read_vectors(table, Settings(metric=metric), stage, 2)
    users, samples = sample_vectors(users, [audit, calibrate])
    forest = grow_forest(prepare(vectors, metric), 12, trees=trees, split="two_means", seed=0, metric="cosine")
    audited, known = find_exact(users, samples, k)
    home_distances = place_neighbors(users, samples[-1], known, forest)
    return samples, (audited.radius, home_distances), forest


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=pytest.mark.slow)])
def test_the_radius_is_exact_with_and_without_twins(spark, stage, metric):
    vectors = clustered(200, 12)
    # One vector has a single twin, another more twins than k.
    vectors = np.concatenate([vectors, vectors[[0]], vectors[[1] * 9]])
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=17):
        samples, (radius, _), _ = found(spark, stage, vectors, metric, audit=len(vectors), calibrate=0)
    _, distances = exact_neighbors(prepare(vectors, metric), samples[0].ids.to_numpy(), K, metric)
    np.testing.assert_allclose(radius, distances[:, -1], rtol=1e-4, atol=1e-6)
    assert (radius == 0).sum() == 10


def test_partitions_without_rows_do_not_disturb(spark, stage):
    samples, (radius, home_distances), _ = found(spark, stage, clustered(5), "cosine", partitions=16, k=4, audit=5)
    _, distances = exact_neighbors(prepare(clustered(5), "cosine"), samples[0].ids.to_numpy(), 4, "cosine")
    np.testing.assert_allclose(radius, distances[:, -1], rtol=1e-4)
    assert home_distances.exists.all()
    assert home_distances.exists.shape == (5, 4)


@pytest.mark.parametrize("trees", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_home_distances_are_those_of_the_exact_neighbors(spark, stage, trees):
    vectors = clustered(400)
    samples, (_, home_distances), forest = found(spark, stage, vectors, "cosine", trees=trees)
    ready, rows = prepare(vectors, "cosine"), samples[-1].ids.to_numpy()
    neighbors, _ = exact_neighbors(ready, rows, K, "cosine")
    for tree, centres in enumerate(forest.trees):
        squared = ((ready[:, None].astype(np.float64) - centres) ** 2).sum(axis=2)
        home, distance = squared.argmin(axis=1), np.sqrt(squared)
        for way, (one, other) in enumerate([(rows[:, None] + 0 * neighbors, neighbors), (neighbors, rows[:, None])]):
            there = np.broadcast_to(home[other], one.shape)
            wanted = distance[one, there]
            leaves_nearer = (distance[one] < wanted[..., None] - 1e-9).sum(axis=2)
            np.testing.assert_array_equal(home_distances.leaves_nearer[..., 2 * tree + way], leaves_nearer)
            apart = np.linalg.norm(centres[home[one]] - centres[there], axis=2)
            margins = (squared[one, there] - squared[one, home[one]]) / (2 * np.where(apart > 0, apart, np.inf))
            margins[home[one] == there] = SAME_LEAF
            np.testing.assert_allclose(home_distances.margins[..., 2 * tree + way], margins, atol=1e-5)


@pytest.mark.parametrize("metric", ["euclidean", pytest.param("cosine", marks=pytest.mark.slow)])
def test_not_a_bit_depends_on_partitions_or_order_even_with_ties(spark, stage, metric):
    vectors = grid(6, 4, twins=300)
    vectors = vectors[(vectors != 0).any(axis=1)]
    _, (radius, home_distances), _ = found(spark, stage, vectors, metric)
    order = np.random.default_rng(0).permutation(len(vectors))
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=50):
        _, (other_radius, others), _ = found(spark, stage, vectors, metric, partitions=9, order=order)
    np.testing.assert_array_equal(radius, other_radius)
    for name in ("exists", "leaves_nearer", "margins"):
        np.testing.assert_array_equal(getattr(home_distances, name), getattr(others, name))


def test_a_sparse_neighbor_who_shares_nothing_counts_as_met(spark, stage):
    users = [(user, {user // 2: 1.0}) for user in range(60)]
    table = spark.createDataFrame(users, "user_id bigint, vector map<int,float>")
    found = read_vectors(table, Settings(), stage, 2)
    found, samples = sample_vectors(found, [20])
    (known,) = find_exact(found, [samples[-1]], K)
    forest = grow_columns(samples[-1].vectors, 60, 5, homes=(0,), metric="cosine")
    home_distances = place_neighbors(found, samples[-1], known, forest)
    assert known.distances.tolist() == [[0, *[1] * (K - 1)]] * 20
    assert (home_distances.margins[:, 1:] == SAME_LEAF).all()
    assert not home_distances.leaves_nearer[:, 1:].any()
