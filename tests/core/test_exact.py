import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.exact import search_exactly
from annspark.core.metric import METRICS, prepare
from annspark.core.nearest_lists import Nearest, empty_lists
from tests.core.worlds import DENSE, all_raw, exact_neighbors

DISTANCES = [metric for metric in DENSE if not METRICS[metric].largest]


def naive_distance(a, b, metric):
    """In Python's own float64 arithmetic, on the vectors as they were before preparation."""
    if metric == "euclidean":
        return math.dist(a, b)
    if metric == "inner_product":
        return -sum(x * y for x, y in zip(a, b, strict=True))
    if metric in ("manhattan", "hamming"):
        return sum(abs(x - y) ** (2 if metric == "hamming" else 1) for x, y in zip(a, b, strict=True))
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def from_scratch(queries, vectors, m, metric):
    return all_met(queries, vectors, m, metric).distances


def all_met(queries, vectors, m, metric):
    return search_exactly(queries, vectors, np.arange(len(vectors)), empty_lists(len(queries), m, np.float32), metric)


def exact_distances(vectors, queries, metric):
    """Every pair of them, in float32."""
    return np.sort(METRICS[metric].from_raw(all_raw(queries, vectors, metric)), axis=1)


@pytest.mark.parametrize("metric", DENSE)
def test_exact_neighbors_equal_naive_float64_loops(metric):
    raw = np.random.default_rng(11).normal(size=(40, 5)).astype(np.float32)
    neighbors, distances = exact_neighbors(prepare(raw, metric), np.arange(40), 6, metric)
    points = raw.tolist()
    for i in range(40):
        naive = sorted((naive_distance(points[i], points[j], metric), j) for j in range(40) if j != i)[:6]
        assert neighbors[i].tolist() == [j for _, j in naive]
        np.testing.assert_allclose(distances[i], [distance for distance, _ in naive], rtol=1e-4)


def test_ties_come_by_row_and_no_row_is_its_own_neighbor():
    neighbors, distances = exact_neighbors(np.ones((5, 3), np.float32), np.array([0, 2, 4]), 3, "euclidean")
    assert neighbors.tolist() == [[1, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert not distances.any()


def test_missing_neighbors_are_minus_one_at_infinity():
    neighbors, distances = exact_neighbors(np.eye(2, dtype=np.float32), np.array([1]), 4, "euclidean")
    assert neighbors.tolist() == [[0, -1, -1, -1]]
    np.testing.assert_array_equal(distances, np.array([[np.sqrt(2), np.inf, np.inf, np.inf]], np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 20), st.sampled_from(DENSE))
def test_distances_are_the_smallest_of_the_exact_ones(seed, n, m, metric):
    rng = np.random.default_rng(seed)
    vectors = prepare(rng.normal(size=(n, 6)), metric)
    queries = prepare(rng.normal(size=(9, 6)), metric)
    wide = (queries.astype(np.float64), vectors.astype(np.float64))
    distances = np.sort(METRICS[metric].from_raw(all_raw(*wide, metric)), axis=1)[:, :m]
    expected = np.full((9, m), np.inf)
    expected[:, : distances.shape[1]] = distances
    np.testing.assert_allclose(from_scratch(queries, vectors, m, metric), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("metric", DENSE)
@pytest.mark.parametrize("order", [1, -1])
def test_batches_with_a_running_best_have_the_bits_of_one_batch(metric, order):
    rng = np.random.default_rng(15)
    vectors = prepare(np.round(rng.normal(size=(3000, 7)), 1), metric)  # rounded: ties
    queries = vectors[rng.permutation(3000)[:300]]
    together = all_met(queries, vectors, 11, metric)
    best = empty_lists(300, 11, np.float32)
    for rows in np.split(np.arange(3000)[::order], [0, 1, 5, 900, 2990]):
        copy = Nearest(best.distances.copy(), best.hashes.copy())
        best, before = search_exactly(queries, vectors[rows], rows, best, metric), best
        assert_same(before, copy)
    assert_same(best, together)
    np.testing.assert_array_equal(together.distances[:, 1:], exact_distances(vectors, queries, metric)[:, 1:11])


def assert_same(one, other):
    for name in ("distances", "hashes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_of_equally_far_vectors_those_with_the_smallest_hashes_are_kept():
    vectors = np.concatenate([np.zeros((1, 2)), np.tile([[0, 1], [1, 0], [0, -1]], (50, 1))]).astype(np.float32)
    found = all_met(vectors[:1], vectors, 8, "euclidean")
    assert found.distances.tolist() == [[0, 1, 1, 1, 1, 1, 1, 1]]
    assert found.hashes.tolist() == [list(range(8))]


@pytest.mark.parametrize("metric", DISTANCES)
def test_leaving_out_one_zero_leaves_out_the_query_itself(metric):
    vectors = prepare(np.random.default_rng(12).normal(size=(500, 12)), metric)
    vectors[100:150] = vectors[3]  # twins
    nearest = from_scratch(vectors[:120], vectors, 11, metric)
    assert not nearest[:, 0].any()
    expected = exact_neighbors(vectors, np.arange(120), 10, metric)[1]
    np.testing.assert_allclose(nearest[:, 1:], expected, rtol=1e-6)


def test_far_from_the_origin_the_radius_is_still_right():
    vectors = (np.random.default_rng(13).normal(size=(600, 8)) + 1e4).astype(np.float32)
    nearest = from_scratch(vectors[:50], vectors, 11, "euclidean")
    expected = exact_neighbors(vectors, np.arange(50), 10, "euclidean")[1]
    np.testing.assert_allclose(nearest[:, 1:], expected, rtol=1e-6)


def test_one_far_outlier_does_not_blur_the_radius_of_the_others():
    vectors = np.random.default_rng(14).normal(size=(600, 8)).astype(np.float32)
    vectors[599] = 1e7
    nearest = from_scratch(vectors[:50], vectors, 11, "euclidean")
    expected = exact_neighbors(vectors, np.arange(50), 10, "euclidean")[1]
    np.testing.assert_allclose(nearest[:, 1:], expected, rtol=1e-6)


@pytest.mark.parametrize("metric", DISTANCES)
def test_nothing_but_twins_are_at_zero(metric):
    twins = prepare(np.full((9000, 4), 0.3, np.float32), metric)
    assert not from_scratch(twins[:30], twins, 11, metric).any()


def test_no_vectors_are_infinitely_far():
    nearest = from_scratch(np.ones((2, 3), np.float32), np.empty((0, 3), np.float32), 4, "cosine")
    np.testing.assert_array_equal(nearest, np.full((2, 4), np.inf))


def test_no_queries_have_no_distances():
    assert from_scratch(np.empty((0, 3), np.float32), np.ones((5, 3), np.float32), 2, "cosine").shape == (0, 2)


def test_the_radius_is_the_last_distance_also_when_it_is_negative():
    vectors = np.random.default_rng(3).normal(size=(200, 4)).astype(np.float32)
    nearest = all_met(vectors[:9], vectors, 5, "inner_product")
    np.testing.assert_array_equal(nearest.radius, nearest.distances.max(axis=1))
    assert (nearest.radius < 0).all()
    assert empty_lists(3, 0).radius.tolist() == [0, 0, 0]
