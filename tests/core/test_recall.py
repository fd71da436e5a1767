import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.metric import METRICS
from annspark.core.recall import measure_recall, recall_by_user, tie_limit


def test_recall_is_the_share_found_within_the_exact_radius():
    found = np.array([[1, 2, 3, 4], [1, 2, 3, np.inf], [5, 6, 7, 8], [1, 2, 2, 2]], np.float32)
    radius = np.array([4, 3, 4, 2], np.float32)
    assert recall_by_user(found, radius, 4).tolist() == [1, 0.75, 0, 1]


def limits(radius, size=0.0, metric="euclidean", sparse=False):
    radius = np.array(radius, np.float64)
    return tie_limit(radius, np.full(len(radius), size), metric, sparse=sparse)


def test_what_float64_cannot_tell_from_the_kth_is_a_tie_and_nothing_else():
    found = np.array([[1, 2 * (1 + 4e-15)], [1, 2 * (1 + 4e-13)]])
    assert recall_by_user(found, limits([2, 2]), 2).tolist() == [1, 0.5]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("unit", [2.0**-90, 2.0**-20, 2.0**40, 2.0**90])
def test_a_tie_is_a_tie_in_any_unit(metric, sparse, unit):
    radius, sizes = np.array([0.3, 1e-7, 2.0, 0.0]), np.array([1.0, 3.0, 1e5, 7.0])
    if METRICS[metric].unit or METRICS[metric].binary:
        unit = 1.0  # these have none
    scale = unit**2 if METRICS[metric].largest else unit
    before = tie_limit(radius, sizes, metric, sparse=sparse)
    np.testing.assert_array_equal(tie_limit(radius * scale, sizes * scale, metric, sparse=sparse), before * scale)


def test_the_limit_grows_with_what_was_subtracted():
    near, far = limits([1.0], 1e3)[0] - 1, limits([1.0], 1e9)[0] - 1
    assert 0 < near < 1e-12 < far < 1e-6
    assert limits([np.inf], 1e9)[0] == np.inf


def test_distances_of_nearly_equal_directions_are_distinguished():
    # 1 - cos of 1e-12 and 1.001e-12: unit vectors of float64 hold some 10 digits of their difference.
    assert 1e-12 < limits([1e-12], metric="cosine")[0] < 1.001e-12
    # From 1 - x.y, as sparse rows have it, only what is above 1e-15 is known.
    assert 1e-12 < limits([1e-12], metric="cosine", sparse=True)[0] < 1.001e-12
    assert limits([1e-15], metric="cosine", sparse=True)[0] > 1.1e-15


def test_twins_at_distance_zero_count():
    assert recall_by_user(np.zeros((1, 3), np.float32), np.zeros(1, np.float32), 3).tolist() == [1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 50), st.floats(0, 1))
def test_the_interval_contains_the_mean_and_stays_within_0_and_1(seed, n, k, share):
    by_user = np.random.default_rng(seed).binomial(k, share, n) / k
    found = measure_recall(by_user, k)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.mean == pytest.approx(by_user.mean())
    assert (found.users, found.k) == (n, k)


@pytest.mark.parametrize("n", [1, 4, 10, 30, 1000])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_at_0_and_1_the_interval_contains_the_mean_to_the_last_bit(n, share):
    found = measure_recall(np.full(n, share), 10)
    assert found.low <= share <= found.high


def test_no_miss_among_few_users_is_no_proof_of_perfection():
    few, many = measure_recall(np.ones(30), 10), measure_recall(np.ones(1000), 10)
    assert few.low == pytest.approx(30 / (30 + 1.959964**2))  # Wilson, p = 1
    assert few.low < 0.9 < 0.99 < many.low < 1


def test_a_single_user_gives_a_wide_interval():
    found = measure_recall(np.array([0.9]), 10)
    assert found.high - found.low > 0.5


def test_more_users_and_less_spread_make_the_interval_narrower():
    def width(by_user):
        found = measure_recall(by_user, 10)
        return found.high - found.low

    spread, alike = np.tile([1.0, 0.6], 50), np.tile([0.9, 0.7], 50)
    assert width(alike) < width(spread)
    assert width(np.tile(spread, 4)) < width(spread)


@pytest.mark.parametrize(("a", "b"), [(19, 1), (3, 2), (1.5, 0.1)])
def test_the_interval_covers_the_true_recall(a, b):
    rng = np.random.default_rng(2024)
    k, users, repetitions = 10, 300, 2000
    true = a / (a + b)
    covered = 0
    for _ in range(repetitions):
        found = measure_recall(rng.binomial(k, rng.beta(a, b, users)) / k, k)
        covered += found.low <= true <= found.high
    assert covered / repetitions >= 0.93


def test_the_spread_over_users_is_measured():
    by_user = np.array([0.1] * 4 + [0.4] * 6 + [0.5] * 10 + [1.0] * 80)
    found = measure_recall(by_user, 10)
    assert found.p5 == pytest.approx(0.4)
    assert found.below_half == pytest.approx(0.1)
    assert found.bands == ()


def test_bands_hold_every_user_once_by_popularity():
    popularity = np.array([0, 0, 1, 4, 5, 19, 20, 49, 50, 10_000])
    by_user = np.array([0.1, 0.3, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9, 0.8, 1.0])
    bands = measure_recall(by_user, 10, popularity).bands
    assert [(band.first, band.last, band.users) for band in bands] == [
        (0, 0, 2), (1, 4, 2), (5, 9, 1), (10, 19, 1), (20, 49, 2), (50, None, 2),
    ]  # fmt: skip
    assert [band.mean for band in bands] == pytest.approx([0.2, 0.3, 0.5, 0.6, 0.8, 0.9])
    for band in bands:
        assert band.low <= band.mean <= band.high


def test_negative_distances_which_are_inner_products_count_by_distance_too():
    found = np.array([[-9, -5, -3], [-9, -5.00001, -4.9]], np.float32)
    assert recall_by_user(found, np.array([-3, -5], np.float32), 3).tolist() == [1, 2 / 3]
