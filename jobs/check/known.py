"""What is known of the answer to a case, as a check of a finished table that returns what is wrong, or nothing."""

from collections.abc import Callable

import numpy as np

Known = Callable[[np.ndarray, np.ndarray], str]
AS_GOOD_AS_NOTHING = 1e-6


def twins(group: np.ndarray) -> Known:
    """Who has k twins or more, has those with the lowest ids as neighbors, at distance 0.

    group : of each row; those of one group are twins
    """
    order = np.argsort(group, kind="stable")
    size = np.bincount(group)
    start = np.cumsum(size) - size

    def check(near: np.ndarray, told: np.ndarray) -> str:
        k = near.shape[1]
        rows = np.flatnonzero(size[group] > k)
        if told.min() >= -AS_GOOD_AS_NOTHING:
            far = int((np.abs(told[rows]) > AS_GOOD_AS_NOTHING).any(axis=1).sum())
        else:  # products: all alike
            far = int((np.ptp(told[rows], axis=1) > 0).sum())
        first = order[start[group[rows]][:, None] + np.arange(k + 1)]
        others = int((near[rows] != _without(first, rows)).any(axis=1).sum())
        told_of = f"{far:,} users have twins elsewhere than at 0; " if far else ""
        return told_of + (f"{others:,} users have other twins than those with the lowest ids" if others else "")

    return check


def first_ones(order: np.ndarray) -> Known:
    """Everybody has the same neighbors, but for themselves: those first in an order."""

    def check(near: np.ndarray, told: np.ndarray) -> str:
        rows = np.arange(len(near))
        first = _without(np.tile(order[: near.shape[1] + 1], (len(near), 1)), rows)
        wrong = int((np.sort(first, axis=1) != np.sort(near, axis=1)).any(axis=1).sum())
        return f"{wrong:,} users have others than everybody's nearest" if wrong else ""

    return check


def hub(row: int, whose: np.ndarray) -> Known:
    """One row is the nearest of many others, all but those beyond any doubt."""

    def check(near: np.ndarray, told: np.ndarray) -> str:
        lacking = whose & (near[:, 0] != row)
        lacking[row] = False
        return f"{lacking.sum():,} of {whose.sum():,} users lack the hub" if lacking.any() else ""

    return check


def lowest(rows: np.ndarray) -> Known:
    """Some rows have everybody's lowest ids as neighbors, being as far from all."""

    def check(near: np.ndarray, told: np.ndarray) -> str:
        first = _without(np.tile(np.arange(near.shape[1] + 1), (len(rows), 1)), rows)
        far, others = int((told[rows] != 0).any(axis=1).sum()), int((near[rows] != first).any(axis=1).sum())
        told_of = f"{far:,} have products other than 0; " if far else ""
        return told_of + (f"{others:,} have others than the lowest ids" if others else "")

    return check


def _without(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Drop each row itself, or the last, of k + 1 ids a row."""
    own = first == rows[:, None]
    own[~own.any(axis=1), -1] = True
    return first[~own].reshape(len(rows), -1)
