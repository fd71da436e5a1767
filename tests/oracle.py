"""The plain answers: distances by definition, exact neighbors, recall, and whether a table is sound.

All is float64 and SciPy's, nothing annspark's; every test and the benchmark judge by it. A row is known by its number.
Under inner_product a distance is minus the product, so that the smaller is the nearer under every metric.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from scipy.spatial.distance import cdist

Rows = np.ndarray | csr_array
Lists = Mapping[Any, Sequence[tuple[Any, float]]]

# Distances computed in two ways differ by rounding: this much, relative and absolute, counts as a tie.
TIE, FLOOR = 1e-5, 1e-6
ASKED, BLOCK = 1_000, 10_000  # rows compared at once


def between(a: Rows, b: Rows, metric: str) -> np.ndarray:
    """Return the distance of every row of a to every row of b: float64 (len(a), len(b))."""
    if issparse(a):
        return _between_sparse(*_narrowed(a, b), metric)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if metric == "inner_product":
        return -(a @ b.T)
    if metric == "jaccard":
        return cdist(a != 0, b != 0, "jaccard")
    if metric == "hamming":
        return np.rint(cdist(a, b, "hamming") * a.shape[1])  # the number that differ, not their share
    if metric == "cosine":  # from differences, which are exact where 1 - cos is not
        return cdist(_unit(a), _unit(b), "sqeuclidean") / 2
    size = _power_of_two(max(np.abs(a).max(initial=0), np.abs(b).max(initial=0)))
    return cdist(a / size, b / size, {"manhattan": "cityblock"}.get(metric, metric)) * size


def all_distances(rows: Rows, metric: str) -> np.ndarray:
    """Return the distance of every row to every row: float64 (n, n)."""
    return between(rows, rows, metric)


def exact_distances(rows: Rows, asked: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Return the ascending distances of some rows to their k nearest others, or all others where they are fewer."""
    n = rows.shape[0]
    k, found = min(k, n - 1), []
    for first in range(0, len(asked), ASKED):
        some = np.asarray(asked[first : first + ASKED])
        best = np.empty((len(some), 0))
        for start in range(0, n, BLOCK):
            far = between(rows[some], rows[start : start + BLOCK], metric)
            own = np.flatnonzero((some >= start) & (some < start + far.shape[1]))
            far[own, some[own] - start] = np.inf
            best = np.sort(np.hstack([best, far]), axis=1)[:, :k]
        found.append(best)
    return np.concatenate(found)


def recall_by_row(
    rows: Rows,
    metric: str,
    k: int,
    asked: np.ndarray,
    near: Iterable[Sequence[int]],
    *,
    radius: np.ndarray | None = None,
    tie: float = TIE,
    floor: float = FLOOR,
) -> np.ndarray:
    """Return, for each row asked, the share of its k exact neighbors that it was given.

    A neighbor counts when it is no farther than the exact k-th, by a distance computed here: neither how ties fall nor
    what a table says of its distances matters. Oneself and a second mention count for nothing.

    near   : of each row asked, the rows it was given
    radius : of each row asked, the distance of its exact k-th, where that is known
    """
    want = min(k, rows.shape[0] - 1)
    radius = exact_distances(rows, asked, k, metric)[:, -1] if radius is None else radius
    shares = np.zeros(len(asked))
    for i, (row, given) in enumerate(zip(asked, near, strict=True)):
        others = np.setdiff1d(np.asarray(given, np.int64), [row])
        if len(others):
            far = between(rows[[row]], rows[others], metric)
            shares[i] = min(want, (far <= radius[i] + tie * abs(radius[i]) + floor).sum()) / want
    return shares


def recall_of(lists: Lists, rows: Rows, k: int, metric: str, **ties: float) -> float:
    """Return the recall of a table {row: [(row, value), ...]} of all rows."""
    near = ([other for other, _ in lists[row]] for row in range(rows.shape[0]))
    return float(recall_by_row(rows, metric, k, np.arange(rows.shape[0]), near, **ties).mean())


def faults_of(
    users: np.ndarray, owners: np.ndarray, others: np.ndarray, n: int, k: int, told: np.ndarray | None = None
) -> dict[str, int]:
    """Return how often each fault occurs in a table of n rows that want k neighbors each; a sound one has none.

    users  : rows that have a list
    owners : whose neighbor each of the others is, in the order of the lists
    told   : the distances that the table has; without them the order is not judged
    """
    want, present, counts = min(k, n - 1), np.bincount(users, minlength=n), np.bincount(owners, minlength=n)
    own = owners == others
    pairs = owners[~own] * np.int64(n) + others[~own]
    faults = {
        "missing": (present == 0).sum(),
        "repeated": (present > 1).sum(),
        "own neighbor": own.sum(),
        "twice the same": len(pairs) - len(np.unique(pairs)),
    }
    if told is None:  # what is worth nothing does not fill a list
        counts = np.bincount(np.unique(pairs) // n, minlength=n)
    else:
        follows = owners[1:] == owners[:-1]
        falls = (told[1:] < told[:-1]) | ((told[1:] == told[:-1]) & (others[1:] < others[:-1]))
        faults |= {"long": (counts > want).sum(), "out of order": (follows & falls).sum()}
        faults |= {"not a number": (~np.isfinite(told)).sum()}
    faults["short"] = ((counts < want) & (present > 0)).sum()
    return {name: int(number) for name, number in faults.items() if number}


def assert_sound(lists: Lists, vectors: Rows, ids: Sequence[Any], k: int, metric: str) -> None:
    """Assert all that holds for any neighbor table, whatever its recall.

    That is: everybody has k neighbors, none of them twice or oneself, in the order of distance and id, at the distances
    that they truly have.
    """
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    rows, place = vectors[order], {ids[i]: number for number, i in enumerate(order)}
    assert set(lists) == set(place)
    assert {other for neighbors in lists.values() for other, _ in neighbors} <= set(place)
    owners = np.array([place[user] for user, neighbors in lists.items() for _ in neighbors], np.int64)
    others = np.array([place[other] for neighbors in lists.values() for other, _ in neighbors], np.int64)
    told = np.array([value for neighbors in lists.values() for _, value in neighbors], np.float64)
    told *= -1 if metric == "inner_product" else 1
    assert faults_of(np.array([place[user] for user in lists]), owners, others, len(ids), k, told) == {}
    ends = np.cumsum([len(neighbors) for neighbors in lists.values()])[:-1]
    for user, near, values in zip(lists, np.split(others, ends), np.split(told, ends), strict=True):
        if len(near):
            true = between(rows[[place[user]]], rows[near], metric)[0]
            np.testing.assert_allclose(values, true, rtol=1e-4, atol=1e-6)


def _between_sparse(a: csr_array, b: csr_array, metric: str) -> np.ndarray:
    if metric == "jaccard":
        a.data[:], b.data[:] = a.data != 0, b.data != 0
    products = (a @ b.T).toarray()
    if metric == "inner_product":
        return -products
    squares, theirs = (x.power(2).sum(axis=1) for x in (a, b))
    if metric == "cosine":
        return 1 - products / np.sqrt(squares[:, None] * theirs)
    if metric == "euclidean":
        return np.sqrt(np.maximum(squares[:, None] + theirs - 2 * products, 0))
    union = squares[:, None] + theirs - products
    return np.where(union > 0, 1 - products / np.maximum(union, 1), 0)  # two empty sets are the same


def _narrowed(a: csr_array, b: csr_array) -> list[csr_array]:
    """Return copies without the columns that both lack: a product takes time and memory for every column."""
    used = np.union1d(a.indices, b.indices)
    return [
        csr_array((x.data.astype(np.float64), np.searchsorted(used, x.indices), x.indptr), (x.shape[0], len(used)))
        for x in (a, b)
    ]


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)  # first, so that squares neither overflow nor vanish
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _power_of_two(number: float) -> float:
    """Return the power of two below a number: dividing by it rounds nothing."""
    return float(np.ldexp(1.0, np.frexp(number)[1] - 1)) if number else 1.0


def answers_recall(
    lists: Lists, queries: Rows, rows: Rows, k: int, metric: str, *, same_ids: bool = False, tie: float = TIE
) -> float:
    """Return the recall of a table {query: [(row, value), ...]} of all queries among rows, ties as in recall_by_row.

    same_ids : the row with the number of the query is no neighbor of it
    """
    far = between(queries, rows, metric)
    if same_ids:
        np.fill_diagonal(far, np.inf)
    want = min(k, rows.shape[0] - same_ids)
    radius, shares = np.sort(far, axis=1)[:, want - 1], []
    for query, limit in enumerate(radius + tie * abs(radius) + FLOOR):
        near = np.unique([other for other, _ in lists[query]]).astype(np.int64)
        shares.append(min(want, (far[query, near] <= limit).sum()) / want)
    return float(np.mean(shares))


def assert_answers(lists: Lists, queries: Rows, rows: Rows, k: int, metric: str, *, same_ids: bool = False) -> None:
    """Assert that every query has k rows, none of them twice, in the order of distance and row, as far as they are.

    same_ids : the row with the number of the query is no neighbor of it
    """
    far, n = between(queries, rows, metric), rows.shape[0]
    assert set(lists) == set(range(queries.shape[0]))
    for query, found in lists.items():
        near = [other for other, _ in found]
        told = np.array([value for _, value in found], np.float64) * (-1 if metric == "inner_product" else 1)
        assert len(found) == len(set(near)) == min(k, n - (same_ids and query < n)), query
        assert list(zip(told, near, strict=True)) == sorted(zip(told, near, strict=True))
        assert not (same_ids and query in near)
        np.testing.assert_allclose(told, far[query, near], rtol=1e-4, atol=1e-6)
