import numpy as np
from scipy.sparse import csr_array

from annspark.core.column_forest import grow_columns
from annspark.core.routes import SAME_LEAF, within_reach
from annspark.core.vectors import sparse_rows


def rows_of(lists):
    counts = np.array([len(one) for one in lists])
    columns = np.array([column for one in lists for column, _ in sorted(one.items())], np.int32)
    values = np.array([value for one in lists for _, value in sorted(one.items())], np.float32)
    return sparse_rows(counts, columns, values, 1000)


def homes_of(routes):
    """Return the home of each row, -1 for none."""
    homes = np.full(routes.n_rows, -1)
    homes[routes.row[routes.home]] = routes.leaf[routes.home]
    return homes.tolist()


def test_a_row_is_at_home_in_its_heaviest_column_and_visits_the_others_by_weight():
    rows = rows_of([{5: 1.0, 7: 3.0, 9: 2.0}] * 8)
    first, second = grow_columns(rows, 8, 1, homes=(0, 1), metric="cosine").find_routes(rows, 3)
    assert first.leaf[:3].tolist() == second.leaf[:3].tolist() == [1, 2, 0]  # columns 7, 9, 5
    assert (homes_of(first), homes_of(second)) == ([1] * 8, [2] * 8)
    np.testing.assert_allclose(first.margin[:3], [0, 1 / 3, 2 / 3], rtol=1e-6)
    assert within_reach(first, 0.5).leaf[:4].tolist() == [1, 2, 1, 2]
    assert within_reach(second, -1).leaf.tolist() == [2] * 8


def test_rarer_columns_are_preferred_and_those_of_one_row_are_not():
    rows = rows_of([{1: 1.0, 2: 1.0}] * 4 + [{1: 1.0}] * 60 + [{1: 1.0, 3: 1.0}])
    (routes,) = grow_columns(rows, 65, 1, homes=(0,), metric="cosine").find_routes(rows, 1)
    homes = homes_of(routes)
    assert (homes[0], homes[64]) == (1, 0)


def test_columns_that_were_not_sampled_share_buckets_and_rows_without_numbers_a_leaf():
    forest = grow_columns(rows_of([{1: 1.0}]), 100, 4, homes=(0,), metric="cosine")
    (routes,) = forest.find_routes(rows_of([{900: 1.0}, {}, {1: 2.0}]), 1)
    homes = homes_of(routes)
    assert 1 <= homes[0] < 5
    assert homes[1:] == [5, 0]
    assert forest.sizes == (6,)


def test_a_sample_without_numbers_and_numbers_too_small_to_weigh_are_routed():
    rows = rows_of([{3: 1e-45, 4: 1e-45}, {3: 1.0}])
    (routes,) = grow_columns(rows_of([{}, {}]), 100, 4, homes=(0,), metric="cosine").find_routes(rows, 2)
    assert min(homes_of(routes)) >= 0
    assert np.isfinite(routes.margin).all()


def test_a_row_of_fewer_columns_than_trees_has_no_home_in_the_last():
    rows = rows_of([{1: 1.0}, {1: 1.0, 2: 0.5}])
    _, routes = grow_columns(rows, 2, 1, homes=(0, 1), metric="cosine").find_routes(rows, 4)
    assert homes_of(routes) == [-1, 1]
    assert within_reach(routes, -1).row.tolist() == [1]


def test_home_distances_agree_with_routes():
    rng = np.random.default_rng(0)
    dense = rng.random((60, 25)) * (rng.random((60, 25)) < 0.2)
    dense[:, 0] += 0.1
    found = csr_array(dense.astype(np.float32))
    rows = sparse_rows(np.diff(found.indptr), found.indices, found.data, 25)
    forest = grow_columns(rows, 60, 1, homes=(0, 1), metric="cosine")
    one, other = (index.ravel() for index in np.indices((60, 60)))
    _, margins = forest.find_home_distances(rows, one, rows, other)
    for tree, routes in enumerate(forest.find_routes(rows, 30)):
        home = np.array(homes_of(routes))
        for reach in (-1.0, 0.3, 0.9):
            visited = within_reach(routes, reach)
            goes = np.zeros((60, forest.sizes[0]), bool)
            goes[visited.row, visited.leaf] = True
            visits = goes[one, home[other]] & (home[other] >= 0)
            np.testing.assert_array_equal(margins[:, 2 * tree] <= reach, visits)
    assert (margins[one == other][:, 0] == SAME_LEAF).all()


def test_the_longest_rows_are_hubs_under_inner_product():
    rng = np.random.default_rng(0)
    rows = rows_of(
        [{int(c): float(v) for c, v in zip(rng.choice(90, 9, False), rng.random(9), strict=True)} for _ in range(4000)]
    )
    rows.data[np.repeat(np.arange(4000) % 400 == 7, 9)] *= 50
    forest = grow_columns(rows, 4000, 1, homes=(0, 1), metric="inner_product")
    hubs = forest.are_hubs(rows)
    assert hubs[7::400].all()
    assert 10 < hubs.sum() <= 2000
    assert not grow_columns(rows, 4000, 1, homes=(0,), metric="cosine").are_hubs(rows).any()
    for routes in forest.find_routes(rows, 5):
        assert min(homes_of(routes)) >= 0
        assert (np.bincount(routes.row)[hubs] == 1).all()
    _, margins = forest.find_home_distances(rows, np.arange(400), rows, np.full(400, 407))
    assert (margins == SAME_LEAF).all()


def test_no_row_is_a_hub_where_all_have_one_length_or_too_few_are_sampled():
    alike = rows_of([{c: 1.0, c + 1: 1.0} for c in range(300)])
    assert not grow_columns(alike, 300, 1, homes=(0,), metric="inner_product").are_hubs(alike).any()
    lengths = rows_of([{c: 1.0 + c} for c in range(300)])
    assert not grow_columns(lengths, 10**6, 1, homes=(0,), metric="inner_product").are_hubs(lengths).any()
