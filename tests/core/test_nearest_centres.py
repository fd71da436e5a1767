import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.distance import squared_distances as all_squared
from annspark.core.nearest_centres import count_nearer_centres, nearest_centres


def squared_distances(vectors, centres):
    return ((vectors.astype(np.float64)[:, None] - centres.astype(np.float64)) ** 2).sum(axis=2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 8), st.data())
def test_nearest_centres_of_integer_vectors_are_the_brute_force_ties_by_number(seed, n_centres, dim, data):
    m = data.draw(st.integers(1, n_centres))
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-3, 4, (40, dim)).astype(np.float32)
    centres = rng.integers(-3, 4, (n_centres, dim)).astype(np.float32)
    expected = np.argsort(squared_distances(vectors, centres), axis=1, kind="stable")[:, :m]
    found = nearest_centres(vectors, centres, m)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dim", [1, 30, 256, 257, 600])
def test_nearest_centres_are_as_near_as_the_brute_force(dim):
    rng = np.random.default_rng(dim)
    vectors = rng.normal(size=(50, dim)).astype(np.float32)
    centres = rng.normal(size=(200, dim)).astype(np.float32)
    distances = squared_distances(vectors, centres)
    found = np.take_along_axis(distances, nearest_centres(vectors, centres, 9), axis=1)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :9], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_centres", [1, 2, 37, 130])
@pytest.mark.parametrize("dim", [3, 64, 300])
def test_the_answer_does_not_depend_on_the_batch(dim, n_centres):
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(n_centres, dim)).astype(np.float32)
    # Vectors midway between two centres: the last bit of a score decides.
    pairs = rng.integers(n_centres, size=(2, 2500))
    vectors = (centres[pairs[0]] + centres[pairs[1]]) / 2
    m = min(4, n_centres)
    together = nearest_centres(vectors, centres, m)
    for part in (slice(0, 1), slice(2047, 2049), slice(1, 100), slice(300, None)):
        np.testing.assert_array_equal(nearest_centres(vectors[part], centres, m), together[part])
    shuffled = rng.permutation(len(vectors))
    np.testing.assert_array_equal(nearest_centres(vectors[shuffled], centres, m), together[shuffled])


def test_a_single_centre_is_the_nearest_of_all_vectors():
    vectors = np.random.default_rng(3).normal(size=(10, 5)).astype(np.float32)
    np.testing.assert_array_equal(nearest_centres(vectors, vectors[:1], 1), np.zeros((10, 1)))


def test_no_vectors_have_no_centres():
    assert nearest_centres(np.empty((0, 3), np.float32), np.ones((4, 3), np.float32), 2).shape == (0, 2)


@pytest.mark.parametrize("m", [1, 2, 7, 192])
def test_equally_near_centres_come_by_number(m):
    centres = np.tile(np.random.default_rng(1).normal(size=(1, 5)).astype(np.float32), (192, 1))
    vectors = np.random.default_rng(2).normal(size=(40, 5)).astype(np.float32)
    np.testing.assert_array_equal(nearest_centres(vectors, centres, m), np.tile(np.arange(m), (40, 1)))


@pytest.mark.parametrize("dim", [3, 64, 300])
def test_order_and_ranks_are_those_of_distances_by_differences_also_where_rounding_would_decide(dim):
    rng = np.random.default_rng(8)
    centres = rng.normal(size=(130, dim)).astype(np.float32)
    pairs = rng.integers(130, size=(2, 2500))
    vectors = (centres[pairs[0]] + centres[pairs[1]]) / 2
    i, j = (index.ravel() for index in np.indices((2500, 130)))
    distances = all_squared(vectors, i, centres, j, dim).reshape(2500, 130)
    np.testing.assert_array_equal(nearest_centres(vectors, centres, 4), np.argsort(distances, kind="stable")[:, :4])
    ranks = (distances < distances[np.arange(2500), pairs[1]][:, None]).sum(axis=1)
    np.testing.assert_array_equal(count_nearer_centres(vectors, centres, pairs[1]), ranks)
