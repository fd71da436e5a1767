"""Array operations, beside NumPy's own and loops."""

import numpy as np
import pytest

from annspark.core.arrays import distinct, looked_up, members_of, places_in_groups, ranges


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize(("n", "below"), [(0, 1), (1, 1), (500, 20), (500, 2**30)])
def test_distinct_numbers_are_those_of_numpy(kind, n, below):
    numbers = np.random.default_rng(n).integers(-below, below, n).astype(kind)
    found = distinct(numbers)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, np.unique(numbers))


@pytest.mark.parametrize("counts", [[], [0, 0], [2, 3], [3, 0, 1, 2]])
def test_ranges_and_places_are_those_of_loops(counts):
    counts = np.array(counts, np.int64)
    first = np.arange(len(counts))[::-1] * 10
    whole = [number for begin, count in zip(first, counts, strict=True) for number in range(begin, begin + count)]
    assert ranges(first, counts).tolist() == whole
    groups = np.arange(len(counts))[::-1]
    starts = np.cumsum(counts) - counts
    members = [starts[group] + place for group in groups for place in range(counts[group])]
    assert members_of(groups, counts).tolist() == members
    assert places_in_groups(counts).tolist() == [place for count in counts for place in range(count)]


def test_values_are_looked_up():
    found = looked_up(np.array([5, 1, 7, 5]), np.array([7, 5, 2]), np.array([70, 50, 20]))
    assert found.tolist() == [50, 0, 70, 50]
    assert looked_up(np.array([5]), np.array([], np.int64), np.array([], np.int64)).tolist() == [0]
