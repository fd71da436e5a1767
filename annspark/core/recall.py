"""Recall: the share of the exact neighbors that were found, counted by distance, with its interval."""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import METRICS
from annspark.core.vectors import Vectors, len_of, lengths_of, plain

_Z = 1.959964  # two-sided 95 %
_RELATIVE = 2.0**-46  # error of a distance of up to some thousand terms added in float64, as a share of the distance
_ROUNDING = 2.0**-52  # error of x - y after both were rounded to float64, as a share of x and y, at most
_BANDS = (0, 1, 5, 10, 20, 50)  # the first popularity of each band
_SIZES = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)  # the least rows of the groups of each band


@dataclass(frozen=True)
class Band:
    """The recall of the users whose popularity is from first to last; last is None where there is no end.

    The popularity of a user is how many lists of the table it is in.  A band may also be of users whose groups have
    from first to last rows.
    """

    first: int
    last: int | None
    users: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Precision:
    """What rounding costs: the error of published distances, and the recall lost.

    numbers        : "float32" or "float64", in which vectors were joined
    distance_error : largest error of a published distance among those measured again, as a share of the distance
    recall_lost    : share of the exact neighbors that were missed because in float32 they are as far as those found
    """

    numbers: str
    distance_error: float
    recall_lost: float


@dataclass(frozen=True)
class Spread:
    """Percentiles of the distance of the neighbor of one rank, over the audited users: the 5th, 50th and 95th."""

    rank: int
    p5: float
    median: float
    p95: float


@dataclass(frozen=True)
class Recall:
    """Recall@k of sampled users: the mean with its 95 % interval, and how recall is spread over users.

    p5         : 5th percentile: 5 % of the users have this recall or less
    below_half : share of users with a recall below 0.5
    bands      : recall by popularity; empty when that is not known
    groups     : recall by the rows of the user's group; empty where neighbors are not looked for within groups
    """

    k: int
    mean: float
    low: float
    high: float
    users: int
    p5: float
    below_half: float
    bands: tuple[Band, ...]
    groups: tuple[Band, ...] = ()


def tie_limit(radius: np.ndarray, sizes: np.ndarray, metric: str, *, sparse: bool) -> np.ndarray:
    """Return the largest distance that counts as a tie with the exact k-th neighbor: float64 (n_users,).

    Two equal distances, measured in float64, may differ by rounding: by a share of the distance, and by a share of the
    numbers that are subtracted.  All vectors may be multiplied by one number without changing what is a tie.

    radius : float64 (n_users,), distance of the exact k-th neighbor, measured in float64; inf where there is none
    sizes  : float64 (n_users,), sizes of the numbers that are subtracted, see sizes_of
    sparse : whether vectors are sparse rows, whose distances follow from products
    """
    facts = METRICS[metric]
    if facts.binary:
        lost = np.zeros(len(radius))
    elif facts.unit:  # of unit vectors, from the squared distance d = c^2 / 2, or from 1 - x.y
        chord = np.sqrt(2 * np.maximum(radius, 0))
        lost = np.full(len(radius), 4 * _ROUNDING) if sparse else _ROUNDING * (chord + _ROUNDING)
    elif sparse and not facts.largest:  # from |x|^2 + |y|^2 - 2 x.y
        known = np.where(np.isfinite(radius), radius, 0)
        lost = np.sqrt(known**2 + 4 * _ROUNDING * sizes**2) - known
    else:
        lost = _ROUNDING * sizes
    return np.where(np.isfinite(radius), radius + _RELATIVE * np.abs(radius) + lost, radius)


def sizes_of(vectors: Vectors, metric: str) -> np.ndarray:
    """Return the sizes of the numbers that are subtracted, or added up, to measure distances: float64 (n,)."""
    facts = METRICS[metric]
    if facts.unit or facts.binary:
        return np.zeros(len_of(vectors))
    if facts.norm == 1:
        return np.abs(plain(vectors)).sum(axis=1, dtype=np.float64)
    lengths = lengths_of(vectors)
    return 4 * lengths * lengths.max(initial=0) if facts.largest else lengths


def recall_by_user(found: np.ndarray, limit: np.ndarray, k: int | np.ndarray) -> np.ndarray:
    """Return each user's recall@k: the number of neighbors found within the limit, divided by k.

    Neighbors count by distance and not by id, so that one exactly as far as the k-th counts (as in ann-benchmarks).

    found   : (n_users, k), distances of the neighbors found, inf where there are fewer
    limit   : (n_users,), see tie_limit
    k       : of all users, or int (n_users,) where some can have fewer neighbors; without any the recall is 1
    returns : float64 (n_users,)
    """
    n_found, wanted = (np.isfinite(found) & (found <= limit[:, None])).sum(axis=1), np.asarray(k)
    return np.where(wanted > 0, n_found / np.maximum(wanted, 1), 1.0)


def mean_interval(by_user: np.ndarray, k: int) -> tuple[float, float, float]:
    """Return the mean of the users' recalls and its 95 % interval.

    The k neighbors of one user are often found or missed together, so users are the sampling unit.  The interval is
    Wilson's with the effective sample size of a clustered sample, n p (1 - p) / s^2 (Dean and Pagano 2015, Survey
    Research Methods 9(3), after Korn and Graubard 1998).  Unlike a normal interval it does not become too narrow near
    1, even when no neighbor was missed.

    by_user : float64 (n_users,), at least one
    """
    n = len(by_user)
    mean = float(by_user.mean())
    spread = float(by_user.var(ddof=1)) if n > 1 else 0.0
    # Never fewer than the number of users, nor more than that of their neighbors.
    size = min(max(n * mean * (1 - mean) / spread, n), n * max(k, 1)) if spread > 0 else n
    centre = (mean + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * np.sqrt(mean * (1 - mean) / size + _Z**2 / (4 * size**2))
    return mean, max(0.0, min(mean, float(centre - half))), min(1.0, max(mean, float(centre + half)))


def measure_recall(
    by_user: np.ndarray, k: int, popularity: np.ndarray | None = None, group_rows: np.ndarray | None = None
) -> Recall:
    """Return the recall of all users, estimated from sampled ones.

    by_user    : float64 (n_users,), recall of each sampled user; at least one
    popularity : int (n_users,), how many lists of the table each sampled user is in
    group_rows : int (n_users,), rows of each user's group
    """
    mean, low, high = mean_interval(by_user, k)
    bands = () if popularity is None else tuple(_bands(by_user, k, popularity, _BANDS))
    groups = () if group_rows is None else tuple(_bands(by_user, k, group_rows, _SIZES))
    p5 = float(np.quantile(by_user, 0.05, method="inverted_cdf"))
    return Recall(
        k=k,
        mean=mean,
        low=low,
        high=high,
        users=len(by_user),
        p5=p5,
        below_half=float((by_user < 0.5).mean()),
        bands=bands,
        groups=groups,
    )


def _bands(by_user: np.ndarray, k: int, values: np.ndarray, starts: tuple[int, ...]) -> list[Band]:
    band = np.searchsorted(starts, values, side="right") - 1
    ends: list[int | None] = [*(first - 1 for first in starts[1:]), None]
    bands = []
    for i, (first, last) in enumerate(zip(starts, ends, strict=True)):
        members = by_user[band == i]
        if len(members):
            mean, low, high = mean_interval(members, k)
            bands.append(Band(first=first, last=last, users=len(members), mean=mean, low=low, high=high))
    return bands
