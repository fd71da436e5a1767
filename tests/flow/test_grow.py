import numpy as np
import pytest

from annspark.core import plan
from annspark.core.centre_forest import CentreForest, graft_limbs, grow_forest
from annspark.core.nearest_centres import nearest_centres
from annspark.flow.grow import grow_limbs
from annspark.flow.read import read_vectors
from annspark.neighbors import build_neighbors
from annspark.settings import Settings
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered, configured, make_table

ROWS, LIMBS, LEAVES = 3000, 5, 60
SETTINGS = Settings(metric="euclidean")


def trunk_of(vectors, trees=1):
    return grow_forest(vectors[:500], LIMBS, trees=trees, split="two_means", seed=0, metric="euclidean")


def grown(spark, stage, vectors, trunk, partitions=4):
    users = read_vectors(make_table(spark, vectors, partitions=partitions), SETTINGS, stage, 2)
    return grow_limbs(users, trunk, LEAVES, SETTINGS)


def share_found(vectors, centres, origin, probes=3):
    """Return the share of neighbors whose home is among the nearest leaves of the user."""
    near = nearest_centres(vectors - origin, centres, probes)
    asked = np.arange(0, len(vectors), 10)
    neighbors, _ = exact_neighbors(vectors, asked, 10, "euclidean")
    return (near[neighbors, 0][:, :, None] == near[asked][:, None]).any(axis=2).mean()


@pytest.mark.parametrize("trees", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_limbs_make_as_good_a_forest_as_the_driver_would_have_grown(spark, stage, trees):
    vectors = clustered(ROWS)
    trunk = trunk_of(vectors, trees)
    forest = grown(spark, stage, vectors, trunk)
    whole = grow_forest(vectors, LEAVES, trees=trees, split="two_means", seed=0, metric="euclidean")
    np.testing.assert_array_equal(forest.origin, trunk.origin)
    for centres, by_driver in zip(forest.trees, whole.trees, strict=True):
        assert len(centres) == pytest.approx(LEAVES, rel=0.3)
        sizes = np.bincount(nearest_centres(vectors - forest.origin, centres, 1)[:, 0], minlength=len(centres))
        assert sizes.max() < 5 * sizes.mean()
        found = share_found(vectors, centres, forest.origin)
        assert found > share_found(vectors, by_driver, whole.origin) - 0.03


def test_limbs_do_not_depend_on_partitions_or_batches(spark, stage):
    vectors = clustered(ROWS)
    trunk = trunk_of(vectors)
    first = grown(spark, stage, vectors, trunk)
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=23):
        again = grown(spark, stage, vectors, trunk, partitions=1)
    np.testing.assert_array_equal(again.trees[0], first.trees[0])


def test_leaves_of_a_limb_stand_together_in_the_order_of_the_trunk():
    trunk = CentreForest(np.zeros(2, np.float32), (np.eye(2, dtype=np.float32), np.ones((1, 2), np.float32)))
    limbs = {2: np.full((1, 2), 5.0), 0: np.full((3, 2), 7.0), 1: np.full((2, 2), 9.0)}
    forest = graft_limbs(trunk, limbs)
    assert [tree[:, 0].tolist() for tree in forest.trees] == [[7, 7, 7, 9, 9], [5]]
    assert graft_limbs(trunk, {0: limbs[0], 2: limbs[2]}).trees[0][:, 0].tolist() == [7, 7, 7]


def test_a_table_from_a_forest_with_limbs_is_complete_and_right(spark, monkeypatch):
    monkeypatch.setattr(plan, "_SAMPLE_BYTES", 40 * 8 * 16 * 4)
    monkeypatch.setattr(plan, "_LIMB_BYTES", 40 * 6 * 16 * 4)
    result = build_neighbors(make_table(spark, clustered(ROWS)), leaf_rows=60, audit_users=200)
    assert result.table.count() == ROWS
    assert result.report.leaves.count > 25
    assert result.report.recall.mean > 0.9
