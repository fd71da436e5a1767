import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.centre_forest import SPLITS, grow_forest
from annspark.core.nearest import nearest_centres


def grow(sample, n_leaves, *, trees=1, split="two_means", seed=0, metric="euclidean"):
    return grow_forest(sample, n_leaves, trees=trees, split=split, seed=seed, metric=metric)


def normal(n, dim=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def assert_same_centres(one, other):
    assert one.dtype == other.dtype == np.float32
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n_leaves", [2, 20, 100])
def test_a_tree_has_about_as_many_leaves_as_wanted(split, n_leaves):
    (centres,) = grow(normal(4000), n_leaves, split=split).trees
    assert centres.shape[1] == 8
    assert 0.6 * n_leaves <= len(centres) <= 1.6 * n_leaves


@pytest.mark.parametrize("split", SPLITS)
def test_leaves_hold_about_the_same(split):
    sample = normal(4000)
    forest = grow(sample, 50, split=split)
    sizes = np.bincount(nearest_centres(sample - forest.origin, forest.trees[0], 1)[:, 0])
    assert sizes.max() < 4 * sizes.mean()


@pytest.mark.parametrize("split", SPLITS)
def test_consecutive_leaves_are_nearer_than_distant_ones(split):
    (centres,) = grow(normal(2000, 3), 64, split=split).trees
    gaps = np.linalg.norm(centres[:, None] - centres, axis=2)
    apart = np.abs(np.subtract.outer(np.arange(len(centres)), np.arange(len(centres))))
    assert gaps[apart == 1].mean() < 0.7 * gaps[apart > 16].mean()


@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_of_one_vector_many_times_makes_one_leaf(split):
    (centres,) = grow(np.repeat(normal(1), 500, axis=0), 20, split=split, metric="cosine").trees
    np.testing.assert_allclose(centres, normal(1), rtol=1e-6)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_sample_of_one_row_makes_one_leaf_around_it(split, metric):
    forest = grow(normal(1), 20, trees=2, split=split, metric=metric)
    for centres in forest.trees:
        np.testing.assert_array_equal(centres + forest.origin, normal(1))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("different", [1, 5, 100])
def test_many_duplicates_do_not_keep_the_others_from_being_split(split, different):
    sample = np.zeros((3000, 4), np.float32)
    sample[:different] = normal(different, 4)
    forest = grow(np.random.default_rng(0).permutation(sample), 40, split=split)
    assert np.isfinite(forest.trees[0]).all()
    assert 2 <= len(forest.trees[0]) <= 80


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_vectors_that_differ_in_their_last_bits_leave_no_leaf_empty(split, seed):
    rng = np.random.default_rng(seed)
    sample = np.repeat([[1.0], [-1.0]], 200, axis=0) * np.ones(64)
    sample = (sample * (1 + np.finfo(np.float32).eps * (rng.random(sample.shape) < 0.02))).astype(np.float32)
    forest = grow(sample, 120, trees=4, split=split, seed=seed)
    for centres in forest.trees:
        assert np.isfinite(centres).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.integers(1, 150), st.sampled_from(SPLITS))
def test_whatever_the_sample_every_centre_is_a_number(seed, n, n_leaves, split):
    sample = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(np.float32)
    forest = grow(sample, n_leaves, trees=2, split=split, seed=seed)
    for centres in forest.trees:
        assert np.isfinite(centres).all()
        assert 1 <= len(centres) <= n


@pytest.mark.parametrize("split", SPLITS)
def test_tree_t_is_the_same_however_many_trees_there_are(split):
    few, many = grow(normal(800), 20, trees=2, split=split), grow(normal(800), 20, trees=5, split=split)
    assert len(few.trees) == 2
    assert len(many.trees) == 5
    for one, other in zip(few.trees, many.trees, strict=False):
        assert_same_centres(one, other)


def test_trees_differ_from_each_other():
    one, other = grow(normal(800), 20, trees=2).trees
    assert one.shape != other.shape or not np.allclose(one, other)


def test_the_same_seed_grows_the_same_forest_and_another_seed_another():
    one, again, other = (grow(normal(800), 20, seed=seed).trees[0] for seed in (5, 5, 6))
    assert_same_centres(one, again)
    assert one.shape != other.shape or not np.allclose(one, other)


def test_the_origin_is_the_median_when_centred_and_zero_otherwise():
    sample = normal(300) + np.float32(100)
    centred, plain = grow(sample, 10, metric="euclidean"), grow(sample, 10, metric="cosine")
    np.testing.assert_allclose(centred.origin, np.median(sample, axis=0), rtol=1e-6)
    assert np.abs(centred.trees[0]).max() < 10
    np.testing.assert_array_equal(plain.origin, np.zeros(8))
    assert np.abs(plain.trees[0]).min() > 90


def test_growing_does_not_change_the_sample():
    sample = normal(300)
    grow(sample, 10)
    np.testing.assert_array_equal(sample, normal(300))
