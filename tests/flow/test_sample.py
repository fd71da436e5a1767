import numpy as np
import pytest

from annspark.config import Settings
from annspark.core.metric import prepare
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from tests.helpers import clustered, make_table

ROWS = 500


@pytest.fixture(scope="module")
def users(spark, stage):
    return read_vectors(make_table(spark, clustered(ROWS)), Settings(), stage, 2)


def sampled(users, want, *, seed=3, purpose="forest"):
    ids, vectors = sample_vectors(users, {purpose: want}, seed)[purpose]
    return ids.to_pylist(), vectors


def test_the_sample_is_the_same_however_the_table_is_partitioned(spark, stage, users):
    ids, vectors = sampled(users, 50)
    for partitions in (1, 9):
        again = read_vectors(make_table(spark, clustered(ROWS), partitions=partitions), Settings(), stage, 2)
        other_ids, other_vectors = sampled(again, 50)
        assert other_ids == ids
        np.testing.assert_array_equal(other_vectors, vectors)


@pytest.mark.parametrize(("want", "size"), [(1, 1), (50, 50), (ROWS - 1, ROWS - 1), (ROWS, ROWS), (10 * ROWS, ROWS)])
def test_the_sample_has_the_size_asked_for_and_no_user_twice(users, want, size):
    ids, vectors = sampled(users, want)
    assert len(set(ids)) == len(ids) == len(vectors) == size


def test_vectors_belong_to_their_ids(users):
    ids, vectors = sampled(users, 40)
    np.testing.assert_array_equal(vectors, prepare(clustered(ROWS), "cosine")[ids])


def test_a_smaller_sample_is_the_start_of_a_larger_one(users):
    assert sampled(users, 200)[0][:30] == sampled(users, 30)[0]


@pytest.mark.parametrize("other", [{"seed": 4}, {"purpose": "audit"}, {"seed": 2**62}])
def test_another_seed_or_purpose_gives_another_sample(users, other):
    ids, others = sampled(users, 60)[0], sampled(users, 60, **other)[0]
    # Independent samples of 60 among 500 share about 7.
    assert len(set(ids) & set(others)) < 25


def test_samples_drawn_together_are_those_drawn_alone(users):
    together = sample_vectors(users, {"forest": 90, "audit": 20}, 3)
    for purpose, want in (("forest", 90), ("audit", 20)):
        ids, vectors = sampled(users, want, purpose=purpose)
        assert together[purpose][0].to_pylist() == ids
        np.testing.assert_array_equal(together[purpose][1], vectors)
