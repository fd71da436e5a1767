import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.selection import few_at_most, first_of_each, upper_bounds, upper_bounds_or_inf


@given(st.integers(0, 2**32 - 1), st.integers(1, 10), st.integers(1, 50), st.data())
def test_few_are_within_a_bound_of_the_mth_smallest(seed, groups, levels, data):
    m = data.draw(st.integers(1, 32 * groups))
    scores = np.random.default_rng(seed).integers(-levels, levels, (32 * groups, 15)).astype(np.float32)
    scores[:, 3] *= np.float32(0)  # zeros of either sign are equal
    bound = upper_bounds(scores, m)
    assert (bound >= np.sort(scores, axis=0)[m - 1]).all()
    row, column, score = few_at_most(scores, bound)
    first, values, count = first_of_each(column, score, row, 15, m)
    np.testing.assert_array_equal(first, np.argsort(scores, axis=0, kind="stable")[:m].T)
    np.testing.assert_array_equal(values, np.sort(scores, axis=0)[:m].T)
    np.testing.assert_array_equal(count, (scores <= bound).sum(axis=0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 600), st.integers(1, 80))
def test_upper_bounds_or_inf_are_upper_bounds_of_the_mth_smallest(seed, n_rows, m):
    block = np.random.default_rng(seed).normal(size=(n_rows, 10)).astype(np.float32)
    before = block.copy()
    bound = upper_bounds_or_inf(block, m)
    mth = np.sort(block, axis=0)[m - 1] if m <= n_rows else np.full(10, np.inf)
    assert (bound >= mth).all()
    np.testing.assert_array_equal(block, before)


def test_upper_bounds_or_inf_are_close_when_there_are_many_rows():
    block = np.random.default_rng(5).random((2000, 100), np.float32)
    survivors = (block <= upper_bounds_or_inf(block, 10)).sum(axis=0)
    assert survivors.min() >= 10
    assert survivors.mean() < 15
