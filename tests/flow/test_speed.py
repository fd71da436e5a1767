"""The kernels that a plan times, by a clock that only the join moves."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.sparse import random_array

from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.join import join_leaves
from annspark.core.metric import prepare
from annspark.core.vectors import len_of, sparse_rows
from annspark.flow import speed
from tests.helpers import clustered

ROW, PAIR = 3.0, 2.0  # seconds


@pytest.fixture
def joins(monkeypatch):
    """Have a join take ROW for a vector and PAIR for a pair, and nothing else take any time; return pairs."""
    pairs = []

    def join(vectors, *arguments):
        joined = join_leaves(vectors, *arguments)
        pairs.append(joined.pairs)
        return joined

    def now():
        return sum(ROW * 2000 + PAIR * each for each in pairs)

    monkeypatch.setattr(speed, "join_leaves", join)
    monkeypatch.setattr(speed, "time", SimpleNamespace(thread_time=now))
    return pairs


def dense():
    vectors = prepare(clustered(2000), "cosine")
    return vectors, grow_forest(vectors, 20, trees=1, split="two_means", seed=0, metric="cosine")


def sparse():
    rows = random_array((2000, 300), density=0.03, format="csr", rng=np.random.default_rng(0), dtype=np.float32)
    rows = prepare(sparse_rows(np.diff(rows.indptr), rows.indices, rows.data, 300), "cosine")
    return rows, grow_columns(rows, 2000, 20, homes=(0,), metric="cosine")


@pytest.mark.parametrize("world", [dense, sparse])
def test_two_joins_tell_a_row_from_its_pairs(joins, world):
    vectors, forest = world()
    found = speed.time_kernels(vectors, "cosine", forest, 4, 10)
    few, many = joins
    assert len_of(vectors) == 2000
    assert many > 1.5 * few
    assert (found.row, found.pair, found.reference) == (pytest.approx(ROW), pytest.approx(PAIR), 0)


def test_where_probes_add_no_pairs_all_is_taken_for_pairs(joins):
    vectors, forest = dense()
    found = speed.time_kernels(vectors, "cosine", forest, 1, 10)
    assert found.row == 0
    assert found.pair == pytest.approx(PAIR + ROW * 2000 / joins[1])
