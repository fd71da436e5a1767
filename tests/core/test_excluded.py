"""Excluded pairs: k others are still found, and they are those of a join that leaves the pairs out afterwards."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark.core.exact import search_exactly
from annspark.core.excluded import Excluded, concatenate, excluded_by, pairs_of
from annspark.core.first_rows import nearest_first_rows
from annspark.core.join import join_leaves, join_queries
from annspark.core.metric import prepare
from annspark.core.nearest_lists import empty_lists
from annspark.core.routes import visits_of
from annspark.core.vectors import slice_rows, sparse_rows
from tests import oracle
from tests.helpers import clustered

KINDS = ("clusters", "ties", "sparse")


def make_world(seed, kind, metric, n):
    """Return n rows: well apart, a few distinct ones many times over, or sparse."""
    rng = np.random.default_rng(seed)
    if kind == "clusters":
        return prepare(clustered(n, 8, seed=seed), metric)
    if kind == "ties":
        return prepare(rng.integers(0, 2, (n, 4)).astype(np.float32) + np.float32([1, 0, 0, 0]), metric)
    rows = csr_array((rng.random((n, 30)) < 0.1) * rng.integers(1, 3, (n, 30)) + np.eye(1, 30)).astype(np.float32)
    return prepare(sparse_rows(np.diff(rows.indptr), rows.indices, rows.data, 30), metric)


def some_pairs(rng, n, m, *, times):
    """Return random pairs, one other that all exclude, and one row that excludes most."""
    row, other = rng.integers(0, n, times), rng.integers(0, m, times)
    named, greedy = rng.integers(m), rng.integers(n)
    row = np.concatenate([row, np.arange(n), np.full(m - 3, greedy)])
    return pairs_of(row, np.concatenate([other, np.full(n, named), rng.permutation(m)[3:]]), n, m)


def leaves_of(n, n_leaves, seed, vectors):
    """Return homes that equal rows share, and a visit of each row to the next leaf."""
    dense = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
    weights = np.random.default_rng(seed).normal(size=dense.shape[1])
    home = (np.floor(np.abs(dense @ weights) * 7).astype(np.int64) % n_leaves).astype(np.int32)
    following = (home + 1) % n_leaves
    return home, visits_of(np.where(following != home, following, -1)[:, None].astype(np.int32))


def as_lists(neighbors, distances):
    return [[(d, j) for d, j in zip(*row, strict=True) if j >= 0] for row in zip(distances, neighbors, strict=True)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("seed", "n", "k", "n_leaves"), [(0, 40, 3, 1), (1, 300, 5, 4), (2, 1200, 10, 3), (3, 9, 8, 2)]
)
def test_join_finds_k_others(kind, metric, seed, n, k, n_leaves):
    vectors, rng = make_world(seed, kind, metric, n), np.random.default_rng(seed)
    home, visits = leaves_of(n, n_leaves, seed, vectors)
    pairs = some_pairs(rng, n, n, times=3 * n)
    everybody = as_lists(*vars_of(join_leaves(vectors, home, visits, n, metric)))
    given = as_lists(*vars_of(join_leaves(vectors, home, visits, k, metric, pairs)))
    banned = set(zip(pairs.row.tolist(), pairs.other.tolist(), strict=True))
    assert len(banned) > n
    for row, (all_of_row, list_of_row) in enumerate(zip(everybody, given, strict=True)):
        assert list_of_row == [(d, j) for d, j in all_of_row if (row, j) not in banned][:k]


@pytest.mark.parametrize("kind", KINDS)
def test_queries_get_k_others(kind):
    n, m, k, metric = 500, 200, 6, "cosine"
    both = make_world(5, kind, metric, n + m)
    residents, queries = slice_rows(both, 0, n), slice_rows(both, n, n + m)
    home, _ = leaves_of(n, 3, 5, residents)
    visits = visits_of(np.random.default_rng(5).integers(0, 3, (m, 1)).astype(np.int32))
    pairs = some_pairs(np.random.default_rng(6), m, n, times=4 * m)
    everybody = as_lists(*vars_of(join_queries(residents, home, queries, visits, n, metric)))
    given = as_lists(*vars_of(join_queries(residents, home, queries, visits, k, metric, pairs)))
    banned = set(zip(pairs.row.tolist(), pairs.other.tolist(), strict=True))
    for row, (all_of_row, list_of_row) in enumerate(zip(everybody, given, strict=True)):
        assert list_of_row == [(d, j) for d, j in all_of_row if (row, j) not in banned][:k]


def vars_of(joined):
    return joined.neighbors, joined.distances


@pytest.mark.parametrize("kind", KINDS)
def test_exact_search_finds_m_others(kind):
    n, m, metric = 3000, 7, "cosine"
    vectors = make_world(7, kind, metric, n)
    queries, hashes = slice_rows(vectors, 0, 50), np.random.default_rng(7).permutation(n) - n // 2
    pairs = some_pairs(np.random.default_rng(8), 50, n, times=500)
    lists = search_exactly(queries, vectors, hashes, empty_lists(50, m), metric, pairs)
    far = oracle.between(queries, vectors, metric)
    far[pairs.row, pairs.other] = np.inf
    expected = np.sort(far, axis=1)[:, :m]
    assert np.isinf(expected).any()  # the one that excludes most has fewer
    np.testing.assert_allclose(lists.distances, expected, atol=1e-6)
    place = np.argsort(hashes)[np.searchsorted(np.sort(hashes), lists.hashes)]
    found = np.isfinite(lists.distances)
    assert np.isfinite(far[np.nonzero(found)[0], place[found]]).all()


def test_first_rows_leave_out_excluded_ones():
    rows, first = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[1, 2, 3]]
    neighbors, distances = nearest_first_rows(
        rows, first, np.array([-1, 0, 1, 2]), 2, "cosine", pairs_of(np.array([0, 0, 1]), np.array([0, 1, 2]), 4, 3)
    )
    assert neighbors.tolist() == [[2, -1], [1, -1], [0, 2], [0, 1]]
    assert np.isinf(distances[:2, 1]).all()


def test_pairs_hold_what_they_were_made_of():
    rng = np.random.default_rng(9)
    row, other = rng.integers(0, 20, 60), rng.integers(0, 300, 60)
    pairs = pairs_of(row, other, 20, 300)  # several others have equal last six bits
    there = np.zeros((20, 300), bool)
    there[row, other] = True
    every_row, every_other = (part.ravel() for part in np.indices(there.shape))
    assert (pairs.hold(every_row, every_other) == there.ravel()).all()
    place, of_some = pairs.of_rows(np.array([4, 19, 4]))
    assert sorted(zip(place.tolist(), of_some.tolist(), strict=True)) == [
        (at, int(j)) for at, i in enumerate([4, 19, 4]) for j in np.flatnonzero(there[i])
    ]
    assert not pairs_of(row[:0], other[:0], 20, 300).hold(every_row, every_other).any()


def test_excluded_among_some_rows():
    excluded = concatenate([Excluded(np.int32([2, 0]), np.int64([7, 5])), Excluded(np.int32([3]), np.int64([5, 5, 9]))])
    pairs = excluded.among(np.int64([9, 5, 1]))
    assert (pairs.row.tolist(), pairs.other.tolist()) == ([0, 2, 2], [1, 0, 1])
    assert excluded.take(np.array([2, 1])).hashes.tolist() == [5, 5, 9]
    assert len(excluded.among(np.empty(0, np.int64)).row) == 0


def test_a_digest_is_that_of_a_set():
    named, others = np.array([5, 7, 5, 7, 9, 5, 2]), np.array([-1, 11, 4, -1, 4, 4, 1])
    found = excluded_by(np.array([7, 5, 3, 9]), named, others)  # 2 is no row, and 3 excludes nobody
    assert [sorted(some) for some in np.split(found.hashes, np.cumsum(found.counts)[:-1])] == [
        [-1, 11],
        [-1, 4],
        [],
        [4],
    ]
    again = excluded_by(np.array([7, 5, 3, 9]), named[::-1], others[::-1])
    assert found.digests.tolist() == again.digests.tolist()
    assert len(set(found.digests.tolist())) == 4
    assert found.digests[2] == 0
