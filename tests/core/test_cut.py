"""Route, join and merge together, without Spark: how the leaves are cut into partitions must not show."""

from dataclasses import replace

import numpy as np
import pytest

from annspark.core.centre_forest import grow_forest
from annspark.core.copies import route_vectors
from annspark.core.join import join_leaves
from annspark.core.metric import prepare
from annspark.core.packing import EMPTY, merge_lists, pack, unpack
from annspark.core.plan import Workers, plan_join
from annspark.core.routes import visits_of
from tests.core.worlds import compared_pairs, nearest_compared

K = 8


def cut(plan, per_tree):
    """Return the plan with so many partitions for every tree, of about as many leaves each."""
    partitions, made = [], 0
    for n_leaves in np.diff(plan.first_leaf):
        runs = min(per_tree, n_leaves)
        partitions.append(made + np.arange(n_leaves) * runs // n_leaves)
        made += runs
    return replace(plan, partition_of_leaf=np.concatenate(partitions).astype(np.int32), n_partitions=made)


def padded_visits(copies):
    visits = np.full((len(copies.row), max(1, copies.n_visits.max())), -1, np.int32)
    visits[np.arange(visits.shape[1]) < copies.n_visits[:, None]] = copies.visits
    return visits


def build_table(forest, plan, vectors, metric):
    """Return neighbors and distances of all vectors, as the Spark job puts them together."""
    copies = route_vectors(forest, plan, vectors)
    visits = padded_visits(copies)
    owner, keys = [], []
    for partition in range(plan.n_partitions):
        here = np.flatnonzero(copies.partition == partition)
        rows = copies.row[here]
        joined = join_leaves(vectors[rows], copies.home[here], visits_of(visits[here]), K, metric)
        packed = pack(joined.distances, rows[joined.neighbors])
        owner.append(rows)
        keys.append(np.where(joined.neighbors >= 0, packed, EMPTY))
    owners, best = merge_lists(np.concatenate(owner), np.concatenate(keys), K)
    assert owners.tolist() == list(range(len(vectors)))
    distances, neighbors = unpack(best)
    return neighbors, distances


def data(kind):
    rng = np.random.default_rng(42)
    if kind == "normal":
        return rng.normal(size=(900, 6)), "euclidean"
    if kind == "cosine":
        return rng.normal(size=(900, 6)), "cosine"
    if kind == "grid":
        return rng.integers(0, 5, (900, 3)), "euclidean"
    return np.concatenate([np.repeat(rng.normal(size=(3, 6)), 150, axis=0), rng.normal(size=(450, 6))]), "euclidean"


def make(kind, trees=1):
    raw, metric = data(kind)
    vectors = prepare(raw.astype(np.float32), metric)
    forest = grow_forest(vectors, 20, trees=trees, split="two_means", seed=1, metric=metric)
    return forest, plan_join(forest, vectors, 4, rows=len(vectors), workers=Workers(1)), vectors, metric


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("kind", ["normal", "cosine", "grid", "twins"])
def test_the_table_does_not_depend_on_how_leaves_are_cut_into_partitions(kind, trees):
    forest, plan, vectors, metric = make(kind, trees)
    neighbors, distances = build_table(forest, cut(plan, 1), vectors, metric)
    for per_tree in (2, 5, 1000):
        again, distances_again = build_table(forest, cut(plan, per_tree), vectors, metric)
        np.testing.assert_array_equal(distances_again, distances)
        np.testing.assert_array_equal(again, neighbors)


@pytest.mark.parametrize("kind", ["normal", "cosine", "grid", "twins"])
def test_the_table_holds_the_nearest_of_those_met(kind):
    forest, plan, vectors, metric = make(kind)
    copies = route_vectors(forest, cut(plan, 1), vectors)
    compared = compared_pairs(copies.home, padded_visits(copies))
    expected, expected_distances = nearest_compared(vectors, compared, K, metric)
    neighbors, distances = build_table(forest, cut(plan, 3), vectors, metric)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-6)
    np.testing.assert_array_equal(neighbors, expected)


@pytest.mark.parametrize("kind", ["normal", "cosine", "grid", "twins"])
def test_no_vector_is_missing_alone_doubled_or_its_own_neighbor(kind):
    forest, plan, vectors, metric = make(kind, trees=2)
    neighbors, distances = build_table(forest, cut(plan, 5), vectors, metric)
    assert (neighbors >= 0).all()
    assert (neighbors != np.arange(len(vectors))[:, None]).all()
    assert (np.diff(np.sort(neighbors, axis=1), axis=1) > 0).all()
    assert (np.diff(distances, axis=1) >= 0).all()
