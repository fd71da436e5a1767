"""Queries get the nearest residents of the leaves that they go to, and nothing else, as brute force has them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core import join, join_dense, join_sparse, keeper
from annspark.core.join import join_leaves, join_queries
from annspark.core.metric import METRICS, prepare
from annspark.core.routes import visits_of
from annspark.core.vectors import is_sparse, len_of, take_rows
from tests.core.test_distance import KINDS, SPARSE, sparse
from tests.core.worlds import DENSE, alike, all_raw, nearest_of
from tests.oracle import between


def make(metric, of_rows, n, rng, dim=8, *, few_values=False, kind=np.float32):
    """Return prepared vectors: normal ones, or whole numbers of few values, most of whose distances tie."""
    if of_rows:
        rows = sparse(n, dim, density=0.3, seed=int(rng.integers(2**32)), binary=metric == "jaccard")
        return prepare(rows, metric, kind=kind)
    if metric == "hamming":
        return rng.integers(0, 2, (n, dim)).astype(kind)
    raw = rng.integers(1, 4, (n, dim)) if few_values else rng.normal(size=(n, dim)) + 0.5
    return prepare(raw.astype(kind), metric, kind=kind)


def distances_by_definition(queries, residents, metric):
    """Return float32 (n_queries, n_residents): for dense float32 vectors to the bit where numbers are whole."""
    if is_sparse(residents) or residents.dtype == np.float64:
        return between(queries, residents, metric).astype(np.float32)
    return METRICS[metric].from_raw(all_raw(queries, residents, metric))


def random_leaves(rng, n, n_leaves, width):
    """Return up to width different leaves for each of n queries, then -1."""
    leaves = np.full((n, width), -1, np.int32)
    for own in leaves:
        some = rng.permutation(n_leaves)[: rng.integers(width + 1)]
        own[: len(some)] = some
    return leaves


def goes_to(leaves, home):
    """Return bool (n_queries, n_residents): whether a query goes to the home of a resident."""
    return (leaves[:, :, None] == home).any(axis=1)


def assert_nearest_residents(joined, residents, home, queries, leaves, k, metric):
    """Assert the k nearest by (distance, row) of the residents of the leaves that each query goes to."""
    distances = distances_by_definition(queries, residents, metric)
    compared = goes_to(leaves, home)
    if is_sparse(residents):
        compared = compared & (distances < METRICS[metric].unrelated)
    neighbors, nearest = nearest_of(distances, compared, k)
    assert joined.neighbors.shape == joined.distances.shape == (len_of(queries), k)
    assert joined.distances.dtype == np.float32
    np.testing.assert_allclose(joined.distances, nearest, rtol=3e-6, atol=3e-7)
    np.testing.assert_array_equal(joined.neighbors >= 0, neighbors >= 0)
    differ = np.argwhere(joined.neighbors != neighbors)
    for query, rank in differ:  # only where two distances are the same but for rounding
        here = distances[query, [joined.neighbors[query, rank], neighbors[query, rank]]]
        assert compared[query, joined.neighbors[query, rank]]
        np.testing.assert_allclose(here[0], here[1], rtol=3e-6, atol=3e-7)
    for row in joined.neighbors:
        listed = row[row >= 0]
        assert len(np.unique(listed)) == len(listed)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 150),
    st.integers(0, 60),
    st.integers(1, 7),
    st.integers(1, 12),
    st.sampled_from(KINDS),
    st.booleans(),
)
def test_a_query_gets_the_nearest_residents_of_the_leaves_it_goes_to(seed, n, m, n_leaves, k, kind, few_values):
    (metric, of_rows), rng = kind, np.random.default_rng(seed)
    dim = int(rng.integers(1, 12))
    residents, queries = (make(metric, of_rows, count, rng, dim, few_values=few_values) for count in (n, m))
    home = rng.integers(0, n_leaves, n).astype(np.int32)
    dense = residents.toarray() if of_rows else residents
    if n:
        home, _ = alike(dense, home, home[:, None])
    leaves = random_leaves(rng, m, n_leaves + 1, 4)  # some go to a leaf where nobody is at home
    joined = join_queries(residents, home, queries, visits_of(leaves), k, metric)
    assert_nearest_residents(joined, residents, home, queries, leaves, k, metric)
    assert joined.max_rows == np.bincount(home).max(initial=0)
    # Of many twins only some are compared.
    assert joined.pairs <= goes_to(leaves, home).sum()


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
def test_ties_go_to_the_first_residents_to_the_bit(metric, of_rows):
    rng = np.random.default_rng(3)
    few = make(metric, of_rows, 6, rng, few_values=True)
    residents, queries = (take_rows(few, rng.integers(0, 6, count)) for count in (240, 90))
    home = np.zeros(240, np.int32)
    joined = join_queries(residents, home, queries, visits_of(np.zeros((90, 1), np.int32)), 5, metric)
    distances = distances_by_definition(queries, residents, metric)
    for query in range(90):
        listed, told = joined.neighbors[query], joined.distances[query]
        exists = listed >= 0
        assert (np.diff(told[exists]) >= 0).all()
        for value in np.unique(told[exists]):
            tied = np.flatnonzero(np.abs(distances[query] - value) <= 1e-5)
            mine = listed[exists & (told == value)]
            np.testing.assert_array_equal(mine, tied[: len(mine)])


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
def test_a_query_equal_to_a_resident_finds_it(metric, of_rows):
    rng = np.random.default_rng(4)
    residents = make(metric, of_rows, 80, rng, 24)
    home = np.arange(80, dtype=np.int32) % 3
    dense = residents.toarray() if of_rows else residents
    home, _ = alike(dense, home, home[:, None])
    joined = join_queries(residents, home, residents, visits_of(home[:, None]), 4, metric)
    assert_nearest_residents(joined, residents, home, residents, home[:, None], 4, metric)
    if metric != "inner_product":  # by which longer rows may be nearer
        np.testing.assert_allclose(joined.distances[:, 0], 0, atol=1e-7)
        np.testing.assert_array_equal(dense[joined.neighbors[:, 0]], dense)


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
@pytest.mark.parametrize("k", [1, 9, 40])
def test_twins_among_residents_and_queries(metric, of_rows, k):
    rng = np.random.default_rng(5)
    few, others = make(metric, of_rows, 2, rng), make(metric, of_rows, 50, rng)
    stacked = [few.toarray(), others.toarray()] if of_rows else [few, others]
    together = np.concatenate([np.repeat(stacked[0], 100, axis=0), stacked[1]])
    order = rng.permutation(len(together))
    home = np.concatenate([np.repeat([0, 1], 100), rng.integers(0, 2, 50)]).astype(np.int32)[order]
    residents = together[order]
    home, _ = alike(residents, home, home[:, None])
    queries = np.repeat(together[[0, 100, 200, 210]], 20, axis=0)
    if of_rows:
        residents, queries = (csr_array(part) for part in (residents, queries))
    leaves = np.tile(np.array([[0, 1], [1, -1], [0, -1], [1, 0]], np.int32), (20, 1))
    joined = join_queries(residents, home, queries, visits_of(leaves), k, metric)
    assert_nearest_residents(joined, residents, home, queries, leaves, k, metric)


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
@pytest.mark.parametrize("k", [30, 31, 100])
def test_k_above_the_residents_lists_them_all(metric, of_rows, k):
    rng = np.random.default_rng(6)
    residents, queries = make(metric, of_rows, 30, rng), make(metric, of_rows, 7, rng)
    home, leaves = np.repeat([2, 5], 15).astype(np.int32), np.tile(np.array([[2, 5]], np.int32), (7, 1))
    joined = join_queries(residents, home, queries, visits_of(leaves), k, metric)
    assert_nearest_residents(joined, residents, home, queries, leaves, k, metric)
    if not of_rows or metric == "euclidean":
        assert (np.sort(joined.neighbors, axis=1)[:, k - 30 :] == np.arange(30)).all()


@pytest.mark.parametrize("metric", [metric for metric in DENSE if metric not in ("hamming", "inner_product")])
def test_float64_keeps_apart_what_float32_does_not(metric):
    rng = np.random.default_rng(7)
    middle = rng.normal(size=(1, 6))
    residents, queries = (prepare(middle + 1e-9 * rng.normal(size=(n, 6)), metric, kind=np.float64) for n in (120, 30))
    assert len(np.unique(residents.astype(np.float32), axis=0)) < 60
    home, leaves = np.arange(120, dtype=np.int32) % 2, np.zeros((30, 1), np.int32)
    joined = join_queries(residents, home, queries, visits_of(leaves), 5, metric)
    wanted = between(queries, residents[home == 0], metric)
    np.testing.assert_array_equal(joined.neighbors, 2 * np.argsort(wanted, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(joined.distances, np.sort(wanted, axis=1)[:, :5], rtol=1e-5)


@pytest.mark.parametrize(("metric", "of_rows"), [kind for kind in KINDS if not METRICS[kind[0]].unit])
def test_float64_and_float32_of_whole_numbers_give_the_same_bits(metric, of_rows):
    rng, found = np.random.default_rng(8), []
    residents, queries = (make(metric, of_rows, n, rng, few_values=True) for n in (100, 40))
    home, leaves = (rng.integers(0, 3, 100)).astype(np.int32), random_leaves(rng, 40, 3, 3)
    dense = residents.toarray() if of_rows else residents
    home, _ = alike(dense, home, home[:, None])
    for kind in (np.float32, np.float64):
        joined = join_queries(residents.astype(kind), home, queries.astype(kind), visits_of(leaves), 6, metric)
        found.append((joined.neighbors, joined.distances))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_a_partition_without_residents_or_without_queries(metric, of_rows, n, m):
    rng = np.random.default_rng(0)
    residents, queries = make(metric, of_rows, n or 1, rng), make(metric, of_rows, m or 1, rng)
    residents, queries = take_rows(residents, np.arange(n)), take_rows(queries, np.arange(m))
    leaves = visits_of(np.tile(np.array([[0, 1]], np.int32), (m, 1)))
    joined = join_queries(residents, np.zeros(n, np.int32), queries, leaves, 3, metric)
    assert joined.neighbors.shape == (m, 3)
    assert (joined.neighbors == -1).all()
    assert np.isinf(joined.distances).all()
    assert (joined.pairs, joined.max_rows) == (0, n)


def test_queries_that_go_nowhere_and_leaves_nobody_goes_to_cost_nothing():
    rng = np.random.default_rng(0)
    residents, queries = (rng.normal(size=(n, 4)).astype(np.float32) for n in (90, 3))
    home = np.repeat([0, 1, 2], 30).astype(np.int32)
    leaves = np.array([[-1, -1], [1, -1], [1, 7]], np.int32)
    joined = join_queries(residents, home, queries, visits_of(leaves), 4, "euclidean")
    assert joined.pairs == 60
    assert (joined.neighbors[0] == -1).all()
    assert ((joined.neighbors[1:] >= 30) & (joined.neighbors[1:] < 60)).all()


def test_residents_are_not_compared_with_each_other_nor_queries_with_queries():
    rng = np.random.default_rng(0)
    residents, queries = (rng.normal(size=(n, 4)).astype(np.float32) for n in (50, 20))
    joined = join_queries(
        residents, np.zeros(50, np.int32), queries, visits_of(np.zeros((20, 1), np.int32)), 3, "cosine"
    )
    assert joined.pairs == 50 * 20
    assert joined.neighbors.max() < 50


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
def test_a_query_gets_what_it_would_get_as_a_guest_of_the_join(metric, of_rows):
    rng = np.random.default_rng(9)
    together = make(metric, of_rows, 200, rng, 20)
    leaves = random_leaves(rng, 60, 5, 3)
    home = np.append(rng.integers(0, 5, 140), np.full(60, -1)).astype(np.int32)
    dense = together.toarray() if of_rows else together
    all_leaves = np.concatenate([np.full((140, 3), -1, np.int32), leaves])
    _, first = np.unique(dense, axis=0, return_index=True)
    kept = np.sort(first)  # of equal rows the join takes one for all
    together, home, all_leaves = take_rows(together, kept), home[kept], all_leaves[kept]
    n = int((home >= 0).sum())
    joined = join_leaves(together, home, visits_of(all_leaves), 6, metric)
    residents, queries = take_rows(together, np.arange(n)), take_rows(together, np.arange(n, len(kept)))
    asked = join_queries(residents, home[:n], queries, visits_of(all_leaves[n:]), 6, metric)
    np.testing.assert_array_equal(asked.neighbors, joined.neighbors[n:])
    np.testing.assert_array_equal(asked.distances, joined.distances[n:])


@pytest.mark.parametrize(("fold_rows", "tile"), [(7, 1), (33, 64), (50, 1000), (8192, 600)])
@pytest.mark.parametrize("few_values", [False, True])
def test_leaves_larger_than_a_fold_or_a_tile(monkeypatch, fold_rows, tile, few_values):
    monkeypatch.setattr(keeper, "_FOLD_ROWS", fold_rows)
    monkeypatch.setattr(join_dense, "_TILE", tile)
    rng = np.random.default_rng(5)
    residents, queries = (make("euclidean", False, n, rng, 4, few_values=few_values) for n in (200, 90))
    home = np.repeat([0, 1, 2], [140, 50, 10]).astype(np.int32)
    home, _ = alike(residents, home, home[:, None])
    leaves = random_leaves(rng, 90, 3, 3)
    joined = join_queries(residents, home, queries, visits_of(leaves), 6, "euclidean")
    assert_nearest_residents(joined, residents, home, queries, leaves, 6, "euclidean")


@pytest.mark.parametrize("metric", SPARSE)
def test_sparse_leaves_in_many_products(monkeypatch, metric):
    rng = np.random.default_rng(6)
    residents, queries = (make(metric, True, n, rng, 40) for n in (150, 60))
    home, leaves = rng.integers(0, 9, 150).astype(np.int32), random_leaves(rng, 60, 9, 4)
    home, _ = alike(residents.toarray(), home, home[:, None])
    whole = join_queries(residents, home, queries, visits_of(leaves), 5, metric)
    for name, few in (("_PAIRS", 40), ("_COLUMNS", 100), ("_NUMBERS", 40), ("_LEAVES", 2)):
        monkeypatch.setattr(join_sparse, name, few)
    again = join_queries(residents, home, queries, visits_of(leaves), 5, metric)
    np.testing.assert_array_equal(again.neighbors, whole.neighbors)
    np.testing.assert_array_equal(again.distances, whole.distances)
    assert_nearest_residents(whole, residents, home, queries, leaves, 5, metric)


@pytest.mark.parametrize("of_rows", [False, True])
def test_which_queries_share_a_partition_changes_no_bit(of_rows):
    rng = np.random.default_rng(10)
    residents, queries = (make("cosine", of_rows, n, rng, 16) for n in (150, 60))
    home, leaves = rng.integers(0, 4, 150).astype(np.int32), random_leaves(rng, 60, 4, 3)
    home, _ = alike(residents.toarray() if of_rows else residents, home, home[:, None])
    whole = join_queries(residents, home, queries, visits_of(leaves), 5, "cosine")
    for some in np.array_split(rng.permutation(60), 4):
        part = join_queries(residents, home, take_rows(queries, some), visits_of(leaves[some]), 5, "cosine")
        np.testing.assert_array_equal(part.neighbors, whole.neighbors[some])
        np.testing.assert_array_equal(part.distances, whole.distances[some])


def test_empty_sets_are_near_to_each_other_and_to_nothing_else():
    sets = csr_array(np.array([[0, 0], [1, 0], [0, 0], [1, 1]], np.float32))
    joined = join_queries(sets, np.zeros(4, np.int32), sets, visits_of(np.zeros((4, 1), np.int32)), 3, "jaccard")
    assert joined.neighbors.tolist() == [[0, 2, -1], [1, 3, -1], [0, 2, -1], [3, 1, -1]]


def test_too_many_rows_for_the_packing_are_refused(monkeypatch):
    monkeypatch.setattr(join, "MAX_ROWS", 10)
    few = np.ones((6, 2), np.float32)
    with pytest.raises(ValueError, match="12 rows in one partition"):
        join_queries(few, np.zeros(6, np.int32), few, visits_of(np.zeros((6, 1), np.int32)), 2, "euclidean")
