"""The benchmark of the uses: the exact answers it compares with."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from jobs.benchmark import uses
from tests.oracle import all_distances


@pytest.mark.parametrize("block", [3, 1000])
def test_the_pairs_within_a_cut_off_are_all_of_them(block, monkeypatch):
    monkeypatch.setattr(uses, "BLOCK", block)
    there = np.random.default_rng(0).random((60, 8)) < 0.4
    there[:, 0] |= ~there.any(axis=1)
    rows = csr_array(there * np.arange(1.0, 9))
    far = all_distances(rows.toarray(), "cosine")
    np.fill_diagonal(far, np.inf)
    asked = np.array([4, 7, 40, 59])
    row, other = np.nonzero(far[asked] <= 0.31)
    row = asked[row]
    found = uses.pairs_within(uses.unit_rows(rows), asked, 0.31)
    order = np.lexsort((found[:, 1], found[:, 0]))
    np.testing.assert_allclose(found[order], np.stack([row, other, far[row, other]], axis=1), atol=1e-12)
