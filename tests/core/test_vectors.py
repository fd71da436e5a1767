"""Vectors of any kind: rows of pieces and new ones, put in order slice by slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from annspark.core.vectors import Grouped, groups_of, is_sparse, merged_rows, merging, plain


@pytest.mark.parametrize("kind", ["dense", "sparse", "grouped", "grouped sparse"])
@given(st.integers(0, 2**32 - 1))
def test_old_and_new_rows_are_put_in_order(kind, seed):
    rng = np.random.default_rng(seed)

    def some(n, number):
        numbers = rng.integers(-3, 4, (n, 5)).astype(number)
        vectors = csr_array(numbers) if "sparse" in kind else numbers
        return Grouped(vectors, rng.integers(9, size=n)) if "grouped" in kind else vectors

    def dense(vectors):
        vectors = plain(vectors)
        return vectors.toarray() if is_sparse(vectors) else vectors

    number, of_new = rng.choice([np.float32, np.float64], 2)
    old = [some(n, number) for n in rng.integers(0, 5, rng.integers(1, 6))]
    new = some(rng.integers(0, 4), of_new)
    n_old = sum(len(dense(piece)) for piece in old)
    row = np.flatnonzero(rng.random(n_old) < 0.7)
    order = rng.permutation(len(row) + len(dense(new)))
    wanted = np.concatenate([np.concatenate([dense(piece) for piece in old])[row], dense(new)])[order]
    merged, cut = merging(old, row, new, order), int(rng.integers(len(order) + 1))
    both = merged_rows(iter(old), row, new, order)
    for start, end, got in (
        (0, cut, merged(0, cut)),
        (cut, len(order), merged(cut, len(order))),
        (0, len(order), merged(0, len(order))),
        (0, len(order), both),
    ):
        np.testing.assert_array_equal(dense(got), wanted[start:end])
        assert dense(got).dtype == max(number, of_new, key=lambda one: np.dtype(one).itemsize)
        if "grouped" in kind:
            groups = np.concatenate([np.concatenate([groups_of(piece) for piece in old])[row], groups_of(new)])
            np.testing.assert_array_equal(groups_of(got), groups[order][start:end])
