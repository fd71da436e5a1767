"""Visitors: what they tell after residents have left and others have come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.routes import EVERY_LEAF
from annspark.core.visitors import NO_VISITORS, gather_visitors, renew_visitors

TARGETS = np.array([EVERY_LEAF, 0, 1, 2, 3, 4, 70], np.int32)


def visits_in(visitors, leaf):
    """Return the visits of residents one by one, the inverse of gather_visitors: a resident, and a leaf it visits.

    leaf : home of each resident, ascending, in the order of ids within a leaf
    """
    rows, visited = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for one in np.unique(leaf):
        here = np.flatnonzero(leaf == one)
        targets, packed = visitors.of_leaf(one)
        entry, column = np.nonzero(np.unpackbits(packed, axis=1)[:, visitors.place[here]] if len(targets) else packed)
        rows.append(here[column])
        visited.append(targets[entry])
    return np.concatenate(rows), np.concatenate(visited)


def some_rows(rng, n):
    """Return the homes of rows, ascending, and which of the targets each visits."""
    return np.sort(rng.integers(0, 4, n)), rng.random((n, len(TARGETS))) < rng.choice([0, 0.1, 0.6])


def told(visitors, leaf):
    """Return which of the targets each row visits."""
    found = np.zeros((len(leaf), len(TARGETS)), bool)
    row, visited = visits_in(visitors, leaf)
    found[row, np.searchsorted(TARGETS, visited)] = True
    assert found.sum() == len(row)
    return found


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_residents_that_stay_keep_their_visits_and_new_ones_have_theirs(seed, sizes):
    rng = np.random.default_rng(seed)
    leaf, ids, visits, visitors = np.empty(0, int), np.empty(0), np.empty((0, len(TARGETS)), bool), NO_VISITORS
    for n in sizes:
        stays = np.flatnonzero((rng.random(len(leaf)) < rng.choice([0.2, 0.9, 1])) | (leaf == rng.integers(4)))
        new_leaf, new_visits = some_rows(rng, n)
        before = np.concatenate([stays, np.full(n, -1)])
        together = np.concatenate([leaf[stays], new_leaf])
        ids = np.concatenate([ids[stays], rng.random(n)])
        order = np.lexsort((ids, together))
        before, leaf, ids = before[order], together[order], ids[order]
        visits = np.concatenate([visits[stays], new_visits])[order]
        counts = np.where(before < 0, visits.sum(axis=1), 0)
        visitors = renew_visitors(visitors, leaf, before, counts, TARGETS[np.nonzero(visits[before < 0])[1]])
        np.testing.assert_array_equal(told(visitors, leaf), visits)
        assert (np.diff(visitors.first) > 0).all()
        assert all(visitors.of_leaf(one)[1].any(axis=1).all() for one in range(4))


def test_residents_take_the_bits_of_those_that_have_left():
    leaf = np.zeros(16, int)
    visitors = gather_visitors(leaf, np.ones(16, int), np.full(16, 3, np.int32))
    before = np.array([*range(8), *[-1] * 8])
    renewed = renew_visitors(visitors, leaf, before, np.where(before < 0, 1, 0), np.full(8, 3, np.int32))
    assert len(renewed.bits) == len(visitors.bits) == 2
