import numpy as np
import pytest

from annspark.core.half import from_half, to_half


def rounded(vectors):
    return from_half(to_half(vectors))


@pytest.mark.parametrize("largest", [1e-40, 1e-30, 1e-5, 1.0, 1e5, 1e30, 1e38])
def test_vectors_of_any_magnitude_keep_three_digits_of_every_number(largest):
    vectors = np.random.default_rng(0).uniform(0.01, 1, (200, 7)).astype(np.float32) * np.float32(largest)
    vectors[:, ::2] *= -1
    # float32 itself has few digits left at 1e-40.
    np.testing.assert_allclose(rounded(vectors), vectors, rtol=2**-11, atol=1e-45)


def test_vectors_of_different_magnitudes_share_no_scale():
    vectors = np.array([[1e-20, 2e-20], [3e20, 1e20], [0, 0], [5, -7]], np.float32)
    np.testing.assert_allclose(rounded(vectors), vectors, rtol=2**-11)


def test_bits_bytes_and_halves_survive_whole():
    rng = np.random.default_rng(0)
    for vectors in (
        rng.integers(0, 2, (50, 9)),
        rng.integers(-255, 256, (50, 9)),
        rng.normal(0, 1, (50, 9)).astype(np.float16),
    ):
        assert (rounded(vectors.astype(np.float32)) == vectors).all()


def test_a_number_just_below_a_power_of_two_rounds_up_to_it():
    vectors = np.nextafter(np.float32([[1, 0.25]]), np.float32(0))
    assert rounded(vectors).tolist() == [[1, 0.25]]


def test_no_vectors_and_vectors_without_numbers():
    assert rounded(np.empty((0, 4), np.float32)).shape == (0, 4)
    assert rounded(np.empty((3, 0), np.float32)).shape == (3, 0)
