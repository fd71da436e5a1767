import numpy as np
from scipy.sparse import csr_array

from annspark.core.columns import grow_columns
from annspark.core.rows import sparse_rows
from annspark.core.visit import TOGETHER, goes_to


def rows_of(lists):
    counts = np.array([len(one) for one in lists])
    columns = np.array([column for one in lists for column, _ in sorted(one.items())], np.int32)
    values = np.array([value for one in lists for _, value in sorted(one.items())], np.float32)
    return sparse_rows(counts, columns, values, 1000)


def test_a_row_lives_in_its_heaviest_column_and_visits_the_others_by_weight():
    rows = rows_of([{5: 1.0, 7: 3.0, 9: 2.0}] * 8)
    ((first, margins), (second, _)) = grow_columns(rows, 8, 1, homes=(0, 1), metric="cosine").find_goals(rows, 3)
    assert first[0].tolist() == [1, 2, 0]  # columns 7, 9, 5
    assert second[0].tolist() == [2, 1, 0]
    np.testing.assert_allclose(margins[0], [0, 1 / 3, 2 / 3], rtol=1e-6)
    assert goes_to(margins, 0.5)[0].tolist() == [True, True, False]


def test_rarer_columns_are_preferred_and_those_of_one_row_are_not():
    rows = rows_of([{1: 1.0, 2: 1.0}] * 4 + [{1: 1.0}] * 60 + [{1: 1.0, 3: 1.0}])
    ((near, _),) = grow_columns(rows, 65, 1, homes=(0,), metric="cosine").find_goals(rows, 1)
    assert near[0, 0] == 1
    assert near[64, 0] == 0


def test_columns_that_were_not_sampled_share_buckets_and_rows_without_numbers_a_leaf():
    forest = grow_columns(rows_of([{1: 1.0}]), 100, 4, homes=(0,), metric="cosine")
    ((near, _),) = forest.find_goals(rows_of([{900: 1.0}, {}, {1: 2.0}]), 1)
    assert 1 <= near[0, 0] < 5
    assert near[1:, 0].tolist() == [5, 0]
    assert forest.sizes == (6,)


def test_a_sample_without_numbers_and_numbers_too_small_to_weigh_are_routed():
    rows = rows_of([{3: 1e-45, 4: 1e-45}, {3: 1.0}])
    ((near, margins),) = grow_columns(rows_of([{}, {}]), 100, 4, homes=(0,), metric="cosine").find_goals(rows, 2)
    assert (near[:, 0] >= 0).all()
    assert not np.isnan(margins[:, 0]).any()


def test_a_row_of_fewer_columns_than_trees_lives_nowhere_in_the_last():
    rows = rows_of([{1: 1.0}, {1: 1.0, 2: 0.5}])
    _, (near, margins) = grow_columns(rows, 2, 1, homes=(0, 1), metric="cosine").find_goals(rows, 4)
    assert near[:, 0].tolist() == [-1, 1]
    assert goes_to(margins, -1)[:, 0].tolist() == [False, True]


def test_chances_are_those_of_the_goals():
    rng = np.random.default_rng(0)
    dense = rng.random((60, 25)) * (rng.random((60, 25)) < 0.2)
    dense[:, 0] += 0.1
    found = csr_array(dense.astype(np.float32))
    rows = sparse_rows(np.diff(found.indptr), found.indices, found.data, 25)
    forest = grow_columns(rows, 60, 1, homes=(0, 1), metric="cosine")
    one, other = (index.ravel() for index in np.indices((60, 60)))
    _, chances = forest.find_chances(rows, one, rows, other)
    for tree, (near, margins) in enumerate(forest.find_goals(rows, 30)):
        for reach in (-1.0, 0.3, 0.9):
            goals = np.where(goes_to(margins, reach), near, -1)
            home = goals[:, 0]
            visits = (goals[one] == home[other][:, None]).any(axis=1) & (home[other] >= 0)
            np.testing.assert_array_equal(chances[:, 2 * tree] <= reach, visits)
    assert (chances[one == other][:, 0] == TOGETHER).all()


def test_the_longest_rows_meet_everybody_under_inner_product():
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
    for near, margins in forest.find_goals(rows, 5):
        assert (near[hubs, 0] >= 0).all()
        assert (goes_to(margins, np.inf)[hubs].sum(axis=1) == 1).all()
    _, margins = forest.find_chances(rows, np.arange(400), rows, np.full(400, 407))
    assert (margins == TOGETHER).all()


def test_nobody_is_a_hub_where_all_are_as_long_or_too_few_are_sampled():
    alike = rows_of([{c: 1.0, c + 1: 1.0} for c in range(300)])
    assert not grow_columns(alike, 300, 1, homes=(0,), metric="inner_product").are_hubs(alike).any()
    lengths = rows_of([{c: 1.0 + c} for c in range(300)])
    assert not grow_columns(lengths, 10**6, 1, homes=(0,), metric="inner_product").are_hubs(lengths).any()
