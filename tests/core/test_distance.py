import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core import join_sparse
from annspark.core.distance import SparseProducts, kernel_for, looseness, measure_for
from annspark.core.join import join_leaves
from annspark.core.metric import METRICS, prepare
from annspark.core.routes import visits_of
from annspark.core.vectors import squared_lengths, surplus_twins, take_rows
from tests.core.worlds import DENSE, alike, compared_pairs, nearest_of, random_visits
from tests.oracle import all_distances

SPARSE = [metric for metric, facts in METRICS.items() if facts.sparse]
KINDS = [*((metric, False) for metric in DENSE), *((metric, True) for metric in SPARSE)]


def sparse(n, dim=30, density=0.2, seed=0, binary=False):
    """Return csr rows of few small numbers, many of which tie; none is empty."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 4, (n, dim)) * (rng.random((n, dim)) < density)
    dense[np.arange(n), rng.integers(dim, size=n)] = 1
    return csr_array(np.minimum(dense, 1) if binary else dense, dtype=np.float32)


def make(metric, is_sparse, n, seed, dim=12):
    if is_sparse:
        return prepare(sparse(n, dim, seed=seed, binary=metric == "jaccard"), metric)
    rng = np.random.default_rng(seed)
    if metric == "hamming":
        return rng.integers(0, 2, (n, dim)).astype(np.float32)
    return prepare(rng.normal(size=(n, dim)).astype(np.float32) + 3, metric)


@pytest.mark.parametrize(("metric", "is_sparse"), KINDS)
def test_exact_distances_are_those_of_scipy_from_either_side(metric, is_sparse):
    vectors = make(metric, is_sparse, 60, 1)
    i, j = (index.ravel() for index in np.indices((60, 60)))
    kernel = measure_for(metric, vectors)
    raw = kernel.exact(vectors, i, vectors, j)
    assert raw.dtype == (np.float64 if is_sparse else np.float32)
    np.testing.assert_array_equal(raw, kernel.exact(vectors, j, vectors, i))
    wanted = all_distances(vectors, metric).ravel()
    # The square root magnifies what float32 leaves of 0.
    np.testing.assert_allclose(METRICS[metric].from_raw(raw), wanted, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("metric", DENSE)
@pytest.mark.parametrize("less", [0, 0.5])
def test_a_tile_bounds_the_distances_from_below_and_not_loosely(metric, less):
    vectors = make(metric, False, 90, 2)
    kernel = kernel_for(metric, vectors.shape[1])
    centre = np.median(vectors, axis=0) if METRICS[metric].moves else None
    left = kernel.side(vectors, np.arange(50), centre)
    right = kernel.facing(kernel.side(vectors, np.arange(50, 90), centre))
    gap = looseness(left, right)
    bounds = kernel.tile(left, right, np.full(50, less, np.float32), 0, np.empty(50 * 40, np.float32)) + less
    i, j = (index.ravel() for index in np.indices((50, 40)))
    raw = kernel.exact(vectors, i, vectors, j + 50).reshape(50, 40)
    assert (bounds <= raw + 1e-6 * less).all()
    assert (raw <= bounds + gap[:, None] + 1e-6 * less).all()


def test_a_metric_without_a_kernel_for_such_vectors_is_refused():
    dense, rows = np.ones((2, 3), np.float32), sparse(2)
    for metric in METRICS:
        for vectors, has_one in ((dense, metric in DENSE), (rows, metric in SPARSE)):
            if has_one:
                assert measure_for(metric, vectors)
            else:
                with pytest.raises(ValueError, match=f"'{metric}' has no kernel for"):
                    measure_for(metric, vectors)
    with pytest.raises(ValueError, match="'chebyshev' has no kernel for dense vectors"):
        measure_for("chebyshev", dense)


@pytest.mark.parametrize("metric", [metric for metric in DENSE if METRICS[metric].scales])
def test_distances_move_and_scale_as_the_record_has_it(metric):
    facts, vectors = METRICS[metric], make(metric, False, 30, 2).astype(np.float64)
    i, j = (index.ravel() for index in np.indices((30, 30)))

    def distances(some):
        return facts.from_raw(measure_for(metric, some).exact(some, i, some, j))

    np.testing.assert_allclose(distances(4 * vectors), distances(vectors) * 4.0**facts.scales)
    assert np.allclose(distances(vectors - vectors[0]), distances(vectors)) == facts.moves


@pytest.mark.parametrize("metric", SPARSE)
def test_no_product_of_rows_within_a_raw_distance_is_below_the_least(metric):
    vectors = make(metric, True, 60, 5)
    i, j = (index.ravel() for index in np.indices((60, 60)))
    products, lengths = (vectors @ vectors.T).toarray().ravel().astype(np.float64), squared_lengths(vectors)
    measure = SparseProducts(metric)
    raw = measure.from_products(lengths[i], lengths[j], products).astype(np.float64)
    assert (products >= measure.least_product(lengths[i], raw)).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.integers(1, 12), st.integers(1, 8), st.sampled_from(KINDS))
def test_any_leaves_and_visits_give_the_nearest_of_those_met(seed, n, k, n_leaves, kind):
    metric, is_sparse = kind
    rng = np.random.default_rng(seed)
    vectors = make(metric, is_sparse, n, seed, dim=int(rng.integers(1, 20)))
    dense = vectors.toarray() if is_sparse else vectors
    home = rng.integers(-1, n_leaves, n).astype(np.int32)
    home, visits = alike(dense, home, random_visits(rng, home, n_leaves, 3))
    joined = join_leaves(vectors, home, visits_of(visits), k, metric)
    i, j = (index.ravel() for index in np.indices((n, n)))
    raw = measure_for(metric, vectors).exact(vectors, i, vectors, j).reshape(n, n)
    distance = METRICS[metric].from_raw(raw)
    # Sparse rows that share nothing do not count as compared, where they are all equally far.
    compared = compared_pairs(home, visits) & ((distance < METRICS[metric].unrelated) if is_sparse else True)
    expected, distances = nearest_of(distance, compared, k)
    # Who has k twins of lower rank gets them at home, and nothing elsewhere.
    surplus = np.isin(np.arange(n), surplus_twins(vectors, k)[0]) & (home < 0) & (not METRICS[metric].largest)
    assert np.isinf(joined.distances[surplus]).all()
    np.testing.assert_array_equal(joined.distances[~surplus], distances[~surplus])
    np.testing.assert_array_equal(joined.neighbors[~surplus], expected[~surplus])


@pytest.mark.parametrize(("metric", "is_sparse"), KINDS)
def test_many_twins_in_one_leaf_get_the_first_of_their_nearest(metric, is_sparse):
    few = make(metric, is_sparse, 5, 3)
    vectors = take_rows(few, np.random.default_rng(0).integers(0, 5, 400))
    n, k = 400, 7
    joined = join_leaves(vectors, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), k, metric)
    i, j = (index.ravel() for index in np.indices((n, n)))
    raw = measure_for(metric, vectors).exact(vectors, i, vectors, j).reshape(n, n)
    expected, distances = nearest_of(METRICS[metric].from_raw(raw), ~np.eye(n, dtype=bool), k)
    np.testing.assert_array_equal(joined.neighbors, expected)
    np.testing.assert_array_equal(joined.distances, distances)


@pytest.mark.parametrize("metric", SPARSE)
def test_rows_without_a_number_are_rows_like_others(metric):
    vectors = sparse(30)
    vectors = csr_array(vectors.toarray() * (np.arange(30) % 3 > 0)[:, None])
    if metric == "cosine":
        return  # has no direction for them: they are not let in
    joined = join_leaves(
        prepare(vectors, metric), np.zeros(30, np.int32), visits_of(np.full((30, 1), -1, np.int32)), 5, metric
    )
    distance = all_distances(prepare(vectors, metric), metric) + np.diag(np.full(30, np.inf))
    wanted = np.sort(np.where(distance < METRICS[metric].unrelated, distance, np.inf), axis=1)[:, :5]
    np.testing.assert_allclose(joined.distances, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(joined.neighbors < 0, np.isinf(wanted))
    # Sets without members are each other's twins.
    assert metric != "jaccard" or not joined.distances[::3].any()


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_a_crowded_leaf_of_one_column_is_cut_and_still_gives_the_nearest(metric, monkeypatch):
    monkeypatch.setattr(join_sparse, "CROWDED", 100)
    monkeypatch.setattr(join_sparse, "_PART", 40)
    n, k = 600, 5
    vectors = csr_array(np.random.default_rng(0).uniform(1, 2, (n, 1)).astype(np.float32))
    joined = join_leaves(vectors, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), k, metric)
    whole = np.sort(all_distances(vectors, metric) + np.diag(np.full(n, np.inf)), axis=1)
    np.testing.assert_allclose(joined.distances, whole[:, :k], rtol=1e-4, atol=1e-6)
    assert joined.pairs <= n * 3 * 40


def test_leaves_of_very_many_columns_are_taken_a_few_at_a_time(monkeypatch):
    vectors = prepare(sparse(300, 200, 0.05), "cosine")
    home = np.random.default_rng(0).integers(0, 20, 300).astype(np.int32)
    visits = ((home[:, None] + [[1, 5]]) % 20).astype(np.int32)
    whole = join_leaves(vectors, home, visits_of(visits), 5, "cosine")
    monkeypatch.setattr(join_sparse, "_COLUMNS", 300)
    monkeypatch.setattr(join_sparse, "_NUMBERS", 40)
    parts = join_leaves(vectors, home, visits_of(visits), 5, "cosine")
    np.testing.assert_array_equal(parts.neighbors, whole.neighbors)
    np.testing.assert_array_equal(parts.distances, whole.distances)
