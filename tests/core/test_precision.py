"""The audit against float64, on numbers of any size, place and shape; and what a join leaves of such numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core.coordinates import OutOfRange, choose_coordinates
from annspark.core.distance import measure_for
from annspark.core.exact import search_exactly
from annspark.core.join import join_leaves
from annspark.core.metric import METRICS
from annspark.core.nearest_lists import empty_lists
from annspark.core.recall import recall_by_user, sizes_of, tie_limit
from annspark.core.routes import visits_of
from annspark.core.vectors import fits_float32, is_sparse, narrowed, take_rows
from tests.oracle import all_distances

K = 5
METRICS_OF_NUMBERS = ["cosine", "euclidean", "inner_product", "manhattan"]
KINDS = [(metric, False) for metric in METRICS if metric != "jaccard"]
KINDS += [(metric, True) for metric in ("cosine", "euclidean", "inner_product", "jaccard")]


def sparse(dense):
    return csr_array(dense)


def as_input(dense, is_sparse_):
    """Return vectors as reading gives them: float32 where that holds all numbers."""
    return narrowed(sparse(dense) if is_sparse_ else dense)


def true_distances(dense, metric):
    """Return all distances in float64, inf for oneself."""
    distances = all_distances(dense, metric)
    np.fill_diagonal(distances, np.inf)
    return distances


def coordinates_of(vectors, metric):
    numbers = vectors.data if is_sparse(vectors) else vectors
    largest = float(np.abs(numbers).max(initial=0))
    return choose_coordinates(vectors, metric, largest, rounded=not fits_float32(vectors))


def exact_of(vectors, coordinates):
    """Return float64 distances and rows of the exact neighbors of all rows, as the audit has them."""
    n, whole = vectors.shape[0], coordinates.for_exact_search(vectors)
    best = search_exactly(whole, whole, np.arange(n), empty_lists(n, K + 1), coordinates.metric)
    distances = coordinates.in_input_units(np.where(best.hashes == np.arange(n)[:, None], np.inf, best.distances))
    order = np.lexsort((best.hashes, distances), axis=1)[:, :K]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(best.hashes, order, 1)


def needs_double(vectors, coordinates):
    sizes = coordinates.in_input_units(sizes_of(coordinates.for_exact_search(vectors), coordinates.metric))
    noise = tie_limit(np.zeros(len(sizes)), sizes, coordinates.metric, sparse=is_sparse(vectors))
    return coordinates.need_double(vectors, exact_of(vectors, coordinates)[0][:, -1], noise)


def audit(vectors, lists, metric):
    """Return the recall of every user's list of rows: float64 (n,)."""
    coordinates = coordinates_of(vectors, metric)
    whole, n = coordinates.for_exact_search(vectors), vectors.shape[0]
    i, j = np.repeat(np.arange(n), lists.shape[1]), lists.ravel()
    raw = measure_for(metric, whole).exact(whole, i, whole, j)
    found = coordinates.in_input_units(METRICS[metric].from_raw(raw)).reshape(lists.shape)
    radius = exact_of(vectors, coordinates)[0][:, -1]
    sizes = coordinates.in_input_units(sizes_of(whole, metric))
    return recall_by_user(found, tie_limit(radius, sizes, metric, sparse=is_sparse(vectors)), K)


def random_lists(n, seed):
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(np.delete(np.arange(n), i))[:K] for i in range(n)])


def true_recall(dense, lists, metric, relative=1e-9):
    distances = true_distances(dense, metric)
    radius = np.sort(distances, axis=1)[:, K - 1]
    limit = radius + np.abs(radius) * relative
    return (np.take_along_axis(distances, lists, 1) <= limit[:, None]).mean(axis=1)


def world(kind, n, dim, seed):
    """Return float64 (n, dim) of one of the shapes that have fooled an audit."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(size=(n, dim))
    if kind == "positive":
        return np.abs(rng.normal(1, 0.3, (n, dim)))
    if kind == "cone":  # directions that are nearly the same: cosines above 0.9999999
        return rng.normal(size=dim) + 1e-4 * rng.normal(size=(n, dim)) + 3
    if kind == "ties":
        return rng.integers(1, 4, (n, dim)) * 0.1
    if kind == "twins":
        return rng.normal(size=(n // 3 + 1, dim))[rng.integers(0, n // 3 + 1, n)]
    if kind == "clusters":  # tight ones, far from each other
        return 1e3 * rng.normal(size=(4, dim))[rng.integers(0, 4, n)] + 1e-3 * rng.normal(size=(n, dim))
    raise AssertionError(kind)


WORLDS = ["normal", "positive", "cone", "ties", "twins", "clusters"]


def prepared_world(kind, metric, is_sparse_, seed, n=60, dim=7):
    dense = world(kind, n, dim, seed)
    if metric == "hamming" or metric == "jaccard":
        dense = (dense > np.median(dense)).astype(float)
    if is_sparse_:
        dense = np.where(np.random.default_rng(seed + 1).random((n, dim)) < 0.5, dense, 0)
        dense[:, 0] = np.where(np.any(dense, axis=1), dense[:, 0], 1)
    return dense


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.sampled_from(WORLDS), st.booleans())
def test_the_audit_says_of_any_list_what_float64_says(seed, kind, shape, single):
    metric, is_sparse_ = kind
    dense = prepared_world(shape, metric, is_sparse_, seed)
    if single:
        dense = dense.astype(np.float32).astype(np.float64)
    lists = random_lists(len(dense), seed)
    found = audit(as_input(dense, is_sparse_), lists, metric)
    low, high = (true_recall(dense, lists, metric, relative) for relative in (-1e-9, 1e-9))
    near = true_recall(dense, lists, metric, 1e-6)
    # Ties in truth are ties here; what is clearly farther is not.  (Sparse distances come from |x|^2 + |y|^2 - 2 x.y.)
    assert (found >= low - 1e-12).all()
    assert (found <= np.maximum(high, near if is_sparse_ or shape in ("ties", "twins") else high) + 1e-12).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.sampled_from(WORLDS), st.integers(-99, 99))
def test_the_audit_is_the_same_in_any_unit(seed, kind, shape, power):
    metric, is_sparse_ = kind
    if METRICS[metric].binary:
        return
    dense = prepared_world(shape, metric, is_sparse_, seed)
    power = power // 2 if METRICS[metric].largest else power
    lists = random_lists(len(dense), seed)
    before = audit(as_input(dense, is_sparse_), lists, metric)
    after = audit(as_input(np.ldexp(dense, power), is_sparse_), lists, metric)
    np.testing.assert_array_equal(after, before)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31), st.sampled_from(["euclidean", "manhattan"]), st.sampled_from(["normal", "ties", "twins"]),
    st.integers(0, 24),
)  # fmt: skip
def test_the_audit_is_the_same_wherever_the_origin_lies(seed, metric, shape, power):
    # Numbers of 12 bits after the point, moved by 24 before it: float64 holds them, and tells all distances apart.
    dense = np.round(world(shape, 60, 7, seed) * 2**12) / 2**12
    moved = dense + np.random.default_rng(seed).integers(-(2**power), 2**power + 1, 7)
    lists = random_lists(len(dense), seed)
    np.testing.assert_array_equal(audit(moved, lists, metric), audit(narrowed(dense), lists, metric))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(["euclidean", "cosine", "inner_product"]), st.sampled_from(WORLDS))
def test_turning_the_axes_changes_an_audit_by_no_more_than_rounding(seed, metric, shape):
    dense = world(shape, 60, 7, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(7, 7)))[0]
    lists = random_lists(len(dense), seed)
    before, after = audit(dense, lists, metric), audit(dense @ turn, lists, metric)
    if shape not in ("ties", "twins"):
        np.testing.assert_array_equal(after, before)
    # A tie that turning breaks by more than float64 lost at first is none any more.
    assert abs(after.mean() - before.mean()) < 0.05


@pytest.mark.parametrize("metric", METRICS_OF_NUMBERS)
@pytest.mark.parametrize("is_sparse_", [False, True])
@pytest.mark.parametrize("unit", [1e-30, 1e-26, 1e-8, 1.0, 1e8, 1e30])
def test_a_random_table_has_the_recall_of_chance_in_any_unit(metric, is_sparse_, unit):
    if is_sparse_ and metric == "manhattan":
        return
    dense = prepared_world("positive", metric, is_sparse_, 7, n=400, dim=16) * unit
    lists = random_lists(400, 3)
    try:
        found = audit(as_input(dense, is_sparse_), lists, metric)
    except OutOfRange:
        assert metric == "inner_product"
        assert unit in (1e-30, 1e-26, 1e30)
        return
    assert found.mean() == pytest.approx(K / 399, abs=0.01)
    np.testing.assert_allclose(found, true_recall(dense, lists, metric), atol=1e-12)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.sampled_from(WORLDS), st.integers(-99, 99), st.booleans())
def test_a_join_of_all_rows_finds_what_float64_finds(seed, kind, shape, power, moved):
    metric, is_sparse_ = kind
    dense = prepared_world(shape, metric, is_sparse_, seed, n=50)
    if not METRICS[metric].binary:
        dense = np.ldexp(dense, power // 2 if METRICS[metric].largest else power)
        if moved and metric in ("euclidean", "manhattan") and not is_sparse_:
            dense = dense + 1e6 * np.abs(dense).max()
    vectors = as_input(dense, is_sparse_)
    coordinates = coordinates_of(vectors, metric)
    if needs_double(vectors, coordinates):
        coordinates = coordinates.in_double()
    ready, n = coordinates.for_join(vectors), len(dense)
    joined = join_leaves(ready, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), K, metric)
    distances, lists = coordinates.in_input_units(joined.distances), joined.neighbors
    listed = lists >= 0  # sparse rows that share nothing are not compared in a join
    true = true_distances(dense, metric)
    exact = np.take_along_axis(true, lists.clip(min=0), 1)
    radius = np.sort(true, axis=1)[:, K - 1]
    lost = 4 * coordinates.lost_of(vectors)
    if METRICS[metric].unit:
        lost = lost * (np.sqrt(2 * radius) + lost) + 1e-15
    elif is_sparse_ and not METRICS[metric].largest:
        lost = lost + 1e-7 * sizes_of(take_rows(vectors, np.arange(n)), metric)
    if METRICS[metric].largest:
        lost = lost + 1e-6 * np.abs(true[np.isfinite(true)]).max()
    limit = radius + 2e-6 * np.abs(radius) + lost
    assert (exact <= limit[:, None])[listed].all()
    size = np.abs(exact) + 1e5 * lost[:, None]
    np.testing.assert_array_less(np.abs(distances[listed] - exact[listed]), (3e-5 * size + 1e-300)[listed])


def test_projected_coordinates_keep_their_millimetres():
    rng = np.random.default_rng(7)
    scan = np.stack(
        [465e3 + rng.uniform(0, 30, 900), 5428e3 + rng.uniform(0, 30, 900), 110 + rng.uniform(0, 2, 900)], 1
    )
    scan = scan.round(3)
    coordinates = coordinates_of(scan, "euclidean")
    ready = coordinates.for_join(scan)
    assert ready.dtype == np.float32
    np.testing.assert_allclose(ready - ready[0], scan - scan[0], atol=3e-6)


def test_vectors_travel_in_float64_only_where_float32_would_lose_neighbors():
    rng = np.random.default_rng(8)
    spread = rng.normal(size=(200, 8))
    towns = np.concatenate([1e6 * rng.normal(size=8) + 0.01 * rng.normal(size=(100, 8)) for _ in range(2)])
    for vectors, double in ((spread, False), (narrowed(spread.astype(np.float32)), False), (towns, True)):
        coordinates = coordinates_of(vectors, "euclidean")
        assert needs_double(vectors, coordinates) == double


@pytest.mark.parametrize("is_sparse_", [False, True])
def test_multiples_of_a_vector_are_twins_and_no_reason_for_float64(is_sparse_):
    rng = np.random.default_rng(11)
    dense = prepared_world("normal", "cosine", is_sparse_, 5, n=20)
    many = np.repeat(dense, 8, axis=0) * rng.uniform(0.5, 2, (160, 1))
    vectors = as_input(many, is_sparse_)
    coordinates = coordinates_of(vectors, "cosine")
    assert not needs_double(vectors, coordinates)
    twins = np.arange(160).reshape(20, 8)
    lists = np.array([[j for j in twins[i // 8] if j != i][:K] for i in range(160)])
    assert audit(vectors, lists, "cosine").mean() == 1


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_distances_that_no_float_holds_are_refused_with_what_to_do(metric):
    vectors = np.random.default_rng(9).normal(size=(50, 4))
    for unit, power in ((1e-40, "2..13"), (1e-300, "2..99"), (1e-310, "2..10")):
        with pytest.raises(OutOfRange, match=rf"type float, cannot hold. Multiply all vectors by {power}"):
            coordinates_of(vectors * unit, metric)


def test_numbers_that_span_more_than_float32_are_refused():
    vectors = np.random.default_rng(10).normal(size=(50, 4))
    one = vectors.copy()
    one[0, 0] = 1e25
    assert np.isfinite(np.square(coordinates_of(one, "euclidean").for_join(one))).all()
    one[0, 0] = 1e37
    with pytest.raises(OutOfRange, match=r"float32 cannot hold squared distances of both\. Leave the largest out"):
        coordinates_of(one, "euclidean")
