import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core import exact_sparse
from annspark.core.best import nobody_met
from annspark.core.distance import measure_for
from annspark.core.exact import meet
from annspark.core.metric import METRICS, prepare
from annspark.core.vectors import take_rows
from tests.core.test_distance import SPARSE


def rows_of(rng, n, dim, metric, each=3, signs=False):
    """Return csr rows of few small numbers, many of them twins; for most metrics some are empty."""
    dense = rng.integers(-2 if signs else 1, 3, (n, dim)) * (rng.random((n, dim)) < each / dim)
    if metric == "cosine":
        dense = dense[(dense != 0).any(axis=1)]
    return prepare(csr_array(dense, dtype=np.float32), metric)


def by_definition(queries, vectors, hashes, m, metric):
    """Return the m nearest by (distance, hash), from the distances of all pairs."""
    i, j = (index.ravel() for index in np.indices((queries.shape[0], vectors.shape[0])))
    raw = measure_for(metric, vectors).exact(queries, i, vectors, j).reshape(queries.shape[0], -1)
    far, who = METRICS[metric].from_raw(raw), np.broadcast_to(hashes, raw.shape)
    order = np.lexsort((who, far), axis=1)[:, :m]
    return np.take_along_axis(far, order, axis=1), np.take_along_axis(who, order, axis=1)


def assert_nearest(found, queries, vectors, hashes, metric):
    m = found.distances.shape[1]
    distances, who = by_definition(queries, vectors, hashes, m, metric)
    n = distances.shape[1]
    np.testing.assert_array_equal(found.distances[:, :n], distances)
    np.testing.assert_array_equal(found.hashes[:, :n], who)
    assert np.isinf(found.distances[:, n:]).all()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.integers(1, 12),
    st.sampled_from([1, 4, 40, 2000]),
    st.sampled_from(SPARSE),
    st.booleans(),
)
def test_the_nearest_by_distance_and_hash_are_those_of_all_pairs(seed, n, m, dim, metric, signs):
    rng = np.random.default_rng(seed)
    vectors = rows_of(rng, n, dim, metric, signs=signs and metric != "jaccard")
    queries = take_rows(vectors, rng.integers(0, vectors.shape[0], 9)) if vectors.shape[0] else vectors
    # Twins beyond the m-th may be any: everybody has a hash of the place, as all have that are asked for.
    hashes = rng.permutation(vectors.shape[0])
    best = nobody_met(queries.shape[0], m)
    for part in np.array_split(rng.permutation(vectors.shape[0]), rng.integers(1, 5)):
        best = meet(queries, take_rows(vectors, part), hashes[part], best, metric)
    assert_nearest(best, queries, vectors, hashes, metric)


@pytest.mark.parametrize("metric", SPARSE)
def test_many_blocks_and_many_merges_change_nothing(metric, monkeypatch):
    monkeypatch.setattr(exact_sparse, "_PRODUCTS", 50)
    monkeypatch.setattr(exact_sparse, "_WAITING", 0)
    rng = np.random.default_rng(1)
    vectors = rows_of(rng, 400, 300, metric)
    hashes = rng.permutation(vectors.shape[0])
    found = meet(vectors, vectors, hashes, nobody_met(vectors.shape[0], 11), metric)
    assert_nearest(found, vectors, vectors, hashes, metric)


def test_of_rows_that_share_nothing_the_lowest_hashes_are_nearest_and_at_exactly_one():
    rng = np.random.default_rng(2)
    vectors = prepare(csr_array((rng.uniform(0.5, 2, 600), np.arange(600), 2 * np.arange(301)), (300, 600)), "cosine")
    hashes = rng.permutation(300)
    found = meet(vectors, vectors, hashes, nobody_met(300, 6), "cosine")
    assert (found.distances[:, 0] == 0).all()
    assert (found.distances[:, 1:] == 1).all()
    assert all(
        mine[1:].tolist() == [h for h in range(6) if h != own][:5]
        for mine, own in zip(found.hashes, hashes, strict=True)
    )


def test_euclidean_neighbors_that_share_nothing_are_the_shortest():
    lengths = np.random.default_rng(3).permutation(np.arange(1, 101)).astype(np.float32)
    vectors = csr_array((lengths, np.arange(100), np.arange(101)), (100, 100))
    found = meet(vectors, vectors, np.arange(100), nobody_met(100, 4), "euclidean")
    for row, mine in enumerate(found.hashes):
        others = [one for one in np.argsort(lengths).tolist() if one != row]
        assert mine.tolist() == [row, *others[:3]]
