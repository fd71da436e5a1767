"""Recall: the share of the exact neighbors found, counted by distance, with its interval."""

from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # two-sided 95 %
# Distances computed in two ways differ by rounding: this much counts as a tie.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


@dataclass(frozen=True)
class Recall:
    """Mean recall@k of sampled users and its 95 % interval."""

    k: int
    mean: float
    low: float
    high: float
    users: int


def recall_by_user(found: np.ndarray, radius: np.ndarray, k: int) -> np.ndarray:
    """Return each user's recall@k: found neighbors no further than the exact k-th, divided by k.

    By distance and not by id, so that a neighbor exactly as far as the k-th counts (as in ann-benchmarks).

    found   : float32 (n_users, k), distances of the neighbors found, inf where there are fewer
    radius  : float32 (n_users,), distance of the exact k-th neighbor
    returns : float64 (n_users,)
    """
    limit = radius.astype(np.float64) * (1 + _RELATIVE) + _ABSOLUTE
    return (np.isfinite(found) & (found <= limit[:, None])).sum(axis=1) / k


def recall_interval(by_user: np.ndarray, k: int) -> Recall:
    """Return the mean of the users' recalls with its 95 % interval.

    The k neighbors of one user stand or fall together, so users are the sampling unit.  The interval is Wilson's with
    the effective sample size of a clustered sample, n p (1 - p) / s^2 (Dean and Pagano 2015, Survey Research Methods
    9(3), after Korn and Graubard 1998); unlike a normal interval it stays honest near 1, even when no miss was seen.

    by_user : float64 (n_users,), at least one
    """
    n = len(by_user)
    mean = float(by_user.mean())
    spread = float(by_user.var(ddof=1)) if n > 1 else 0.0
    # Never fewer than the users nor more than the neighbors looked at.
    size = min(max(n * mean * (1 - mean) / spread, n), n * max(k, 1)) if spread > 0 else n
    centre = (mean + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * np.sqrt(mean * (1 - mean) / size + _Z**2 / (4 * size**2))
    return Recall(k, mean, max(0.0, min(mean, float(centre - half))), min(1.0, max(mean, float(centre + half))), n)
