"""What all other answers are compared with: distances worked out by hand, ties, and tables with every fault."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.oracle import (
    all_distances,
    answers_recall,
    assert_answers,
    assert_sound,
    between,
    exact_distances,
    faults_of,
    recall_by_row,
    recall_of,
)


@pytest.mark.parametrize(
    ("metric", "far"),
    [("cosine", 1 - 3 / 50**0.5), ("euclidean", 3), ("manhattan", 5), ("inner_product", -3), ("hamming", 3)],
)
def test_dense_distances_are_those_of_the_definition(metric, far):
    rows = np.array([[1, 2, 0], [3, 0, 1], [0, 0, 1]], np.float32)
    assert between(rows[[1]], rows, metric)[0, 0] == pytest.approx(far)


def test_sparse_distances_are_those_of_the_same_rows_dense():
    rows = csr_array(np.array([[1, 2, 0], [3, 0, 1], [0, 0, 1]], np.float32))
    for metric in ("cosine", "euclidean", "inner_product", "jaccard"):
        np.testing.assert_allclose(all_distances(rows, metric), all_distances(rows.toarray(), metric), atol=1e-12)
    np.testing.assert_allclose(between(rows[[1]], rows, "jaccard")[0], [2 / 3, 0, 0.5])
    empty = csr_array(np.array([[1], [0], [0]], np.float32))
    for same in (empty, empty.toarray()):
        np.testing.assert_allclose(between(same[[1]], same, "jaccard")[0], [1, 0, 0])


@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_distances_neither_overflow_nor_vanish(unit):
    rows = np.array([[3.0, 4], [0, 0.5]]) * unit
    np.testing.assert_allclose(all_distances(rows, "euclidean")[0, 1] / unit, 4.6097722286, rtol=1e-9)
    np.testing.assert_allclose(all_distances(rows, "manhattan")[0, 1] / unit, 6.5)
    np.testing.assert_allclose(all_distances(rows, "cosine")[0, 1], 0.2)


def test_exact_distances_leave_oneself_out_whatever_the_block(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(30, 4))
    everything = all_distances(rows, "euclidean")
    np.fill_diagonal(everything, np.inf)
    monkeypatch.setattr("tests.oracle.BLOCK", 7)
    monkeypatch.setattr("tests.oracle.ASKED", 4)
    asked = np.arange(1, 30, 2)
    expected = np.sort(everything, axis=1)[asked]
    np.testing.assert_allclose(exact_distances(rows, asked, 5, "euclidean"), expected[:, :5])
    np.testing.assert_allclose(exact_distances(rows, asked, 50, "euclidean"), expected[:, :29])


def test_recall_counts_ties_and_neither_oneself_nor_repetitions():
    rows = np.array([[0.0], *[[1.0]] * 3, [5.0]])

    def recall(*near, k=2):
        return recall_by_row(rows, "euclidean", k, np.array([0]), [near])[0]

    assert recall(1, 2) == recall(2, 3) == recall(1, 2, 3) == 1
    assert recall(1, 4) == recall(1, 1) == recall(0, 1) == 0.5
    assert recall() == 0
    assert recall(1, 2, 3, 4, k=9) == 1  # all there are
    products = {0: [(3, 5.0)], 1: [(2, 1.0)], 2: [(3, 5.0)], 3: [(1, 5.0)]}
    assert recall_of(products, np.array([[0.0], [1], [2], [5]]), 1, "inner_product") == 0.5


def test_a_strict_recall_counts_only_what_float64_cannot_tell_apart():
    rows, lists = np.array([[0.0], [1.0], [1 + 1e-9]]), {0: [(2, 1.0)], 1: [(2, 0.0)], 2: [(1, 0.0)]}
    assert recall_of(lists, rows, 1, "euclidean") == 1
    assert recall_of(lists, rows, 1, "euclidean", tie=1e-12, floor=0) == pytest.approx(2 / 3)


def test_every_fault_of_a_table_is_counted():
    users, owners, others = np.array([0, 1, 3]), np.array([0, 0, 1, 3, 3]), np.array([2, 1, 1, 0, 0])
    told = np.array([0.5, 0.5, 0.1, 0.2, np.nan])
    assert faults_of(users, owners, others, 4, 2, told) == {
        "missing": 1, "own neighbor": 1, "twice the same": 1, "out of order": 1, "not a number": 1, "short": 1,
    }  # fmt: skip
    assert faults_of(users, owners, others, 4, 2) == {"missing": 1, "own neighbor": 1, "twice the same": 1, "short": 2}
    assert faults_of(np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([1, 2, 0]), 3, 1, told[:3] * 0) == {
        "missing": 1, "repeated": 1, "long": 1,
    }  # fmt: skip


def test_a_sound_table_is_in_the_order_of_the_ids_and_tells_true_distances():
    rows, ids = np.array([[0.0], [1.0], [-1.0]], np.float32), ["b", "c", "a"]
    sound = {"b": [("a", 1.0), ("c", 1.0)], "a": [("b", 1.0), ("c", 2.0)], "c": [("b", 1.0), ("a", 2.0)]}
    assert_sound(sound, rows, ids, 10, "euclidean")
    for wrong in ([("c", 1.0), ("a", 1.0)], [("a", 1.0), ("c", 1.1)], [("a", 1.0)], [("a", 1.0), ("b", 1.0)]):
        with pytest.raises(AssertionError):
            assert_sound(sound | {"b": wrong}, rows, ids, 10, "euclidean")
    with pytest.raises(AssertionError):
        assert_sound({"b": sound["b"]}, rows, ids, 10, "euclidean")


def test_answers_are_judged_by_their_distances_and_the_own_row_only_where_it_counts():
    rows = np.array([[0.0], [1.0], [3.0], [3.0]])
    sound = {0: [(0, 0.0), (1, 1.0)], 1: [(1, 0.0), (0, 1.0)]}
    assert_answers(sound, rows[:2], rows, 2, "euclidean")
    assert answers_recall(sound, rows[:2], rows, 2, "euclidean") == 1
    assert answers_recall(sound, rows[:2], rows, 2, "euclidean", same_ids=True) == 0.5
    assert answers_recall({0: [(2, 3.0)], 1: [(1, 0.0), (1, 0.0)]}, rows[:2], rows, 2, "euclidean") == 0.25
    tied = {0: [(1, 1.0), (3, 3.0)]}
    assert answers_recall(tied, rows[:1], rows, 2, "euclidean", same_ids=True) == 1
    for wrong in (
        {0: [(0, 0.0), (1, 1.0)]},
        sound | {1: [(0, 1.0), (1, 0.0)]},
        sound | {1: [(1, 0.0)]},
        sound | {1: [(1, 0.0), (1, 0.0)]},
        sound | {1: [(1, 0.0), (0, 1.5)]},
    ):
        with pytest.raises(AssertionError):
            assert_answers(wrong, rows[:2], rows, 2, "euclidean")
    with pytest.raises(AssertionError):
        assert_answers(sound, rows[:2], rows, 2, "euclidean", same_ids=True)
