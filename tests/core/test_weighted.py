import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark.core.weighted import WEIGHABLE, most_index, weigh
from tests.oracle import between

WEIGHTS = [0.7, 3.0, 1e-3]


def similarities(parts, weights, metric):
    """Return the weighted sums of the similarities of all pairs of rows, for cosine the weighted means."""
    each = [-between(part, part, metric) if metric == "inner_product" else 1 - between(part, part, metric)
            for part in parts]  # fmt: skip
    total = sum(weight * one for weight, one in zip(weights, each, strict=True))
    return total / sum(weights) if metric == "cosine" else total


def of_one(vectors, metric):
    return similarities([vectors], [1.0], metric)


@pytest.mark.parametrize("metric", WEIGHABLE)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_dense_parts_have_the_weighted_sum_of_their_similarities(metric, kind):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, size, (40, dim)).astype(kind) for dim, size in ((7, 1.0), (1, 30.0), (4, 1e-3))]
    before = [part.copy() for part in parts]
    made = weigh(parts, WEIGHTS, metric)
    assert (made.dtype, made.shape) == (np.float64, (40, 12))
    np.testing.assert_allclose(of_one(made, metric), similarities(parts, WEIGHTS, metric), rtol=1e-12, atol=1e-12)
    for part, unchanged in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, unchanged)


@pytest.mark.parametrize("metric", WEIGHABLE)
def test_sparse_parts_of_any_widths_have_the_weighted_sum_of_their_similarities(metric):
    rng = np.random.default_rng(1)
    dense = [rng.normal(size=(40, dim)) * (rng.random((40, dim)) < 0.3) for dim in (9, 4, 30)]
    for part in dense:
        part[np.arange(40), rng.integers(0, part.shape[1], 40)] = 1  # no row is all zeros
    made = weigh([csr_array(part) for part in dense], WEIGHTS, metric)
    assert made.shape == (40, 90)
    assert made.has_sorted_indices
    np.testing.assert_allclose(of_one(made, metric), similarities(dense, WEIGHTS, metric), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(made[:, [1]].toarray() != 0, dense[1][:, :1] != 0)  # column 0 of part 1


def test_sparse_rows_without_numbers_stay_without():
    parts = [csr_array(np.array([[0.0, 0], [2, 0]])), csr_array(np.array([[0.0], [0]]))]
    np.testing.assert_array_equal(weigh(parts, [4, 1], "inner_product").toarray(), [[0, 0, 0, 0], [4, 0, 0, 0]])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 1000])
def test_the_largest_column_of_every_part_fits(n):
    most = most_index(n)
    parts = [csr_array((np.ones(1), np.array([most], np.int32), np.array([0, 1])), shape=(1, most + 1))] * n
    made = weigh(parts, [1] * n, "cosine")
    assert made.indices.tolist() == [most * n + i for i in range(n)]
    assert made.shape[1] <= 2**31 - 1 < made.shape[1] + n
