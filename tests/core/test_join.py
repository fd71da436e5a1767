import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core import join, join_dense, keeper
from annspark.core.join import join_leaves
from annspark.core.metric import prepare
from annspark.core.routes import visits_of
from annspark.core.vectors import surplus_twins
from tests.core.worlds import (
    DENSE,
    alike,
    assert_exact,
    compared_pairs,
    exact_neighbors,
    join_one_leaf,
    nearest_compared,
    random_visits,
)


def normal(n, dim=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def shuffled(*parts, seed=0):
    return np.random.default_rng(seed).permutation(np.concatenate(parts).astype(np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(1, 250), st.integers(1, 40), st.integers(1, 20), st.sampled_from(DENSE))
def test_one_leaf_is_exact(seed, n, dim, k, metric):
    vectors = prepare(normal(n, dim, seed), metric)
    joined = join_one_leaf(vectors, k, metric)
    assert joined.neighbors.shape == joined.distances.shape == (n, k)
    assert_exact(joined, vectors, k, metric)
    assert joined.max_rows == n
    # Of many twins, which unit vectors of one number are, only some are compared.
    assert joined.pairs == n * n or dim == 1 or metric == "hamming"


@pytest.mark.parametrize("k", [150, 299, 300, 500])
def test_large_k_is_exact_even_beyond_the_residents(k):
    joined = join_one_leaf(normal(300), k)
    assert_exact(joined, normal(300), k)
    assert ((joined.neighbors == -1) == np.isinf(joined.distances)).all()


@pytest.mark.parametrize("dim", [1, 2, 300, 1000])
def test_any_number_of_dimensions_is_exact(dim):
    assert_exact(join_one_leaf(normal(200, dim), 10), normal(200, dim), 10)


@given(st.integers(0, 2**32 - 1), st.integers(2, 250), st.integers(1, 4), st.integers(1, 12), st.sampled_from([1, 0.1]))
def test_ties_come_by_row(seed, n, dim, k, step):
    vectors = (np.random.default_rng(seed).integers(0, 4, (n, dim)) * np.float32(step)).astype(np.float32)
    assert_exact(join_one_leaf(vectors, k), vectors, k)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dim", [1, 3, 16, 64])
def test_300_twins_among_others_find_each_other(dim, seed):
    # Rounding may put the product's distance of twins on either side of 0.
    vectors = shuffled(np.repeat(normal(1, dim, seed), 300, axis=0), normal(100, dim, seed + 10))
    assert_exact(join_one_leaf(vectors, 10), vectors, 10)


@pytest.mark.parametrize("metric", DENSE)
def test_a_leaf_of_nothing_but_twins(metric):
    vectors = prepare(np.repeat(normal(1, 5), 200, axis=0), metric)
    assert_exact(join_one_leaf(vectors, 10, metric), vectors, 10, metric)


def test_twins_that_visit_find_their_twins():
    vectors = np.concatenate([np.repeat(normal(1, 16, 3), 300, axis=0), normal(300, 16, 4)])
    home = np.concatenate([np.zeros(150), np.ones(150), np.repeat([0, 1], 150)]).astype(np.int32)
    visits = (1 - home)[:, None]
    expected, distances = nearest_compared(vectors, compared_pairs(home, visits), 10)
    joined = join_leaves(vectors, home, visits_of(visits), 10, "euclidean")
    np.testing.assert_array_equal(joined.neighbors, expected)
    np.testing.assert_allclose(joined.distances, distances, rtol=1e-6)


def test_zero_vectors_are_vectors_like_others_under_euclidean():
    vectors = shuffled(np.zeros((60, 6)), -np.zeros((60, 6)), normal(100, 6))
    assert_exact(join_one_leaf(vectors, 10), vectors, 10)


def test_data_far_from_the_origin():
    vectors = normal(500) + np.float32(1e4)
    assert_exact(join_one_leaf(vectors, 10), vectors, 10)


def test_leaves_far_from_each_other_and_from_the_origin():
    vectors = normal(400) + np.repeat([[1e4], [-1e4]], 200, axis=0).astype(np.float32)
    home = np.repeat([0, 1], 200).astype(np.int32)
    joined = join_leaves(vectors, home, visits_of((1 - home)[:, None]), 10, "euclidean")
    assert_exact(joined, vectors, 10)


@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-6])
def test_a_tight_cluster_in_a_wide_leaf_keeps_its_nearest(spread):
    vectors = shuffled(normal(300) * spread + normal(1, seed=1), normal(300, seed=2))
    joined = join_one_leaf(vectors, 10)
    _, distances = exact_neighbors(vectors, np.arange(600), 10, "euclidean")
    assert (joined.neighbors >= 0).all()
    np.testing.assert_allclose(joined.distances, distances, rtol=1e-5)


@pytest.mark.parametrize("distance", [1e5, 1e7])
def test_one_far_outlier_does_not_blur_the_neighbors_of_the_others(distance):
    vectors = normal(500)
    vectors[77] = distance
    assert_exact(join_one_leaf(vectors, 10), vectors, 10)


@pytest.mark.parametrize("dim", [1, 8, 512])
@pytest.mark.parametrize("length", [1e-17, 4e18])
def test_very_short_and_very_long_vectors(dim, length):
    vectors = normal(200, dim)
    vectors *= np.float32(length) / np.linalg.norm(vectors, axis=1).max()
    assert_exact(join_one_leaf(vectors, 10), vectors, 10)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 100),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 8),
    st.sampled_from([("normal", "cosine"), ("normal", "euclidean"), ("grid", "euclidean")]),
)
def test_each_row_keeps_the_nearest_of_those_it_is_compared_with(seed, n, n_leaves, width, k, world):
    kind, metric = world
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, 5)) if kind == "normal" else rng.integers(1, 4, (n, 3))
    vectors = prepare(raw.astype(np.float32), metric)
    home = rng.integers(-1, n_leaves, n).astype(np.int32)  # some are guests
    home, visits = alike(vectors, home, random_visits(rng, home, n_leaves, width))
    joined = join_leaves(vectors, home, visits_of(visits), k, metric)
    expected, distances = nearest_compared(vectors, compared_pairs(home, visits), k, metric)
    # Equal vectors beyond k + 1 are not compared: those at home get the list of one that is.
    surplus, _ = surplus_twins(vectors, k)
    without_list = surplus[home[surplus] < 0]
    with_list = np.delete(np.arange(n), without_list)
    assert (joined.neighbors[without_list] == -1).all()
    np.testing.assert_allclose(joined.distances[with_list], distances[with_list], rtol=1e-6)
    np.testing.assert_array_equal(joined.neighbors[with_list], expected[with_list])
    assert (joined.neighbors != np.arange(n)[:, None]).all()
    for row in joined.neighbors:
        listed = row[row >= 0]
        assert len(np.unique(listed)) == len(listed)
    assert joined.max_rows == np.bincount(home[home >= 0], minlength=n_leaves).max()
    home, visits = np.delete(home, surplus), np.delete(visits, surplus, axis=0)
    residents = np.bincount(home[home >= 0], minlength=n_leaves)
    visitors = np.bincount(visits[visits >= 0], minlength=n_leaves)
    assert joined.pairs == (residents * (residents + visitors)).sum()


@pytest.mark.parametrize(("fold_rows", "tile"), [(7, 1), (33, 64), (50, 1000), (8192, 600)])
@pytest.mark.parametrize("kind", ["normal", "grid"])
def test_leaves_larger_than_a_fold_or_a_tile(monkeypatch, fold_rows, tile, kind):
    monkeypatch.setattr(keeper, "_FOLD_ROWS", fold_rows)
    monkeypatch.setattr(join_dense, "_TILE", tile)
    rng = np.random.default_rng(5)
    vectors = normal(260) if kind == "normal" else rng.integers(0, 3, (260, 3)).astype(np.float32)
    home = np.array([0] * 170 + [1] * 60 + [-1] * 30, np.int32)
    home, visits = alike(vectors, home, random_visits(rng, home, 2, 2))
    joined = join_leaves(vectors, home, visits_of(visits), 6, "euclidean")
    expected, distances = nearest_compared(vectors, compared_pairs(home, visits), 6)
    np.testing.assert_allclose(joined.distances, distances, rtol=1e-6)
    np.testing.assert_array_equal(joined.neighbors, expected)


def test_a_pair_whose_ends_visit_each_other_is_kept_once():
    home = np.array([0, 1], np.int32)
    joined = join_leaves(normal(2), home, visits_of((1 - home)[:, None]), 3, "euclidean")
    assert joined.neighbors.tolist() == [[1, -1, -1], [0, -1, -1]]


def test_alone_in_a_leaf_and_not_visited_is_without_neighbors():
    joined = join_one_leaf(normal(1), 3)
    assert joined.neighbors.tolist() == [[-1, -1, -1]]
    assert np.isinf(joined.distances).all()


def test_the_one_resident_of_a_leaf_is_compared_with_visitors_which_are_not_compared_with_each_other():
    home, visits = np.array([4, 7, -1], np.int32), np.array([[-1], [4], [4]], np.int32)
    joined = join_leaves(np.array([[0], [1], [-2]], np.float32), home, visits_of(visits), 2, "euclidean")
    assert joined.neighbors.tolist() == [[1, 2], [0, -1], [0, -1]]
    assert joined.distances.tolist() == [[1, 2], [1, np.inf], [2, np.inf]]


def test_in_a_leaf_without_residents_no_pair_is_compared():
    home, visits = np.array([0, 1], np.int32), np.array([[5], [5]], np.int32)
    joined = join_leaves(normal(2), home, visits_of(visits), 2, "euclidean")
    assert (joined.neighbors == -1).all()


def test_a_partition_of_guests_only_and_an_empty_one():
    visits = np.array([[1], [1]], np.int32)
    assert (join_leaves(normal(2), np.full(2, -1, np.int32), visits_of(visits), 2, "euclidean").neighbors == -1).all()
    joined = join_leaves(normal(0), np.empty(0, np.int32), visits_of(np.empty((0, 1), np.int32)), 2, "euclidean")
    assert (joined.neighbors.shape, joined.pairs, joined.max_rows) == ((0, 2), 0, 0)


@pytest.mark.slow
def test_a_leaf_of_millions_of_twins_and_a_few_others():
    n, rng = 2**23 + 5_000, np.random.default_rng(0)
    vectors = np.ones((n, 2), np.float32)
    few = np.sort(rng.choice(n, 600, replace=False))
    vectors[few] = rng.normal(size=(600, 2))
    joined = join_one_leaf(vectors, 3)
    twins = np.delete(np.arange(n), few)
    assert not joined.distances[twins].any()
    assert (joined.neighbors[twins[9:]] == twins[:3]).all()
    places = np.concatenate([few, twins[:3]])
    expected, distances = exact_neighbors(vectors[places], np.arange(600), 3, "euclidean")
    np.testing.assert_allclose(joined.distances[few], distances, rtol=1e-5)
    np.testing.assert_array_equal(joined.neighbors[few], places[expected])


def test_too_many_rows_for_the_packing_are_refused(monkeypatch):
    monkeypatch.setattr(join, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match="11 rows in one partition"):
        join_one_leaf(normal(11), 2)


def test_a_leaf_of_many_twins_is_joined_in_bounded_memory():
    vectors = np.ones((2000, 4), np.float32)
    tracemalloc.start()
    try:
        joined = join_one_leaf(vectors, 10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (joined.distances == 0).all()
    assert peak < 128 << 20
