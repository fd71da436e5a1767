"""The best few of each row, as blocks of distances come."""

import numpy as np


def merge_best(asked: np.ndarray, met: np.ndarray, far: np.ndarray, rows: np.ndarray, found: np.ndarray) -> None:
    """Merge the distances (n_asked, n_met) of some rows into the best so far: rows (-1: none) and found, ascending."""
    m = rows.shape[1]
    few = min(m, far.shape[1])
    if few == 0 or len(asked) == 0:
        return
    best = np.argpartition(far, few - 1, axis=1)[:, :few]
    both = np.hstack([found[asked], np.take_along_axis(far, best, axis=1)])
    who = np.hstack([rows[asked], met[best]])
    # The same may have been met before.
    by_id = np.argsort(who, axis=1, kind="stable")
    both, who = np.take_along_axis(both, by_id, axis=1), np.take_along_axis(who, by_id, axis=1)
    both[:, 1:][who[:, 1:] == who[:, :-1]] = np.inf
    kept = np.argsort(both, axis=1, kind="stable")[:, :m]
    found[asked] = np.take_along_axis(both, kept, axis=1)
    rows[asked] = np.where(np.isinf(found[asked]), -1, np.take_along_axis(who, kept, axis=1))
