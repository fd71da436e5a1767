"""Degenerate sparse rows, and what is known of their neighbors."""

import numpy as np
from scipy.sparse import csr_array, vstack

from check import known
from check.known import Known
from check.rows import sparse


def draw(n: int, columns: int, each: int, seed: int = 0) -> csr_array:
    """Return n rows of about so many numbers, few columns having most of them."""
    rng = np.random.default_rng(seed)
    column = (columns * rng.random((n, each)) ** 3).astype(np.int64)
    ones = csr_array((np.ones(n * each), column.ravel(), np.arange(n + 1) * each), (n, columns))
    ones.sum_duplicates()
    return sparse(ones.data * rng.uniform(0.5, 2, ones.nnz), ones.indices, ones.indptr, ones.shape)


def zeros(n: int) -> tuple[csr_array, Known]:
    """Five sixths of the rows are empty sets, which are each other's twins."""
    rows, group = _with_zeros(n)
    return rows, known.twins(group)


def zeros_product(n: int) -> tuple[csr_array, Known]:
    """As zeros; an empty row's product with everybody is 0."""
    rows, group = _with_zeros(n)
    return rows, known.lowest(np.flatnonzero(group == 0))


def one_column(n: int) -> tuple[csr_array, Known]:
    """Everybody has the one column that there is: under cosine all are twins."""
    return _columns(np.full(n, 7), 1 + np.arange(n)), known.twins(np.zeros(n, int))


def one_column_product(n: int) -> tuple[csr_array, Known]:
    """As one_column; the largest numbers are everybody's neighbors."""
    values = 1 + np.random.default_rng(0).permutation(n)
    return _columns(np.full(n, 7), values / n), known.first_ones(np.argsort(-values))


def own_column(n: int) -> tuple[csr_array, Known]:
    """Everybody has one column, of a thousand: under cosine and jaccard those of one column are twins."""
    column = np.random.default_rng(0).integers(max(1, n // 100), size=n)
    return _columns(column, 1 + np.arange(n) % 5), known.twins(column)


def long_row(n: int) -> tuple[csr_array, None]:
    """One row has a number in every column there is, the others have ten."""
    rows = draw(n, n, 10)
    whole = sparse(np.ones(n), np.arange(n), np.array([0, n]), (1, n))
    return csr_array(vstack([rows[: n // 2], whole, rows[n // 2 : -1]], format="csr")), None


def wide(n: int) -> tuple[csr_array, None]:
    """Ten numbers a row in ten million columns."""
    return draw(n, 10_000_000, 10), None


def _with_zeros(n: int) -> tuple[csr_array, np.ndarray]:
    rows, filled = draw(n // 6, 2000, 8), np.sort(np.random.default_rng(1).permutation(n)[: n // 6])
    counts, group = np.zeros(n, np.int64), np.zeros(n, int)
    counts[filled], group[filled] = np.diff(rows.indptr), 1 + np.arange(n // 6)
    return sparse(rows.data, rows.indices, np.concatenate([[0], np.cumsum(counts)]), (n, 2000)), group


def _columns(column: np.ndarray, values: np.ndarray) -> csr_array:
    return sparse(values, column, np.arange(len(column) + 1), (len(column), int(column.max()) + 1))
