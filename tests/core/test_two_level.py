import pickle

import numpy as np
import pytest

from annspark.core import two_level
from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.nearest_centres import nearest_centres
from annspark.core.two_level import group_centres, nearest_grouped, nearest_grouped_of_one, top_scoring


@pytest.fixture
def many(monkeypatch):
    """Take a thousand centres for very many, and a few of their groups for all that are near."""
    monkeypatch.setattr(two_level, "_TWO_LEVELS", 1000)
    monkeypatch.setattr(two_level, "_NEAREST_GROUPS", 8)
    monkeypatch.setattr(two_level, "_FOUND", 0.985)  # groups of so few centres find a little less


def clustered(seed, n, dim=16):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(size=(40, dim))
    return (means[rng.integers(40, size=n)] + rng.normal(size=(n, dim)) * 0.5).astype(np.float32)


@pytest.fixture
def groups(many):
    return group_centres(
        grow_forest(clustered(1, 9000), 1500, trees=1, split="two_means", seed=0, metric="cosine").trees[0]
    )


def test_homes_and_probes_are_those_of_the_flat_search(groups):
    vectors = clustered(2, 4000)
    flat, found = nearest_centres(vectors, groups.centres, 8), nearest_grouped(vectors, groups, 8)
    assert len(groups.members) > 30
    assert (found[:, 0] == flat[:, 0]).mean() >= 0.995
    assert np.mean([len(set(one) & set(other)) for one, other in zip(found.tolist(), flat.tolist(), strict=True)]) > 7.9


@pytest.mark.parametrize("m", [1, 5])
def test_the_answer_is_the_flat_one_when_every_group_is_near(groups, monkeypatch, m):
    monkeypatch.setattr(two_level, "_NEAREST_GROUPS", 10**6)
    vectors = clustered(3, 700)
    np.testing.assert_array_equal(nearest_grouped(vectors, groups, m), nearest_centres(vectors, groups.centres, m))


def test_the_answer_does_not_depend_on_the_batch(groups):
    pairs = np.random.default_rng(4).integers(len(groups.centres), size=(2, 1500))
    # Vectors midway between two centres: the last bit of a score decides.
    vectors = (groups.centres[pairs[0]] + groups.centres[pairs[1]]) / 2
    together = nearest_grouped(vectors, groups, 4)
    for part in (slice(0, 1), slice(1, 100), slice(300, None), np.random.default_rng(5).permutation(1500)):
        np.testing.assert_array_equal(nearest_grouped(vectors[part], groups, 4), together[part])


def test_more_than_the_nearest_groups_have_are_found(groups):
    vectors = clustered(6, 50)
    m = len(groups.centres) - 1
    np.testing.assert_array_equal(nearest_grouped(vectors, groups, m), nearest_centres(vectors, groups.centres, m))


def test_groups_share_out_the_centres(groups):
    np.testing.assert_array_equal(np.sort(np.concatenate(groups.members)), np.arange(len(groups.centres)))


def test_equal_centres_come_by_number(many):
    groups = group_centres(np.ones((2000, 3), np.float32))
    np.testing.assert_array_equal(nearest_grouped(np.ones((2, 3), np.float32), groups, 3), [[0, 1, 2]] * 2)


def test_few_centres_are_searched_flat():
    centres, vectors = clustered(7, 300), clustered(8, 200)
    groups = group_centres(centres)
    assert not groups.members
    np.testing.assert_array_equal(nearest_grouped(vectors, groups, 3), nearest_centres(vectors, centres, 3))


def test_no_vectors_have_no_centres(groups):
    assert nearest_grouped(groups.centres[:0], groups, 2).shape == (0, 2)


def test_a_forest_travels_without_its_groups(many):
    forest = CentreForest(np.zeros(16, np.float32), (clustered(9, 1200),))
    size = len(pickle.dumps(forest))
    assert len(forest.groups[0].members) > 1
    assert len(pickle.dumps(forest)) == size
    assert len(pickle.loads(pickle.dumps(forest)).groups[0].members) == len(forest.groups[0].members)


def test_centres_are_not_grouped_where_groups_would_lose_the_near_ones(many):
    anywhere = np.random.default_rng(7).normal(size=(1500, 32)).astype(np.float32)
    assert group_centres(anywhere).members == []


def test_many_centres_are_looked_for_among_all_and_the_home_stays(groups, monkeypatch):
    monkeypatch.setattr(two_level, "_NEAREST_GROUPS", 1)  # many homes are then not the nearest centres
    vectors = clustered(8, 500)
    flat, homes = nearest_centres(vectors, groups.centres, 25), nearest_grouped(vectors, groups, 1)[:, 0]
    found = nearest_grouped(vectors, groups, 25)
    np.testing.assert_array_equal(found[:, 0], homes)
    same = flat[:, 0] == homes
    assert 0.5 < same.mean() < 1
    np.testing.assert_array_equal(found[same], flat[same])
    for one, other, home in zip(found[~same].tolist(), flat[~same].tolist(), homes[~same].tolist(), strict=True):
        others = [centre for centre in other if centre != home]
        assert one == [home, *others[:24]]
    top = top_scoring(groups)
    for vector, all_of_it in zip(vectors[:20], found, strict=False):
        assert set(nearest_grouped_of_one(vector, groups, 25, top)) == set(all_of_it)
