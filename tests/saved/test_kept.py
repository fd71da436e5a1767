"""The lists an index keeps: written and read, and without what is gone."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core.visitors import gather_visitors
from annspark.index_rows import contents_with, merged
from annspark.saved.kept import Gone, KeptRows, read_rows, read_visitors, write_rows, write_visitors
from annspark.spark.arrow import to_binary, to_lists
from annspark.tables import COUNTS, DISTANCES, IDS, NEIGHBOR_IDS
from tests.core.test_visitors import visits_in


def rows_of(lists, whole):
    """Return rows 0, 1, ... with lists of (distance, id)."""
    flat = [pair for found in lists for pair in found]
    n, counts = len(lists), np.array([len(found) for found in lists], np.int64)
    return KeptRows(
        ids=pa.array(range(n), pa.int64()),
        hashes=np.arange(n) * 7,
        contents=np.arange(n) * 11,
        homes=np.arange(2 * n, dtype=np.int32).reshape(n, 2) - 1,
        neighbor_ids=pa.array([i for _, i in flat], pa.int64()),
        distances=np.array([d for d, _ in flat], np.float32),
        first=np.cumsum(counts) - counts,
        counts=counts,
        whole=np.array(whole, bool),
    )


def lists_in(rows):
    pairs = list(zip(rows.distances.tolist(), rows.neighbor_ids.to_pylist(), strict=True))
    return [pairs[a : a + n] for a, n in zip(rows.first.tolist(), rows.counts.tolist(), strict=True)]


LISTS = [[(0.5, 3), (1.0, 2)], [], [(0.25, 9)], [(1.0, 0), (1.0, 1), (2.0, 9)]]


@pytest.mark.parametrize("ids", [list("abcd"), [b"\x01", b"", b"\xff", b"a"], [3, 2, 1, 0]])
def test_rows_come_back_as_they_were_written(tmp_path, ids):
    rows = rows_of(LISTS, [False, True, True, False])
    named = KeptRows(
        **vars(rows) | {"ids": pa.array(ids), "neighbor_ids": pa.array(ids).take(pa.array([0, 1, 2, 3, 0, 1]))}
    )
    write_rows(str(tmp_path / "rows"), named)
    back = read_rows(str(tmp_path / "rows"))
    for name, value in vars(named).items():
        if isinstance(value, pa.Array):
            assert getattr(back, name).equals(value)
        else:
            np.testing.assert_array_equal(getattr(back, name), value)


def test_what_is_gone_is_in_no_list_and_short_lists_are_told():
    rows = rows_of(LISTS, [False, True, True, False])
    left = rows.without(Gone(pa.array([9, 2]), np.array([14, 63])))
    assert left.ids.to_pylist() == [0, 1, 3]
    assert lists_in(left) == [[(0.5, 3)], [], [(1.0, 0), (1.0, 1)]]
    assert left.are_short(2).tolist() == [True, False, False]
    assert left.farthest().tolist() == [0.5, np.inf, 1.0]


def test_nothing_is_left_where_all_rows_are_gone():
    left = rows_of(LISTS, [False, True, True, False]).without(Gone(pa.array([0, 1, 2, 3]), np.array([0, 7, 14, 21])))
    assert len(left.ids) == len(left.counts) == 0
    assert left.farthest().tolist() == []


def test_visits_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    leaf = np.sort(rng.integers(0, 9, 100))
    visits = rng.random((100, 9)) < 0.2
    visited = np.nonzero(visits)[1]
    write_visitors(str(tmp_path / "visits"), gather_visitors(leaf, visits.sum(axis=1), visited.astype(np.int32)))
    back = read_visitors(str(tmp_path / "visits"))
    found = np.zeros_like(visits)
    found[visits_in(back, leaf)] = True
    np.testing.assert_array_equal(found, visits)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 8))
def test_lists_take_in_what_is_before_their_end(seed, width, n):
    rng = np.random.default_rng(seed)

    def some(most):
        ids = rng.permutation(12)[: rng.integers(0, most + 1)].tolist()
        return sorted((float(i % 4), i) for i in ids)

    whole = rng.random(n) < 0.5
    lists = [some(width) for _ in range(n)]
    lists = [[] if keeps and len(found) == width else found for found, keeps in zip(lists, whole, strict=True)]
    whole = [keeps or not found for found, keeps in zip(lists, whole, strict=True)]
    offered = [(int(rng.integers(n)), some(width)) for _ in range(rng.integers(0, 12))]
    flat = [pair for _, found in offered for pair in found]
    counts = np.array([len(found) for _, found in offered], np.int32)
    blocks = {
        IDS: to_lists(pa.array([owner for owner, _ in offered], pa.int64()), np.array([len(offered)])),
        NEIGHBOR_IDS: to_lists(pa.array([i for _, i in flat], pa.int64()), np.array([len(flat)])),
        DISTANCES: to_binary(np.array([d for d, _ in flat], np.float32), np.array([len(flat)])),
        COUNTS: to_binary(counts, np.array([len(offered)])),
    }
    got = merged(rows_of(lists, whole), pa.table(blocks), width)
    for row, (found, keeps) in enumerate(zip(lists, whole, strict=True)):
        more = [pair for owner, pairs in offered if owner == row for pair in pairs]
        near = sorted({*found, *(pair for pair in more if keeps or pair <= found[-1])})
        assert lists_in(got)[row] == near[:width]
        assert got.whole[row] == (keeps and len(near) < width)


def test_contents_tell_who_may_be_a_neighbor():
    contents, hashes = np.array([0, 5, -7, 2**62]), np.array([3, -1, 9, 4])
    told = contents_with(contents, hashes, np.array([9, 3, 4]), np.array([-7, 0, 2**62]))
    assert (told != contents).tolist() == [True, False, True, True]
    assert len(set(told.tolist())) == 4
