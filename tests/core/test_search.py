from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core import two_level
from annspark.core.boundaries import most_leaves, near_leaves
from annspark.core.centre_forest import CentreForest, grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.coordinates import Coordinates, choose_coordinates
from annspark.core.distance import measure_for
from annspark.core.metric import METRICS, prepare
from annspark.core.nearest_centres import nearest_centres
from annspark.core.query_leaves import Extent, centre_router, column_leaves
from annspark.core.search import (
    TooLong,
    leaf_of,
    least,
    least_of_many,
    measure,
    queries_of,
    score_many,
    score_one,
    space_of,
)
from annspark.core.search_sparse import nearest_rows, sparse_leaf_of, sparse_query_of
from annspark.core.two_level import group_centres, nearest_grouped, nearest_grouped_of_one, top_scoring
from annspark.core.vectors import slice_rows, sparse_rows
from tests.core.worlds import DENSE
from tests.helpers import clustered, grid

SPARSE = ["cosine", "euclidean", "inner_product", "jaccard"]


def world(metric: str, n: int = 600, dim: int = 12) -> np.ndarray:
    vectors = clustered(n, dim)
    return (vectors > 0.5).astype(np.float32) if METRICS[metric].binary else vectors


def sparse_world(seed: int, n: int, metric: str, width: int = 60):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 8, n)
    columns = np.concatenate([np.sort(rng.choice(width, count, replace=False)) for count in counts])
    values = np.ones(len(columns)) if metric == "jaccard" else rng.integers(1, 4, len(columns)).astype(float)
    return sparse_rows(counts, columns.astype(np.int32), values.astype(np.float32), width)


def grown(vectors: np.ndarray, metric: str, trees: int = 1, leaves: int = 20):
    prepared = prepare(vectors, metric)
    forest = grow_forest(prepared, leaves, trees=trees, split="two_means", seed=0, metric=metric)
    routes = zip(forest.find_routes(prepared, 1), forest.sizes, strict=True)
    return prepared, forest, np.concatenate([np.bincount(tree.leaf[tree.home], minlength=n) for tree, n in routes])


# Which leaves


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 8))
def test_one_vector_finds_the_nearest_centres_of_many(seed, n, m):
    rng = np.random.default_rng(seed)
    centres = rng.integers(-2, 3, (n, 3)).astype(np.float32)  # many ties
    vectors = rng.integers(-2, 3, (9, 3)).astype(np.float32) / 2
    groups, m = group_centres(centres), min(m, n)
    for vector, wanted in zip(vectors, nearest_centres(vectors, centres, m), strict=True):
        found = nearest_grouped_of_one(vector, groups, m, top_scoring(groups))
        assert found[0] == wanted[0]
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("m", [1, 5, 200])
def test_and_those_among_grouped_ones(monkeypatch, m):
    monkeypatch.setattr(two_level, "_TWO_LEVELS", 100)
    monkeypatch.setattr(two_level, "_NEAREST_GROUPS", 4)
    monkeypatch.setattr(two_level, "_FOUND", 0)  # groups of so few centres lose more than is allowed
    centres = clustered(900, 6)
    vectors = clustered(40, 6, seed=1)
    groups = group_centres(centres)
    assert groups.members
    top = top_scoring(groups)
    for vector, wanted in zip(vectors, nearest_grouped(vectors, groups, m), strict=True):
        found = nearest_grouped_of_one(vector, groups, m, top)
        assert found[0] == wanted[0]
        assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("metric", DENSE)
@pytest.mark.parametrize("trees", [1, 3])
def test_one_vector_goes_to_the_leaves_that_it_goes_to_among_many(metric, trees):
    vectors = world(metric)
    prepared, forest, rows = grown(vectors, metric, trees)
    router = centre_router(forest, rows)
    reach = tuple(0.1 + 0.3 * tree for tree in range(trees))
    for extent in (Extent(4.0, reach), Extent(3.0, None), Extent(1.0, reach), Extent(1000, None)):
        for wanted in (1, 250):
            asker, leaf = router.leaves_of_many(prepared[:80], extent, wanted)
            for i in range(80):
                found = router.leaves_of_one(prepared[i], extent, wanted)
                assert sorted(found) == sorted(leaf[asker == i])
                assert rows[found[found < forest.sizes[0]]].sum() >= wanted


@pytest.mark.parametrize("metric", DENSE)
def test_it_goes_to_the_leaves_within_reach_of_the_first(metric):
    prepared, forest, rows = grown(world(metric), metric)
    router = centre_router(forest, rows)
    points = forest.visit_points(prepared)
    points = forest.home_points(prepared) if points is None else points
    near, margins = near_leaves(points, forest.groups[0], 3.0)
    # The margin of some vector is the reach, as it is where reach follows from a sample.
    reach = float(np.sort(margins[:50, 1:], axis=None)[70])
    for i in range(50):
        wanted = {int(near[i, 0]), *near[i][margins[i] <= np.float32(reach)].tolist()}
        assert set(router.leaves_of_one(prepared[i], Extent(3.0, (reach,)), 1).tolist()) == wanted


def test_probes_that_are_given_are_that_many_leaves_of_each_tree():
    prepared, forest, rows = grown(world("euclidean"), "euclidean", trees=2)
    router = centre_router(forest, rows)
    assert most_leaves(5, 20) == 10
    for vector in prepared[:20]:
        leaves = router.leaves_of_one(vector, Extent(5.0, None), 1)
        assert len(np.unique(leaves)) == 10
        assert np.count_nonzero(leaves < forest.sizes[0]) == 5
    everywhere = router.leaves_of_one(prepared[0], Extent(100.0, None), 1)
    assert sorted(everywhere) == list(range(sum(forest.sizes)))


@pytest.mark.parametrize("homes", [(0,), (0, 1)])
@pytest.mark.parametrize("metric", SPARSE)
def test_a_sparse_row_goes_to_the_leaves_of_its_columns(metric, homes):
    rows = sparse_world(0, 300, metric)
    prepared = prepare(rows, metric)
    known = slice_rows(prepared, 0, 40)  # so that some columns share leaves
    forest = grow_columns(known, 300, 3, homes=(0,), metric="cosine")
    forest = forest.first(1) if homes == (0,) else type(forest)(**{**vars(forest), "homes": homes})
    for probes, reach in ((2.0, 0.4), (1.0, 0.7), (3.0, -1.0), (100.0, np.inf)):
        routes = forest.find_routes(prepared, probes)
        for i in range(300):
            found = column_leaves(forest, slice_rows(prepared, i, i + 1), Extent(probes, (reach,) * len(homes)))
            wanted = []
            for tree, of_tree in enumerate(routes):
                mine = of_tree.row == i
                leaf, margin = of_tree.leaf[mine], of_tree.margin[mine].copy()
                if homes[tree]:  # margins of homes are set to 0, though a vector that asks has none
                    margin = routes[0].margin[routes[0].row == i]
                goes = margin <= np.float32(reach)
                goes[0] = True
                wanted += (leaf[goes] + tree * forest.sizes[0]).tolist()
            assert found.tolist() == wanted
    everywhere = forest.find_routes(prepared, 100)[0]
    for i in range(20):
        found = column_leaves(forest, slice_rows(prepared, i, i + 1), Extent(3.0, None))
        assert len(found) == len(homes) * min(3, np.count_nonzero(everywhere.row == i))


def test_a_row_without_numbers_goes_to_the_leaf_of_such_rows():
    rows = sparse_world(0, 50, "euclidean")
    forest = grow_columns(rows, 50, 3, homes=(0,), metric="euclidean")
    empty = sparse_rows(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 60)
    assert column_leaves(forest, empty, Extent(2.0, (1.0,))).tolist() == [forest.sizes[0] - 1]
    assert forest.find_routes(empty, 1)[0].leaf.tolist() == [forest.sizes[0] - 1]


# The nearest of their rows


def all_distances(coordinates: Coordinates, query, rows) -> np.ndarray:
    """Return the distances that the join gives: float32 (n,)."""
    n = rows.shape[0]
    one, others = coordinates.for_join(query), coordinates.for_join(rows)
    raw = measure_for(coordinates.metric, others).exact(one, np.zeros(n, np.int64), others, np.arange(n))
    return coordinates.in_input_units(coordinates.facts.from_raw(raw.astype(np.float32)))


def check_dense(coordinates: Coordinates, queries: np.ndarray, rows: np.ndarray, k: int = 10) -> list[int]:
    """Check single and common searches of three leaves; return how many rows were measured for each query."""
    numbers = "float32" if rows.dtype == np.float32 else "float64"
    space = space_of(coordinates, rows.shape[1], numbers)
    cut = np.array([0, len(rows) // 7, len(rows) // 2, len(rows)])
    leaves = [leaf_of(rows[a:b], space) for a, b in pairwise(cut)]
    asked, counts = queries_of(queries, space), []
    asker, cuts = np.tile(np.arange(len(asked)), 3), np.arange(4) * len(asked)
    scores, begins = score_many(asked, asker, leaves, cuts, space)
    lengths = np.full(len(asked), max(leaf.longest for leaf in leaves))
    places = least_of_many(scores, begins, asker, k, asked, lengths, space)
    pair = np.searchsorted(begins, places, side="right") - 1
    rows_of_many = cut[pair // len(asked)] + places - begins[pair]
    for i, query in enumerate(asked):
        wanted = all_distances(coordinates, queries[i : i + 1], rows)
        kth = np.sort(wanted)[min(k, len(rows)) - 1]
        longest = max(leaf.longest for leaf in leaves)
        alone = least(score_one(query, leaves, space), k, query, longest, space)
        for near in (rows_of_many[asker[pair] == i], alone):
            assert np.isin(np.flatnonzero(wanted <= kth), near).all()
            found = measure(query.joined, np.zeros(len(near), np.int64), rows[near], space)
            np.testing.assert_array_equal(found, wanted[near])
        counts.append(len(near))
    return counts


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("metric", DENSE)
def test_the_nearest_are_among_those_measured_and_these_are_few(metric, kind):
    rows = world(metric, 3000, 16).astype(kind)
    if kind == np.float64 and not METRICS[metric].binary:
        rows += np.random.default_rng(0).normal(0, 1e-12, rows.shape)
    counts = check_dense(Coordinates(metric), rows[:25], rows)
    assert METRICS[metric].binary or max(counts) <= 13


@pytest.mark.parametrize(
    ("metric", "size"),
    [(metric, size) for metric in ("cosine", "euclidean", "manhattan") for size in (1e-30, 1e-12, 1.0, 1e12, 1e17)]
    + [("inner_product", 1e-12), ("inner_product", 1e12)],
)
def test_whatever_the_size_of_numbers(metric, size):
    rows = (world(metric, 1500, 9) * np.float32(size)).astype(np.float32)
    coordinates = choose_coordinates(rows, metric, float(np.abs(rows).max()), rounded=False)
    counts = check_dense(coordinates, rows[:15], rows)
    assert max(counts) <= 30


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
@pytest.mark.parametrize("double", [False, True])
def test_far_from_the_origin(metric, double):
    rows = world(metric, 1500, 9).astype(np.float64) + 1e4
    coordinates = choose_coordinates(rows, metric, float(np.abs(rows).max()), rounded=True)
    assert coordinates.origin is not None
    coordinates = coordinates.in_double() if double else coordinates
    counts = check_dense(coordinates, rows[:15], rows)
    assert max(counts) <= 30


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan", "inner_product", "hamming"])
def test_ties_and_twins(metric):
    rows = grid(5, 3, twins=60)
    rows = (rows > 2).astype(np.float32) if metric == "hamming" else rows
    check_dense(Coordinates(metric), rows[:20], rows)
    check_dense(Coordinates(metric), rows[:20], rows, k=1)
    check_dense(Coordinates(metric), rows[:5], rows, k=10**6)


def test_unit_vectors_of_any_length_are_compared():
    rows = clustered(700, 5)
    rows[100:200] *= np.float32(1e-38)
    rows[200:300] *= np.float32(1e35)
    check_dense(Coordinates("cosine"), rows[::50], rows)


def test_a_vector_that_is_too_long_is_named():
    space = space_of(Coordinates("euclidean"), 2, "float32")
    with pytest.raises(TooLong) as caught:
        queries_of(np.array([[1, 2], [1e30, 0]]), space)
    assert caught.value.args == (1,)


@pytest.mark.parametrize("metric", SPARSE)
@pytest.mark.parametrize("table", [1 << 24, 1])
def test_the_nearest_sparse_rows_are_among_those_measured(monkeypatch, metric, table):
    monkeypatch.setattr("annspark.core.search_sparse._TABLE", table)
    rows, coordinates = sparse_world(0, 900, metric), Coordinates(metric)
    leaves = [sparse_leaf_of(slice_rows(rows, a, b), coordinates) for a, b in ((0, 100), (100, 500), (500, 900))]
    for i in range(25):
        asked = slice_rows(rows, i, i + 1)
        wanted = all_distances(coordinates, asked, rows)
        near, found = nearest_rows(sparse_query_of(asked, coordinates), leaves, 10, coordinates)
        np.testing.assert_array_equal(found, wanted[near])
        assert np.isin(np.flatnonzero(wanted <= np.sort(wanted)[9]), near).all()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e17])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_whatever_the_size_of_their_numbers(metric, size):
    rows = sparse_world(1, 400, metric)
    rows.data = (rows.data * np.random.default_rng(0).uniform(1, 2, len(rows.data)) * size).astype(np.float32)
    coordinates = choose_coordinates(rows, metric, float(rows.data.max()), rounded=False)
    leaves = [sparse_leaf_of(rows, coordinates)]
    for i in range(10):
        asked = slice_rows(rows, i, i + 1)
        wanted = all_distances(coordinates, asked, rows)
        near, found = nearest_rows(sparse_query_of(asked, coordinates), leaves, 10, coordinates)
        np.testing.assert_array_equal(found, wanted[near])
        assert np.isin(np.flatnonzero(wanted <= np.sort(wanted)[9]), near).all()


def test_a_forest_that_was_read_routes_as_the_one_saved():
    prepared, forest, rows = grown(world("cosine"), "cosine")
    again = CentreForest(forest.origin.copy(), tuple(tree.copy() for tree in forest.trees), forest.space)
    extent = Extent(3.0, (0.2,))
    for vector in prepared[:10]:
        one, other = (centre_router(some, rows).leaves_of_one(vector, extent, 1) for some in (forest, again))
        assert one.tolist() == other.tolist()
