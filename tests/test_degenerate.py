"""Degenerate vectors: every build ends, its table is sound, and where the answer is known beforehand it is that one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, vstack

from annspark import build_neighbors
from tests.helpers import lists_of, make_table
from tests.oracle import Rows, assert_sound, recall_of

pytestmark = pytest.mark.slow
RECALL = 0.95

Known = Callable[[np.ndarray, np.ndarray], None]  # asserts, given everybody's neighbors and what is told of them (n, k)
Made = tuple[Rows, Known | None]


@dataclass(frozen=True)
class Case:
    """make(n) returns n rows, and what is known of their neighbors."""

    make: Callable[[int], Made]
    rows: int = 1500
    settings: dict[str, Any] = field(default_factory=dict)


def first_but_oneself(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Drop each row itself, or the last, of k + 1 ids a row."""
    own = first == rows[:, None]
    own[~own.any(axis=1), -1] = True
    return first[~own].reshape(len(rows), -1)


def twins(group: np.ndarray) -> Known:
    """Who has k twins or more, has those with the lowest ids as neighbors, at distance 0.

    group : of each row; those of one group are twins
    """
    order, size = np.argsort(group, kind="stable"), np.bincount(group)
    start = np.cumsum(size) - size

    def check(near, told):
        rows, k = np.flatnonzero(size[group] > near.shape[1]), near.shape[1]
        first = order[start[group[rows]][:, None] + np.arange(k + 1)]
        np.testing.assert_array_equal(near[rows], first_but_oneself(first, rows))
        if told.min() >= -1e-6:
            np.testing.assert_allclose(told[rows], 0, atol=1e-6)
        else:  # products: all alike
            assert np.ptp(told[rows], axis=1).max() == 0

    return check


def first_ones(order: np.ndarray) -> Known:
    """Everybody has the same neighbors, but for themselves: those first in an order."""

    def check(near, told):
        first = np.tile(order[: near.shape[1] + 1], (len(near), 1))
        expected = first_but_oneself(first, np.arange(len(near)))
        np.testing.assert_array_equal(np.sort(near, axis=1), np.sort(expected, axis=1))

    return check


def hub(row: int, whose: np.ndarray) -> Known:
    """One row is the nearest of many others, all but those beyond any doubt."""

    def check(near, told):
        asked = whose.copy()
        asked[row] = False
        assert (near[asked, 0] == row).all()

    return check


def lowest(rows: np.ndarray) -> Known:
    """Some rows have everybody's lowest ids as neighbors, as their product with everybody is 0."""

    def check(near, told):
        first = np.tile(np.arange(near.shape[1] + 1), (len(rows), 1))
        np.testing.assert_array_equal(near[rows], first_but_oneself(first, rows))
        assert not told[rows].any()

    return check


def blobs(n: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(1, n // 100), dim))
    return (centres[rng.integers(len(centres), size=n)] + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


def identical(n: int) -> Made:
    return np.tile(np.arange(1, 17, dtype=np.float32), (n, 1)), twins(np.zeros(n, int))


def a_third_identical(n: int) -> Made:
    rows, some = blobs(n, 32), np.random.default_rng(1).permutation(n)[: n // 3]
    rows[some] = rows[some[0]]
    group = np.arange(n) + 1
    group[some] = 0
    return rows, twins(group)


def one_direction(n: int) -> Made:
    # Powers of two: all have the same direction to the last bit.
    rows = np.arange(1, 17) * 2.0 ** (np.arange(n) % 16)[:, None]
    return rows.astype(np.float32), twins(np.zeros(n, int))


def one_direction_any_norm(n: int) -> Made:
    norm = 1 + np.random.default_rng(0).permutation(n)
    return (np.arange(1, 17) * norm[:, None] / n).astype(np.float32), first_ones(np.argsort(-norm))


def giant(n: int) -> Made:
    rows = blobs(n, 64)
    rows[n // 2] *= 1000
    return rows, hub(n // 2, rows @ rows[n // 2] > 0.05 * np.linalg.norm(rows[n // 2]))


def middle_of_a_sphere(n: int) -> Made:
    rows = np.random.default_rng(0).normal(size=(n, 256))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[n // 2] = 0
    return rows.astype(np.float32), hub(n // 2, np.ones(n, bool))


def one_line(n: int) -> Made:
    along = np.random.default_rng(0).permutation(n)
    return (along[:, None] * np.array([1, 2, -1, 0.5]) + np.arange(4)).astype(np.float32), None


def plain(dim: int) -> Callable[[int], Made]:
    return lambda n: (blobs(n, dim), None)


def sparse(n: int, columns: int, each: int) -> csr_array:
    """Return n rows of about so many numbers, few columns having most of them."""
    rng = np.random.default_rng(0)
    column = (columns * rng.random((n, each)) ** 3).astype(np.int64)
    rows = csr_array((np.ones(n * each), column.ravel(), np.arange(n + 1) * each), (n, columns))
    rows.sum_duplicates()
    rows.data = (rows.data * rng.uniform(0.5, 2, rows.nnz)).astype(np.float32)
    return rows


def mostly_empty(n: int) -> tuple[csr_array, np.ndarray]:
    """Return rows five sixths of which hold nothing, and the groups of those that are the same."""
    rows, filled = sparse(n // 6, 2000, 8), np.sort(np.random.default_rng(1).permutation(n)[: n // 6])
    counts, group = np.zeros(n, np.int64), np.zeros(n, int)
    counts[filled], group[filled] = np.diff(rows.indptr), 1 + np.arange(n // 6)
    return csr_array((rows.data, rows.indices, np.concatenate([[0], np.cumsum(counts)])), (n, 2000)), group


def empty_sets(n: int) -> Made:
    rows, group = mostly_empty(n)
    return rows, twins(group)


def empty_rows(n: int) -> Made:
    rows, group = mostly_empty(n)
    return rows, lowest(np.flatnonzero(group == 0))


def one_number_each(column: np.ndarray, values: np.ndarray) -> csr_array:
    return csr_array((values.astype(np.float32), column, np.arange(len(column) + 1)))


def one_column(n: int) -> Made:
    return one_number_each(np.full(n, 7), 1 + np.arange(n)), twins(np.zeros(n, int))


def one_column_any_norm(n: int) -> Made:
    values = 1 + np.random.default_rng(0).permutation(n)
    return one_number_each(np.full(n, 7), values / n), first_ones(np.argsort(-values))


def own_column(n: int) -> Made:
    column = np.random.default_rng(0).integers(max(1, n // 100), size=n)
    return one_number_each(column, 1 + np.arange(n) % 5), twins(column)


def one_long_row(n: int) -> Made:
    rows, whole = sparse(n, n, 10), csr_array(np.ones((1, n), np.float32))
    return csr_array(vstack([rows[: n // 2], whole, rows[n // 2 : -1]], format="csr")), None


def wide(n: int) -> Made:
    return sparse(n, 10_000_000, 10), None


EUCLIDEAN, PRODUCT, JACCARD = ({"metric": name} for name in ("euclidean", "inner_product", "jaccard"))
CASES = {
    "identical, cosine": Case(identical),
    "identical, euclidean": Case(identical, settings=EUCLIDEAN),
    "identical, inner product": Case(identical, settings=PRODUCT),
    "a third identical, cosine": Case(a_third_identical),
    "a third identical, euclidean": Case(a_third_identical, settings=EUCLIDEAN),
    "one direction, cosine": Case(one_direction),
    "one direction, inner product": Case(one_direction_any_norm, settings=PRODUCT),
    "hub of norm x 1000, inner product": Case(giant, settings=PRODUCT),
    "middle of a sphere, euclidean": Case(middle_of_a_sphere, settings=EUCLIDEAN),
    "one line, euclidean": Case(one_line, settings=EUCLIDEAN),
    "dim 1, euclidean": Case(plain(1), settings=EUCLIDEAN),
    "dim 1, cosine": Case(plain(1)),
    "dim 1, manhattan": Case(plain(1), settings={"metric": "manhattan"}),
    "dim 4096, cosine": Case(plain(4096), 300),
    "k = 1": Case(plain(32), settings={"k": 1}),
    "k = 500": Case(plain(32), settings={"k": 500}),
    "leaf_rows = 1, k = 50": Case(plain(32), settings={"k": 50, "leaf_rows": 1}),
    "empty sets, jaccard": Case(empty_sets, settings=JACCARD),
    "empty rows, inner product": Case(empty_rows, settings=PRODUCT),
    "one column for all, cosine": Case(one_column),
    "one column for all, inner product": Case(one_column_any_norm, settings=PRODUCT),
    "one column of many each, cosine": Case(own_column),
    "one column of many each, jaccard": Case(own_column, settings=JACCARD),
    "one long row, cosine": Case(one_long_row),
    "one long row, inner product": Case(one_long_row, settings=PRODUCT),
    "10,000,000 columns, cosine": Case(wide),
    "10,000,000 columns, jaccard": Case(wide, settings=JACCARD),
}


def table_of(spark, rows):
    if isinstance(rows, np.ndarray):
        return make_table(spark, rows, partitions=2)
    parts = [(rows.indices[a:b].tolist(), rows.data[a:b].tolist()) for a, b in pairwise(rows.indptr)]
    numbered = [(user, *part) for user, part in enumerate(parts)]
    return spark.createDataFrame(numbered, "user_id bigint, vector array<int>, number array<float>").repartition(2)


@pytest.mark.parametrize("name", CASES)
def test_a_degenerate_case_gives_a_sound_table_with_the_recall_asked_for(spark, name):
    case = CASES[name]
    rows, known = case.make(case.rows)
    named = {"leaf_rows": 100, "k": 10, "metric": "cosine", "audit_users": 300} | case.settings
    columns = {} if isinstance(rows, np.ndarray) else {"values_col": "number"}
    result = build_neighbors(table_of(spark, rows), recall=RECALL, **named, **columns)
    lists = lists_of(result.table)
    result.table.unpersist()
    k, metric = named["k"], named["metric"]
    assert_sound(lists, rows, range(case.rows), k, metric)
    assert recall_of(lists, rows, k, metric) > RECALL - 0.03
    if known:
        near = np.array([[other for other, _ in lists[user]] for user in range(case.rows)])
        told = np.array([[value for _, value in lists[user]] for user in range(case.rows)])
        known(near, -told if metric == "inner_product" else told)
