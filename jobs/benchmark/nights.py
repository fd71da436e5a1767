"""Nights of random changes: which rows of a set are there in each."""

from collections.abc import Iterable, Iterator

import numpy as np


def nights(n: int, changed: Iterable[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the ids of each night, and the row of the set that has the vector of each: int64 (n_ids,) each.

    n       : rows of the set; four of five are there at first
    changed : for each night after the first, the share of the rows that is new, has other vectors or is gone
    """
    rng = np.random.default_rng(0)
    ids = rows = np.arange(4 * n // 5)
    yield ids, rows
    for share in changed:
        some = max(1, round(share * len(ids) / 3))
        order = rng.permutation(len(ids))[some:]
        ids, rows = ids[order], rows[order]
        rows[:some] = rng.integers(n, size=some)
        ids = np.concatenate([ids, ids.max() + 1 + np.arange(some)])
        rows = np.concatenate([rows, rng.integers(n, size=some)])
        yield ids, rows
