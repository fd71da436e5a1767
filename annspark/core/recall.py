"""Recall: the share of the exact neighbors found, counted by distance, with its interval."""

from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # two-sided 95 %
# Distances computed in two ways differ by rounding: this much counts as a tie.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6
_BANDS = (0, 1, 5, 10, 20, 50)  # how often a user is a neighbor: where a band begins


@dataclass(frozen=True)
class Band:
    """Recall of the users who are somebody's neighbor from first to last times (None: or more)."""

    first: int
    last: int | None
    users: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """Recall@k of sampled users: mean and its 95 % interval, and how it is spread over users.

    p5         : 5 % of the users have this recall or less
    below_half : share of users with a recall below 0.5
    bands      : by how often a user is somebody's neighbor in the table; empty when that is not known
    """

    k: int
    mean: float
    low: float
    high: float
    users: int
    p5: float
    below_half: float
    bands: tuple[Band, ...]


def recall_by_user(found: np.ndarray, radius: np.ndarray, k: int) -> np.ndarray:
    """Return each user's recall@k: found neighbors no further than the exact k-th, divided by k.

    By distance and not by id, so that a neighbor exactly as far as the k-th counts (as in ann-benchmarks).

    found   : float32 (n_users, k), distances of the neighbors found, inf where there are fewer
    radius  : float32 (n_users,), distance of the exact k-th neighbor
    returns : float64 (n_users,)
    """
    wide = radius.astype(np.float64)
    limit = wide + np.abs(wide) * _RELATIVE + _ABSOLUTE
    return (np.isfinite(found) & (found <= limit[:, None])).sum(axis=1) / k


def mean_interval(by_user: np.ndarray, k: int) -> tuple[float, float, float]:
    """Return the mean of the users' recalls and its 95 % interval.

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
    return mean, max(0.0, min(mean, float(centre - half))), min(1.0, max(mean, float(centre + half)))


def measure_recall(by_user: np.ndarray, k: int, popularity: np.ndarray | None = None) -> Recall:
    """Return what the recalls of sampled users say of all users.

    by_user    : float64 (n_users,), at least one
    popularity : int (n_users,), how often each is somebody's neighbor in the table
    """
    mean, low, high = mean_interval(by_user, k)
    bands = () if popularity is None else tuple(_bands(by_user, k, popularity))
    p5 = float(np.quantile(by_user, 0.05, method="inverted_cdf"))
    return Recall(k, mean, low, high, len(by_user), p5, float((by_user < 0.5).mean()), bands)


def _bands(by_user: np.ndarray, k: int, popularity: np.ndarray) -> list[Band]:
    band = np.searchsorted(_BANDS, popularity, side="right") - 1
    ends: list[int | None] = [*(first - 1 for first in _BANDS[1:]), None]
    members = [by_user[band == i] for i in range(len(_BANDS))]
    return [
        Band(first, last, len(mine), *mean_interval(mine, k))
        for first, last, mine in zip(_BANDS, ends, members, strict=True)
        if len(mine)
    ]
