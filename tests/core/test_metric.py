import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.metric import METRICS, prepare

DENSE = [metric for metric in METRICS if metric != "jaccard"]


def squared_distance(a, b):
    difference = a.astype(np.float32) - b.astype(np.float32)
    return np.einsum("ij,ij->i", difference, difference)


def cosine_distance(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1 - (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def test_euclidean_leaves_vectors_as_they_are():
    vectors = np.random.default_rng(0).normal(size=(5, 3))
    prepared = prepare(vectors, "euclidean")
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, vectors.astype(np.float32))


def test_cosine_gives_unit_length():
    prepared = prepare(np.random.default_rng(1).normal(size=(200, 50)), "cosine")
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(prepared.astype(np.float64), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", ["huge", "tiny"])
def test_cosine_of_huge_and_tiny_vectors_neither_overflows_nor_vanishes(dtype, size):
    limits = np.finfo(dtype)
    scale = limits.max / 8 if size == "huge" else limits.smallest_normal * 8
    directions = np.random.default_rng(2).uniform(-1, 1, size=(20, 6))
    prepared = prepare((directions * scale).astype(dtype), "cosine")
    np.testing.assert_allclose(prepared, prepare(directions, "cosine"), atol=1e-6)


def test_a_subnormal_vector_keeps_its_direction():
    smallest = np.finfo(np.float64).smallest_subnormal
    np.testing.assert_array_equal(prepare(np.array([[0, smallest], [-smallest, 0]]), "cosine"), [[0, 1], [-1, 0]])


@pytest.mark.parametrize("metric", DENSE)
def test_an_all_zero_vector_stays_zero(metric):
    np.testing.assert_array_equal(prepare(np.array([[0.0, -0.0, 0.0]]), metric), [[0, 0, 0]])


@pytest.mark.parametrize("metric", DENSE)
def test_no_rows_give_no_rows(metric):
    assert prepare(np.empty((0, 4)), metric).shape == (0, 4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 100), st.floats(-30, 30))
def test_cosine_distances_agree_with_float64(seed, dim, exponent):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(30, dim)) * 10**exponent, rng.normal(size=(30, dim))
    b[:10] = a[:10] + 1e-2 * np.abs(a[:10]) * rng.normal(size=(10, dim))  # close pairs too
    distance = METRICS["cosine"].from_raw(squared_distance(prepare(a, "cosine"), prepare(b, "cosine")))
    assert distance.dtype == np.float32
    np.testing.assert_allclose(distance, cosine_distance(a, b), rtol=1e-4, atol=1e-7)


def test_known_distances():
    a = np.array([[1, 0], [1, 0], [1, 0], [3, 4]], np.float32)
    b = np.array([[5, 0], [0, 2], [-9, 0], [0, 0]], np.float32)
    cosine = METRICS["cosine"].from_raw(squared_distance(prepare(a[:3], "cosine"), prepare(b[:3], "cosine")))
    np.testing.assert_allclose(cosine, [0, 1, 2], atol=1e-6)
    np.testing.assert_array_equal(
        METRICS["euclidean"].from_raw(squared_distance(a, b)), [4, np.sqrt(np.float32(5)), 10, 5]
    )


@pytest.mark.parametrize("metric", METRICS)
def test_inf_stays_inf(metric):
    distance = METRICS[metric].from_raw(np.array([np.inf, 0], np.float32))
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(distance, [np.inf, 0])
