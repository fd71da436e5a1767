"""Leaves within reach are those that the routes of all leaves leave within it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core import reached
from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.copies import route_vectors
from annspark.core.plan import Workers, plan_join
from annspark.core.reached import inverse_distances, reached_in_tree, saves_time
from annspark.core.routes import Routes, reach_for, within_reach
from tests.helpers import clustered, grid


def assert_same(forest: CentreForest, vectors: np.ndarray, probes: float, reach: float) -> None:
    """Compare homes and leaves of each vector in the first tree."""
    wanted = within_reach(forest.find_routes(vectors, probes)[0], reach)
    centres = forest.trees[0]
    found = reached_in_tree(
        forest.home_points(vectors), forest.groups[0], inverse_distances(centres), probes, np.float32(reach)
    )
    assert found.n_rows == len(vectors)
    assert entries(found) == entries(wanted)
    assert (np.diff(found.row) >= 0).all()


def entries(routes: Routes) -> list[tuple[int, int, bool]]:
    return sorted(zip(routes.row.tolist(), routes.leaf.tolist(), routes.home.tolist(), strict=True))


def reaches(forest: CentreForest, vectors: np.ndarray, probes: float) -> list[float]:
    """Return the reach for so many probes, none, all, and margins that some vectors have to the last bit."""
    routes = forest.find_routes(vectors, probes)[0]
    others = np.sort(routes.margin[~routes.home])
    return [reach_for(routes, probes), -1.0, np.inf, *others[:: max(1, len(others) // 5)].tolist()]


@pytest.mark.parametrize("dim", [2, 17, 100])
@pytest.mark.parametrize("probes", [1.5, 6, 30, 500])
def test_of_clusters(dim, probes):
    vectors = clustered(3000, dim)
    forest = grow_forest(vectors[:2000], 90, trees=1, split="two_means", seed=0, metric="euclidean")
    for reach in reaches(forest, vectors[1000:], probes):
        assert_same(forest, vectors[1000:], probes, reach)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 4),
    st.floats(1.1, 50),
    st.sampled_from([1e-3, 1, 1e4]),
)
def test_of_ties_twins_and_equal_centres(seed, n_leaves, dim, probes, size):
    rng = np.random.default_rng(seed)
    # Few different numbers, so that many centres and margins are equal.
    centres, vectors = (rng.integers(-2, 3, (n, dim)).astype(np.float32) * np.float32(size) for n in (n_leaves, 60))
    forest = CentreForest(np.zeros(dim, np.float32), (centres,))
    for reach in reaches(forest, vectors, probes):
        assert_same(forest, vectors, probes, reach)


def test_of_centres_that_are_nearly_equal():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 8)).astype(np.float32)
    centres[20:] = centres[:20] * np.float32(1 + 2e-7) + np.float32(1e-7)
    forest = CentreForest(np.zeros(8, np.float32), (centres,))
    vectors = rng.normal(size=(2000, 8)).astype(np.float32)
    for reach in reaches(forest, vectors, 10):
        assert_same(forest, vectors, 10, reach)


def test_of_a_grid():
    rows = grid(6, 3, twins=4)
    forest = grow_forest(rows, 30, trees=1, split="two_means", seed=0, metric="euclidean")
    for probes in (2, 9):
        for reach in reaches(forest, rows, probes):
            assert_same(forest, rows, probes, reach)


def test_vectors_are_shipped_the_same_either_way(monkeypatch):
    vectors = clustered(6000, 12)
    forest = grow_forest(vectors[:3000], 200, trees=2, split="two_means", seed=0, metric="euclidean")
    assert all(saves_time(groups, 30) for groups in forest.groups)
    plan = plan_join(forest, vectors[3000:], 30, rows=10**6, workers=Workers(4))
    quick = route_vectors(forest, plan, vectors)
    monkeypatch.setattr(reached, "_FEWEST_PROBES", 10**9)
    slow = route_vectors(forest, plan, vectors)
    for name in ("row", "partition", "home", "n_visits"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(slow, name))
    copy = np.repeat(np.arange(len(quick.row)), quick.n_visits)
    order, other = (np.lexsort((copies.visits, copy)) for copies in (quick, slow))
    np.testing.assert_array_equal(quick.visits[order], slow.visits[other])


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_queries_go_to_the_same_leaves_either_way(metric):
    vectors = clustered(4000, 12)
    forest = grow_forest(vectors[:2000], 150, trees=2, split="two_means", seed=0, metric=metric)
    routes = forest.find_query_routes(vectors[2000:], 30)
    reach = tuple(reach_for(of_tree, 30) for of_tree in routes)
    found = forest.find_query_reached(vectors[2000:], 30, reach)
    assert [entries(one) for one in found] == [entries(within_reach(*one)) for one in zip(routes, reach, strict=True)]
    assert np.isnan(found[0].margin).all()


def test_a_vector_alone_goes_where_it_goes_among_others():
    vectors = clustered(400, 20)
    forest = grow_forest(vectors, 60, trees=1, split="two_means", seed=0, metric="euclidean")
    reach = (reach_for(forest.find_routes(vectors, 30)[0], 30),)
    together = forest.find_reached(vectors, 30, reach)[0]
    for row in range(0, 400, 37):
        (alone,) = forest.find_reached(vectors[row : row + 1], 30, reach)
        assert set(alone.leaf.tolist()) == set(together.leaf[together.row == row].tolist())
    (none,) = forest.find_reached(vectors[:0], 30, reach)
    assert (none.n_rows, len(none.row)) == (0, 0)
