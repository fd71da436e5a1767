import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.boundaries import boundary_margins, boundary_margins_of_one, near_leaves
from annspark.core.routes import reach_for, routes_of, within_reach
from annspark.core.two_level import group_centres


def make(rng, n, n_leaves, dim):
    return tuple(rng.normal(size=(rows, dim)).astype(np.float32) for rows in (n, n_leaves))


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.floats(1, 20))
def test_margins_are_the_distances_to_the_planes_halfway(seed, n, n_leaves, dim, probes):
    vectors, centres = make(np.random.default_rng(seed), n, n_leaves, dim)
    leaves, margins = near_leaves(vectors, group_centres(centres), probes)
    for i, vector in enumerate(vectors.astype(np.float64)):
        home = centres[leaves[i, 0]].astype(np.float64)
        assert margins[i, 0] == 0
        for leaf, margin in zip(leaves[i, 1:], margins[i, 1:], strict=True):
            normal = centres[leaf] - home
            wanted = ((home + centres[leaf]) / 2 - vector) @ normal / np.linalg.norm(normal)
            assert margin == pytest.approx(wanted, abs=1e-4 * (1 + np.linalg.norm(normal)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 40), st.integers(1, 4), st.floats(1, 50))
def test_vectors_go_to_as_many_leaves_on_average_as_asked(seed, n, n_leaves, dim, probes):
    vectors, centres = make(np.random.default_rng(seed), n, n_leaves, dim)
    routes = routes_of(*near_leaves(vectors, group_centres(centres), probes))
    gone = len(within_reach(routes, reach_for(routes, probes)).leaf)
    assert gone == pytest.approx(n * min(probes, n_leaves), abs=1)


def test_a_vector_in_the_middle_of_its_leaf_visits_fewer_than_one_at_its_edge():
    centres = np.arange(10, dtype=np.float32)[:, None]
    vectors = np.array([[4.0], [4.45]], np.float32)
    visited = within_reach(routes_of(*near_leaves(vectors, group_centres(centres), 2)), 0.1)
    assert visited.row.tolist() == [0, 1, 1]
    assert visited.leaf.tolist() == [4, 4, 5]
    assert visited.home.tolist() == [True, True, False]


def test_a_vector_is_answered_alike_alone_and_in_any_batch():
    vectors, centres = make(np.random.default_rng(0), 300, 50, 33)
    together = near_leaves(vectors, group_centres(centres), 4)
    for size in (1, 7, 128):
        parts = [near_leaves(vectors[i : i + size], group_centres(centres), 4) for i in range(0, 300, size)]
        for whole, pieces in zip(together, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_equal_centres_have_no_boundary_between_them():
    centres = np.ones((4, 3), np.float32)
    _, margins = near_leaves(np.zeros((2, 3), np.float32), group_centres(centres), 4)
    assert not margins.any()


def test_no_vectors_have_no_leaves():
    leaves, margins = near_leaves(np.empty((0, 3), np.float32), group_centres(np.eye(3, dtype=np.float32)), 2)
    assert leaves.shape == margins.shape == (0, 3)


def test_margins_of_one_vector_have_the_bits_they_have_among_many():
    rng = np.random.default_rng(0)
    for dim in (1, 3, 16, 100, 301):
        centres = rng.normal(size=(60, dim)).astype(np.float32)
        centres[7] = centres[3]
        vectors = rng.normal(size=(40, dim)).astype(np.float32)
        home, leaves = rng.integers(0, 60, 40), rng.integers(0, 60, (40, 20))
        home[0], leaves[0, 0] = 3, 7
        for vector, own, some, margins in zip(
            vectors, home, leaves, boundary_margins(vectors, centres, home, leaves), strict=True
        ):
            np.testing.assert_array_equal(boundary_margins_of_one(vector, centres, int(own), some), margins)
