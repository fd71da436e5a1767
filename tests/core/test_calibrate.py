from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark.core.calibrate import HomeDistances, choose_probes, suggest_settings
from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.copies import route_vectors
from annspark.core.join import join_leaves
from annspark.core.metric import prepare
from annspark.core.plan import Workers, plan_join
from annspark.core.recall import recall_by_user
from annspark.core.routes import visits_of
from annspark.core.vectors import sparse_rows
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered

ROWS, K = 6000, 10


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(5)
    return prepare(clustered(ROWS) + 0.4 * rng.normal(size=(ROWS, 16)), "cosine")


def grown(vectors, leaves=60, trees=1):
    return grow_forest(vectors[:3000], leaves, trees=trees, split="two_means", seed=1, metric="cosine")


def home_distances_of(forest, vectors, users):
    neighbors, distances = exact_neighbors(vectors, users, K, "cosine")
    leaves_nearer, margins = forest.find_home_distances(vectors, np.repeat(users, K), vectors, neighbors.ravel())
    shape = (*neighbors.shape, 2 * len(forest.trees))
    return HomeDistances(np.isfinite(distances), leaves_nearer.reshape(shape), margins.reshape(shape))


def measured(forest, vectors, users, probes):
    """Join all vectors in one partition, and return the recall of some users."""
    plan = plan_join(forest, vectors[3000:], probes, rows=400, workers=Workers(1))
    assert plan.n_partitions == len(forest.trees)
    found = []
    for tree in range(len(forest.trees)):
        copies = route_vectors(forest, plan, vectors)
        mine = copies.partition == tree
        cut = np.split(copies.visits, np.cumsum(copies.n_visits)[:-1])
        visits = np.full((ROWS, max(1, copies.n_visits.max())), -1, np.int32)
        for row, own in zip(copies.row[mine], np.array(cut, object)[mine], strict=True):
            visits[row, : len(own)] = own
        joined = join_leaves(vectors[copies.row[mine]], copies.home[mine], visits_of(visits), K, "cosine")
        found.append((joined.neighbors[users], joined.distances[users]))
    best = []
    for i in range(len(users)):
        lists = {int(n): d for ids, ds in found for n, d in zip(ids[i], ds[i], strict=True) if n >= 0}
        best.append((sorted(lists.values()) + [np.inf] * K)[:K])
    _, exact = exact_neighbors(vectors, users, K, "cosine")
    return recall_by_user(np.array(best, np.float32), exact[:, -1], K).mean()


@pytest.mark.parametrize("trees", [1, 2])
def test_the_prediction_is_what_the_join_finds_for_the_same_users(vectors, trees):
    forest, users = grown(vectors, trees=trees), np.arange(0, ROWS, 20)
    calibration = choose_probes(forest, vectors[3000:], home_distances_of(forest, vectors, users), 0.9)
    assert calibration.low >= 0.9
    assert calibration.users == len(users)
    # The reach is that of other vectors than those joined, and so a little off.
    assert measured(forest, vectors, users, calibration.probes) == pytest.approx(calibration.predicted, abs=0.004)


@pytest.mark.parametrize("recall_asked", [0.5, 0.8, 0.95, 0.99])
def test_the_fewest_probes_that_reach_the_recall_asked_for_are_taken(vectors, recall_asked):
    forest = grown(vectors)
    calibration = choose_probes(
        forest, vectors[3000:], home_distances_of(forest, vectors, np.arange(0, ROWS, 10)), recall_asked
    )
    assert calibration.low >= recall_asked
    cheaper = [one for one in calibration.curve if one.probes < calibration.probes]
    assert all(one.low < recall_asked for one in cheaper)
    assert [one.probes for one in calibration.curve] == sorted({one.probes for one in calibration.curve})
    # One step of the grid cheaper was tried, unless one probe is enough.
    assert calibration.probes == 1 or cheaper[-1].probes > calibration.probes / 1.1


@pytest.mark.parametrize("recall_asked", [0.996, 0.998, 0.9999])
def test_where_too_few_users_prove_the_recall_the_fewest_probes_predicted_to_give_1_are_taken(vectors, recall_asked):
    forest = grown(vectors)
    calibration = choose_probes(
        forest, vectors[3000:], home_distances_of(forest, vectors, np.arange(0, ROWS, 10)), recall_asked
    )
    assert calibration.low >= recall_asked or calibration.predicted == 1
    assert all(one.low < recall_asked and one.mean < 1 for one in calibration.curve if one.probes < calibration.probes)
    assert calibration.probes < len(forest.trees[0])


def test_a_perfect_prediction_is_enough(vectors):
    forest, users = grown(vectors, leaves=12), np.arange(0, 100, 10)
    calibration = choose_probes(forest, vectors[3000:], home_distances_of(forest, vectors, users), 0.999)
    assert calibration.predicted == 1
    assert calibration.low < 0.999


def test_users_with_few_neighbors_count_those_they_have(vectors):
    forest, users = grown(vectors, leaves=1), np.arange(3)
    home_distances = home_distances_of(forest, vectors, users)
    exists = home_distances.exists.copy()
    exists[0, 1:] = exists[1] = False
    calibration = choose_probes(forest, vectors, replace(home_distances, exists=exists), 0.5)
    assert calibration.probes == 1
    assert calibration.predicted == 1  # a user without any neighbor has a recall of 1


def test_settings_suggested_for_a_missed_recall_allow_for_the_misses_seen(vectors):
    forest, users = grown(vectors), np.arange(0, ROWS, 10)
    home_distances = home_distances_of(forest, vectors, users)
    calibration = choose_probes(forest, vectors[3000:], home_distances, 0.9)

    def enough(measured):
        found = suggest_settings(forest, vectors[3000:], home_distances, (calibration, 1), measured)
        return found and found[0]

    assert calibration.probes < enough(0.88) <= enough(0.1) <= len(forest.trees[0])
    assert enough(None) == enough(calibration.predicted) == round(2**0.5 * calibration.probes, 3)
    twice_as_bad = enough(1 - 2 * (1 - calibration.predicted))
    at = choose_probes(forest, vectors[3000:], home_distances, 0.95).probes
    assert at / 2 < twice_as_bad < 4 * at
    # Where all was found in calibration and not in the end, the most there are.
    most = len(forest.trees[0])
    assert suggest_settings(forest, vectors[3000:], home_distances, (replace(calibration, predicted=1.0), 1), 0.5) == (
        most,
        1,
    )
    assert suggest_settings(forest, vectors[3000:], home_distances, (replace(calibration, probes=most), 1), 0.5) is None


def test_more_trees_of_columns_are_named_where_more_probes_do_not_help():
    rows = csr_array(
        np.eye(40, dtype=np.float32).repeat(3, axis=0) + 0.5 * np.eye(40, k=1, dtype=np.float32).repeat(3, axis=0)
    )
    rows = sparse_rows(np.diff(rows.indptr), rows.indices, rows.data, 40)
    forest = grow_columns(rows, 120, 1, homes=(0, 1, 2, 3), metric="cosine")
    exists = np.ones((1, 1), bool)
    # Met only where the second tree's homes are.
    leaves_nearer, margins = np.zeros((1, 1, 8), np.int32), np.full((1, 1, 8), np.inf, np.float32)
    margins[..., 2] = 0
    home_distances = HomeDistances(exists, leaves_nearer, margins)
    calibration = choose_probes(forest.first(1), rows, home_distances.first(1), 0.9)
    assert calibration.predicted == 0
    assert suggest_settings(forest, rows, home_distances, (calibration, 1), None)[1] == 2
    assert suggest_settings(forest.first(1), rows, home_distances.first(1), (calibration, 1), None) is None
