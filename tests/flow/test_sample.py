import numpy as np
import pytest

from annspark.core.metric import prepare
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from annspark.settings import Settings
from tests.helpers import clustered, make_table

ROWS = 500


@pytest.fixture(scope="module")
def users(spark, stage):
    return read(spark, stage)


def read(spark, stage, seed=3, partitions=4):
    return read_vectors(make_table(spark, clustered(ROWS), partitions=partitions), Settings(seed=seed), stage, 2)


def sampled(users, want):
    sample = sample_vectors(users, [want])[1][0]
    return sample.ids.to_pylist(), sample.vectors


def test_the_sample_is_the_same_however_the_table_is_partitioned(spark, stage, users):
    ids, vectors = sampled(users, 50)
    for partitions in (1, 9):
        other_ids, other_vectors = sampled(read(spark, stage, partitions=partitions), 50)
        assert other_ids == ids
        np.testing.assert_array_equal(other_vectors, vectors)


@pytest.mark.parametrize(("want", "size"), [(1, 1), (ROWS - 1, ROWS - 1), (ROWS, ROWS), (10 * ROWS, ROWS)])
def test_the_sample_has_the_size_asked_for_and_no_user_twice(users, want, size):
    ids, vectors = sampled(users, want)
    assert len(set(ids)) == len(ids) == len(vectors) == size


def test_vectors_belong_to_their_ids(users):
    ids, vectors = sampled(users, 40)
    np.testing.assert_array_equal(vectors, prepare(clustered(ROWS), "cosine")[ids])


def test_a_smaller_sample_is_the_start_of_a_larger_one(users):
    assert sampled(users, 200)[0][:30] == sampled(users, 30)[0]


@pytest.mark.parametrize("seed", [pytest.param(4, marks=pytest.mark.slow), 2**62])
def test_another_seed_gives_another_sample(spark, stage, users, seed):
    ids, others = sampled(users, 60)[0], sampled(read(spark, stage, seed=seed), 60)[0]
    # Independent samples of 60 among 500 share about 7.
    assert len(set(ids) & set(others)) < 25


def test_purposes_share_no_user_while_there_are_enough(users):
    _, samples = sample_vectors(users, [20, 100, 380])
    ids = [user for sample in samples for user in sample.ids.to_pylist()]
    assert len(ids) == len(set(ids)) == ROWS
    np.testing.assert_array_equal(samples[-1].vectors, prepare(clustered(ROWS), "cosine")[ids[120:]])
    for sample in samples:
        assert (np.diff(sample.hashes) > 0).all()


def test_purposes_share_the_fewest_users_when_there_are_too_few(users):
    purposes = ("audit", "plan", "forest", "more")
    _, drawn = sample_vectors(users, [50, 100, 450, 10 * ROWS])
    samples = dict(zip(purposes, drawn, strict=True))
    ids = {purpose: set(sample.ids.to_pylist()) for purpose, sample in samples.items()}
    assert {purpose: len(found) for purpose, found in ids.items()} == {
        "audit": 50,
        "plan": 100,
        "forest": 450,
        "more": ROWS,
    }
    assert not ids["audit"] & (ids["plan"] | ids["forest"])
    assert len(ids["plan"] & ids["forest"]) == 100
