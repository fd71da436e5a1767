"""Degenerate cases: vectors, settings, and what is known of the answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from check import dense_cases, sparse_cases
from check.known import Known
from check.rows import Rows


@dataclass(frozen=True)
class Case:
    """One case; make(n) returns about n rows, and what is known of their neighbors."""

    make: Callable[[int], tuple[Rows, Known | None]]
    rows: int = 100_000
    settings: dict[str, Any] = field(default_factory=dict)


EUCLIDEAN, PRODUCT, JACCARD = ({"metric": name} for name in ("euclidean", "inner_product", "jaccard"))
CASES = {
    "identical, cosine": Case(dense_cases.identical),
    "identical, euclidean": Case(dense_cases.identical, settings=EUCLIDEAN),
    "identical, inner product": Case(dense_cases.identical, settings=PRODUCT),
    "a third identical, cosine": Case(dense_cases.third, 300_000),
    "a third identical, euclidean": Case(dense_cases.third, 300_000, EUCLIDEAN),
    "one direction, cosine": Case(dense_cases.norms),
    "one direction, inner product": Case(dense_cases.longest, settings=PRODUCT),
    "hub of norm x 1000, inner product": Case(dense_cases.giant, settings=PRODUCT),
    "middle of a sphere, euclidean": Case(dense_cases.middle, 20_000, EUCLIDEAN),
    "one line, euclidean": Case(dense_cases.line, settings=EUCLIDEAN),
    "dim 1, euclidean": Case(dense_cases.plain(1), settings=EUCLIDEAN),
    "dim 1, cosine": Case(dense_cases.plain(1)),
    "dim 1, manhattan": Case(dense_cases.plain(1), settings={"metric": "manhattan"}),
    "dim 4096, cosine": Case(dense_cases.plain(4096), 20_000),
    "k = 1": Case(dense_cases.plain(32), settings={"k": 1}),
    "k = 500": Case(dense_cases.plain(32), settings={"k": 500}),
    "leaf_rows = 1, k = 50": Case(dense_cases.plain(32), settings={"k": 50, "leaf_rows": 1}),
    "zeros, jaccard": Case(sparse_cases.zeros, 120_000, JACCARD),
    "zeros, inner product": Case(sparse_cases.zeros_product, 120_000, PRODUCT),
    "one column for all, cosine": Case(sparse_cases.one_column),
    "one column for all, inner product": Case(sparse_cases.one_column_product, settings=PRODUCT),
    "one column each of 1,000, cosine": Case(sparse_cases.own_column),
    "one column each of 1,000, jaccard": Case(sparse_cases.own_column, settings=JACCARD),
    "a row of 100,000 numbers, cosine": Case(sparse_cases.long_row),
    "a row of 100,000 numbers, inner product": Case(sparse_cases.long_row, settings=PRODUCT),
    "10,000,000 columns, cosine": Case(sparse_cases.wide),
    "10,000,000 columns, jaccard": Case(sparse_cases.wide, settings=JACCARD),
}
