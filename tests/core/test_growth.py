"""The probes of a larger table, foreseen from a sample of it."""

import numpy as np
import pytest
from scipy.stats import binom

from annspark.core.calibrate import choose_probes
from annspark.core.centre_forest import grow_forest
from annspark.core.growth import Foreseen, count_placeable, foresee_probes, grow_with_rows, rank_weights
from annspark.core.metric import prepare
from annspark.core.plan import SAMPLED_PER_LEAF, count_limbs
from tests.core.test_calibrate import home_distances_of

K, GROWN, LEAVES = 10, 2400, 120


@pytest.fixture(scope="module")
def table():
    return prepare(np.random.default_rng(5).normal(size=(24_000, 10)), "cosine")


@pytest.mark.parametrize("ratio", [1, 1.5, 4, 100])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_the_weight_of_a_rank_is_the_chance_that_a_sample_holds_so_many_of_the_nearest(ratio, k):
    expected = binom.sf(np.arange(k), k, 1 / ratio)  # more than 0, 1, ... of k
    assert rank_weights(ratio, k) == pytest.approx(expected, abs=1e-12)


def test_the_weights_are_the_shares_of_neighbors_in_real_samples():
    rng = np.random.default_rng(0)
    kept = rng.random((20_000, 200)) < 1 / 3  # of rows in the order of their distance, those in the sample
    rank = np.cumsum(kept, axis=1)
    shares = [(kept[:, :K] & (rank[:, :K] == j)).any(axis=1).mean() for j in range(1, K + 1)]
    assert rank_weights(3, K) == pytest.approx(shares, abs=0.015)


def grown(vectors):
    """Return a forest with the leaves of the table, grown from the first rows of it or of a sample."""
    return grow_forest(vectors[:GROWN], LEAVES, trees=1, split="two_means", seed=1, metric="cosine")


def placed(forest, vectors):
    """Return other rows, which are routed, and how far the last rows are from their neighbors."""
    return vectors[GROWN:-1000], home_distances_of(forest, vectors, np.arange(len(vectors) - 1000, len(vectors)))


def test_a_sample_that_is_the_table_needs_the_probes_of_its_calibration(table):
    forest = grown(table)
    routed, distances = placed(forest, table)
    calibration = choose_probes(forest, routed, distances, 0.9)
    foreseen = foresee_probes(forest, routed, distances, 0.9, rows=len(table), ratio=1)
    assert foreseen.probes == pytest.approx(calibration.probes, rel=0.05)
    assert foreseen.low < foreseen.probes < foreseen.high


@pytest.mark.parametrize("ratio", [2, 4])
def test_a_sample_foresees_the_probes_of_the_table(table, ratio):
    forest = grown(table)
    calibration = choose_probes(forest, *placed(forest, table), 0.9)
    sample = table[: len(table) // ratio]
    forest = grown(sample)
    foreseen = foresee_probes(forest, *placed(forest, sample), 0.9, rows=len(table), ratio=ratio)
    assert foreseen.probes == pytest.approx(calibration.probes, rel=0.2)
    # The sample's own neighbors are farther away, and need more.
    assert choose_probes(forest, *placed(forest, sample), 0.9).probes > foreseen.probes


def test_growth_halves_with_every_tenfold_of_rows():
    seen = (Foreseen(100_000, 10, 9, 11), Foreseen(400_000, 20, 18, 23))  # a power of 0.5
    grown = grow_with_rows(seen, 4_000_000)
    steps = np.linspace(0, 1, 100_001)
    assert grown.probes == pytest.approx(20 * 10 ** np.mean(0.5 / 2**steps), rel=1e-4)
    assert (grown.rows, grown.low) == (4_000_000, 18)
    assert grown.high == pytest.approx(23 * 10**0.5)
    assert grow_with_rows(seen, 400_000) == Foreseen(400_000, 20, 18, 23)


def test_probes_never_fall_with_rows_nor_exceed_the_most_there_are():
    falling = (Foreseen(1000, 10, 9, 11), Foreseen(4000, 8, 7, 9))
    assert grow_with_rows(falling, 10**9) == Foreseen(10**9, 8, 7, 9)
    rising = (Foreseen(1000, 100, 90, 110), Foreseen(4000, 400, 380, 420))
    assert grow_with_rows(rising, 10**12).probes == grow_with_rows(rising, 10**12).high == 1000


def test_a_sample_places_as_many_leaves_as_it_can_grow_and_the_driver_can_hold():
    assert count_placeable(10**9, 80_000, 512, 64) == 80_000 // SAMPLED_PER_LEAF * 512
    assert count_placeable(10**6, 80_000, 512, 64) == 10**6
    assert count_placeable(10**9, 10, 512, 64) == 512
    assert count_placeable(10**9, 80_000, 120, 64) == 80_000 // 10 * 120  # smaller leaves of fewer vectors each
    assert count_placeable(10**9, 80_000, 40, 64) == 80_000 // 5 * 40
    placed = count_placeable(10**9, 10**8, 512, 64)
    assert count_limbs(placed // 512, 64) == 0 < count_limbs(placed // 512 + 1, 64)
