import numpy as np
import pytest

from annspark.core.boundaries import near_leaves
from annspark.core.centre_forest import grow_forest
from annspark.core.plan import Workers, plan_join
from annspark.flow.read import read_vectors
from annspark.flow.route import ship_vectors
from annspark.settings import Settings
from annspark.spark.cluster import partition_keys
from tests.helpers import clustered, configured, make_table

ROWS, PROBES = 1600, 4


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2], ids=["one_tree", "two_trees"])
def line(request, spark, stage):
    """Return vectors, forest, plan and the rows shipped."""
    vectors = clustered(ROWS)
    users = read_vectors(make_table(spark, vectors), Settings(metric="euclidean"), stage, 2)
    forest = grow_forest(vectors[:800], 40, trees=request.param, split="two_means", seed=0, metric="euclidean")
    plan = plan_join(forest, vectors[:800], PROBES, rows=ROWS, workers=Workers(2))
    return vectors, forest, plan, arrivals(ship_vectors(users.table, forest, plan, users.wire, users.coordinates))


def arrivals(shipped):
    """Return the blocks' rows as (key, user, vector, home, leaves visited)."""
    rows = []
    for block in shipped.collect():
        n = len(block["ids"])
        home, n_visits = (np.frombuffer(block[name], np.int32) for name in ("homes", "n_visits"))
        visits = np.split(np.frombuffer(block["visits"], np.int32), np.cumsum(n_visits)[:-1])
        vectors = np.frombuffer(block["vectors"], np.float32).reshape(n, -1)
        assert len(np.frombuffer(block["hashes"], np.uint64)) == len(home) == len(n_visits) == n
        rows += [
            (block["partition_key"], user, tuple(vectors[i].tolist()), int(home[i]), tuple(visits[i].tolist()))
            for i, user in enumerate(block["ids"])
        ]
    return rows


def test_the_plan_of_the_test_has_several_partitions(line):
    assert line[2].n_partitions > 1


def test_every_leaf_a_vector_should_visit_is_reached_once(line):
    vectors, forest, plan, shipped = line
    reached = {i: [] for i in range(ROWS)}
    for _, user, _, home, visits in shipped:
        reached[user] += [home] * (home >= 0) + list(visits)
    wanted = {i: [] for i in range(ROWS)}
    for groups, reach, first in zip(forest.groups, plan.reach, plan.first_leaf[:-1], strict=True):
        near, margins = near_leaves(vectors - forest.origin, groups, PROBES)
        for i, visited in enumerate((margins <= np.float32(reach)) | (np.arange(near.shape[1]) == 0)):
            wanted[i] += (near[i, visited] + first).tolist()
    assert {i: sorted(leaves) for i, leaves in reached.items()} == {i: sorted(leaves) for i, leaves in wanted.items()}


def test_home_is_the_leaf_with_the_nearest_centre_in_each_tree(line):
    vectors, forest, plan, shipped = line
    homes = {i: [] for i in range(ROWS)}
    for _, user, _, home, _ in shipped:
        homes[user] += [home] * (home >= 0)
    for tree, centres in enumerate(forest.trees):
        nearest = np.linalg.norm((vectors - forest.origin)[:, None] - centres[None], axis=2).argmin(axis=1)
        assert [sorted(homes[i])[tree] for i in range(ROWS)] == (nearest + plan.first_leaf[tree]).tolist()


def test_a_vector_travels_once_to_each_partition_that_joins_one_of_its_leaves(spark, line):
    _, _, plan, shipped = line
    assert len({(key, user) for key, user, *_ in shipped}) == len(shipped)
    partition_of = {key: i for i, key in enumerate(partition_keys(plan.n_partitions).tolist())}
    for key, _, _, home, visits in shipped:
        leaves = [home] * (home >= 0) + list(visits)
        assert set(plan.partition_of_leaf[leaves].tolist()) == {partition_of[key]}


def test_vectors_travel_as_they_are(line):
    vectors, _, _, shipped = line
    assert all(vector == tuple(vectors[user].tolist()) for _, user, vector, *_ in shipped)


def test_batches_do_not_change_what_is_shipped(spark, stage, line):
    vectors, forest, plan, shipped = line
    users = read_vectors(make_table(spark, vectors, partitions=1), Settings(metric="euclidean"), stage, 2)
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=37):
        again = arrivals(ship_vectors(users.table, forest, plan, users.wire, users.coordinates))
    assert sorted(again) == sorted(shipped)
