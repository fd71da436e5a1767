import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core import exact_sparse
from annspark.core import first_rows as module
from annspark.core.first_rows import count_first_rows, nearest_first_rows, ordering_lengths
from annspark.core.join import join_leaves
from annspark.core.metric import METRICS, prepare
from annspark.core.nearest_lists import empty_lists
from annspark.core.routes import visits_of
from annspark.core.vectors import sparse_rows, take_rows
from tests.core.worlds import exact_neighbors

SPARSE = ("cosine", "euclidean", "inner_product", "jaccard")


def sparse_world(seed, n, metric, columns=12):
    """Return small rows of whole numbers, negative ones too; some without numbers but for cosine."""
    rng = np.random.default_rng(seed)
    dense = rng.integers(-2, 3, (n, columns)) * (rng.random((n, columns)) < 0.2)
    if metric == "cosine":
        dense[:, 0] = np.where((dense == 0).all(axis=1), 1, dense[:, 0])
    found = csr_array(dense.astype(np.float64))
    return prepare(sparse_rows(np.diff(found.indptr), found.indices, found.data, columns), metric)


def nearest_related(rows, k, metric):
    """Return the nearest rows each shares something with, itself among them, as the join measures them."""
    n = rows.shape[0]
    best = exact_sparse.search_related(rows, rows, np.arange(n), empty_lists(n, k, np.float32), metric)
    return np.where(np.isfinite(best.distances), best.hashes, -1), best.distances


def all_pairs(rows, metric):
    """Return the distances of all pairs, measured one by one as the join does: float32 (n, n), nan for a row itself."""
    n = rows.shape[0]
    measure = module.measure_for(metric, rows)
    one, other = (index.ravel() for index in np.indices((n, n)))
    distances = METRICS[metric].from_raw(measure.exact(rows, one, rows, other).astype(np.float32)).reshape(n, n)
    np.fill_diagonal(distances, np.nan)
    return distances


def nearest_by_place(distances, among, k):
    neighbors, nearest = np.full((len(distances), k), -1), np.full((len(distances), k), np.inf, np.float32)
    for i, row in enumerate(distances):
        pairs = sorted((row[j], place) for place, j in enumerate(among) if not np.isnan(row[j]))[:k]
        for at, (distance, place) in enumerate(pairs):
            neighbors[i, at], nearest[i, at] = place, distance
    return neighbors, nearest


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 12), st.sampled_from(SPARSE))
def test_the_nearest_first_rows_come_by_distance_and_place_and_no_row_is_its_own_neighbor(seed, n, k, metric):
    rows = sparse_world(seed, n, metric)
    among = np.sort(np.random.default_rng(seed).permutation(n)[: max(1, n // 3)])
    own = np.full(n, -1)
    own[among] = np.arange(len(among))
    wanted = nearest_by_place(all_pairs(rows, metric), among, k)
    for found, right in zip(nearest_first_rows(rows, take_rows(rows, among), own, k, metric), wanted, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product", "manhattan", "hamming"])
def test_so_are_those_of_dense_rows(metric):
    rows = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    rows = prepare((rows > 0).astype(np.float32) if metric == "hamming" else rows, metric)
    found = nearest_first_rows(rows, rows, np.arange(50), 7, metric)
    for one, right in zip(found, exact_neighbors(rows, np.arange(50), 7, metric), strict=True):
        np.testing.assert_allclose(one, right, rtol=1e-6)


@pytest.mark.parametrize("pairs", [1, 7, 1 << 19])
@pytest.mark.parametrize("metric", SPARSE)
def test_pieces_of_any_size_give_the_same(monkeypatch, metric, pairs):
    rows = sparse_world(3, 70, metric)
    own = np.where(np.arange(70) < 20, np.arange(70), -1)
    whole = nearest_first_rows(rows, take_rows(rows, np.arange(20)), own, 5, metric), nearest_related(rows, 5, metric)
    monkeypatch.setattr(module, "_PAIRS", pairs)
    monkeypatch.setattr(exact_sparse, "_PRODUCTS", pairs)
    again = nearest_first_rows(rows, take_rows(rows, np.arange(20)), own, 5, metric), nearest_related(rows, 5, metric)
    np.testing.assert_equal(again, whole)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(SPARSE))
def test_related_rows_and_first_rows_hold_the_nearest_with_the_distances_of_the_join(seed, n, metric):
    k, rows = 4, sparse_world(seed, n, metric)
    related, near = nearest_related(rows, n, metric)
    distances = all_pairs(rows, metric)
    for i in range(n):
        mine = {int(j): d for j, d in zip(related[i], near[i], strict=True) if j >= 0 and j != i}
        products = rows.toarray().astype(np.float64) @ rows.toarray()[i]
        assert mine.items() <= {j: distances[i, j] for j in range(n) if j != i}.items()
        assert mine.keys() >= {j for j in range(n) if j != i and abs(products[j]) > 1e-9}
    # The join of one leaf finds the same bits, where it is not left out for being unrelated.
    joined = join_leaves(rows, np.zeros(n, np.int32), visits_of(np.full((n, 1), -1, np.int32)), k, metric)
    found = joined.neighbors >= 0
    row = np.nonzero(found)[0]
    np.testing.assert_array_equal(joined.distances[found], distances[row, joined.neighbors[found]])


def test_the_shortest_come_first_under_euclidean_only():
    rows = sparse_world(0, 30, "euclidean")
    np.testing.assert_array_equal(ordering_lengths(rows, "euclidean"), (rows.toarray() ** 2).sum(axis=1))
    for metric in ("cosine", "inner_product", "jaccard"):
        assert not ordering_lengths(rows, metric).any()
    assert not ordering_lengths(np.ones((3, 2), np.float32), "euclidean").any()


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_first_rows_are_more_than_twice_k(k):
    assert 2 * k < count_first_rows(k) <= 200 + 2 * k
