"""The benchmark of the uses: the exact answers it compares with."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from jobs.benchmark import uses
from tests.oracle import all_distances


@pytest.mark.parametrize("block", [7, 1000])
def test_the_pairs_within_a_cut_off_are_all_of_them(block, monkeypatch):
    monkeypatch.setattr(uses, "BLOCK", block)
    there = np.random.default_rng(0).random((60, 8)) < 0.4
    there[:, 0] |= ~there.any(axis=1)
    rows = csr_array(there * np.arange(1.0, 9))
    far = all_distances(rows.toarray(), "cosine")
    low, high = np.nonzero(np.triu(far <= 0.31, 1))
    found = uses.pairs_within(rows, 0.31)
    order = np.lexsort((found[:, 1], found[:, 0]))
    np.testing.assert_allclose(found[order], np.stack([low, high, far[low, high]], axis=1), atol=1e-12)


def test_pairs_are_counted_that_several_groupings_have_together():
    ours, theirs = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 6, 7, 7, 7])
    assert uses.pairs_together(ours) == 4
    assert uses.pairs_together(theirs) == 4
    assert uses.pairs_together(ours, theirs) == 2


def test_linked_rows_are_of_one_component():
    assert uses.components(np.array([[0, 3], [3, 4], [1, 2]]), 6).tolist() == [0, 1, 1, 0, 0, 2]
