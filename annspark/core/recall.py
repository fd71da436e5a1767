"""Recall: the share of the exact neighbors found, counted by distance, with its interval."""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.vectors import Vectors, len_of, lengths_of

_Z = 1.959964  # two-sided 95 %
_RELATIVE = 2.0**-46  # share of a distance that adding up its parts in float64 may take, up to some thousand of them
_ROUNDING = 2.0**-52  # share of two numbers that rounding both to float64 takes of their difference at most
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
class Precision:
    """What rounding takes, of the distances published and of the recall.

    numbers        : "float32" or "float64", in which vectors were joined
    distance_error : largest error of a published distance that was seen, as a share of the distance
    recall_lost    : share of the exact neighbors that were missed since float32 cannot tell them from those found
    """

    numbers: str
    distance_error: float
    recall_lost: float


@dataclass(frozen=True)
class Spread:
    """Distances of the audited users' neighbors of one rank: 5th, 50th and 95th percentile."""

    rank: int
    p5: float
    median: float
    p95: float


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


def tie_limit(radius: np.ndarray, sizes: np.ndarray, metric: str, *, sparse: bool) -> np.ndarray:
    """Return the largest distance that counts as that of the exact k-th neighbor: float64 (n_users,).

    Two distances that are equal in truth may differ by a share of the distance, and by a share of the numbers whose
    difference it is: what float64 loses of either.  No unit of the input changes what is a tie.

    radius : float64 (n_users,), distance of the exact k-th neighbor, measured in float64; inf where there is none
    sizes  : float64 (n_users,), lengths of what is subtracted, see sizes_of
    """
    facts = METRICS[metric]
    if facts.binary:
        lost = np.zeros(len(radius))
    elif facts.unit:  # of unit vectors, from the squared distance d = c^2 / 2, or from 1 - x.y
        chord = np.sqrt(2 * np.maximum(radius, 0))
        lost = np.full(len(radius), 4 * _ROUNDING) if sparse else _ROUNDING * (chord + _ROUNDING)
    elif sparse and not facts.largest:  # from |x|^2 + |y|^2 - 2 x.y
        lost = np.sqrt(radius**2 + 4 * _ROUNDING * sizes**2) - radius
    else:
        lost = _ROUNDING * sizes
    return np.where(np.isfinite(radius), radius + _RELATIVE * np.abs(radius) + lost, radius)


def sizes_of(vectors: Vectors, metric: str) -> np.ndarray:
    """Return the sizes of what is subtracted, or added up, where vectors are compared: float64 (n,)."""
    if METRICS[metric].unit or METRICS[metric].binary:
        return np.zeros(len_of(vectors))
    if metric == "manhattan":
        return np.abs(vectors).sum(axis=1, dtype=np.float64)
    lengths = lengths_of(vectors)
    return 4 * lengths * lengths.max(initial=0) if METRICS[metric].largest else lengths


def recall_by_user(found: np.ndarray, limit: np.ndarray, k: int) -> np.ndarray:
    """Return each user's recall@k: found neighbors within the limit, divided by k.

    By distance and not by id, so that a neighbor exactly as far as the k-th counts (as in ann-benchmarks).

    found   : (n_users, k), distances of the neighbors found, inf where there are fewer
    limit   : (n_users,), see tie_limit
    returns : float64 (n_users,)
    """
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
