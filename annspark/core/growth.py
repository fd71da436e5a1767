"""Growth: the probes that a larger table needs, from a random sample of its rows.

Which leaves a vector goes to depends on the leaves alone, and those of a larger table can be grown from the sample.  Of
the neighbors in the larger table a sample of one row in r holds a share of 1 / r, and holds them at random: whether it
holds a neighbor does not depend on whether the join would find it.  So the share found of these few is the recall.  It
is not known which rows of a user's list in the sample are neighbors in the larger table, too, but how likely it is for
each rank of the list.

Probes at 0.95 by calibration with all rows, and foreseen from random samples (2026-11-29):

    rows of the table          calibrated    from 1 in 2    1 in 4    1 in 8    1 in 10
    GloVe, 100,000 x 100       9.5           9.9            10.8      8.7       8.7
    SIFT, 100,000 x 128        6.2           6.7            6.7       5.7       5.9
    titles, 100,000 x 128      43            41             45        29        31
    titles, 600,000 x 128      79, 79, 95    79             87        91        103

Three calibrations of the titles differ as much as that since each has 1,000 users.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from annspark.core.calibrate import (
    CALIBRATION_USERS,
    MOST_PROBES,
    REACH_SAMPLE,
    HomeDistances,
    fewest_probes,
    find_compared,
)
from annspark.core.forest import Forest
from annspark.core.plan import SAMPLED_PER_LEAF, most_leaves_of_driver
from annspark.core.recall import mean_interval
from annspark.core.vectors import Vectors, slice_rows

# Growth of the probes at 0.95 as a power of the rows, fitted from one size to the next.  It falls by about a half with
# every tenfold of rows: titles .68 (30,000 to 100,000 rows) and .55 (to 600,000), SIFT .37 (30,000 to 100,000) and .33
# (to a million), synthetic vectors of users .25 (100,000 to a million) and .13 (to 10 million).
_HALVING = 10.0
_PLACED = 12  # times as many rows as the sample has in the largest table whose leaves it can place
_FEWEST_PER_LEAF = 5  # vectors that a leaf is grown from
_Z = 1.96  # standard deviations of a 95 % interval


@dataclass(frozen=True)
class Foreseen:
    """The probes that the calibration of a table is expected to choose, between low and high in 95 % of cases.

    rows : of the table
    """

    rows: int
    probes: float
    low: float
    high: float


def rank_weights(ratio: float, k: int) -> np.ndarray:
    """Return how likely the j-th nearest row in a sample is one of the k nearest in the whole table: float64 (k,).

    The sample holds each of the k with a chance of 1 / ratio.  The j-th nearest in the sample is one of them if it
    holds at least j of them.

    ratio : rows of the table to one of the sample, 1 at least
    """
    share = 1 / ratio
    held = np.ones(1)  # chance that the sample holds 0, 1, ... of the nearest so far
    for _ in range(k):
        held = np.append(held * (1 - share), 0) + np.append(0, held * share)
    return np.minimum(1.0, np.cumsum(held[::-1])[::-1][1:])


def foresee_probes(
    forest: Forest, sample: Vectors, home_distances: HomeDistances, recall_asked: float, *, rows: int, ratio: float
) -> Foreseen:
    """Return the probes that calibration would choose in a table of so many rows.

    Calibration takes the fewest probes for which the lower end of an interval reaches the recall.  The interval here is
    as wide as that of CALIBRATION_USERS users of the table.

    forest         : with the leaves of the table
    sample         : as for choose_probes
    home_distances : from users of a random sample of the table to their exact neighbors in the sample
    ratio          : rows of the table to one of the sample
    """
    routed = slice_rows(sample, 0, REACH_SAMPLE)
    most = min(MOST_PROBES, forest.most_probes(routed))
    n_users, k = home_distances.exists.shape
    weights = np.where(home_distances.exists, rank_weights(ratio, k), 0.0)
    curve: dict[float, tuple[float, float, float]] = {}

    def recall_at(probes: float) -> tuple[float, float, float]:
        """Return the recall, by how much the run's lower end is below it, and the standard error of the two."""
        if probes not in curve:
            found = find_compared(forest, routed, home_distances, probes)
            by_user = (found * weights).sum(axis=1) / weights.sum(axis=1).mean()
            mean, nearest = min(1.0, float(by_user.mean())), found.mean(axis=1)
            plain, low, _ = mean_interval(nearest[:CALIBRATION_USERS], k)
            # Rows of the sample's lists that are no neighbors in the table are found more seldom.
            below = (plain - low) * np.sqrt((mean * (1 - mean) + 1e-9) / (plain * (1 - plain) + 1e-9))
            own, of_run = by_user.std() / n_users**0.5, below / _Z
            curve[probes] = mean, float(below), float(np.hypot(own, of_run))
        return curve[probes]

    def fewest(errors: float) -> float:
        def reaches(probes: float) -> bool:
            mean, below, error = recall_at(probes)
            return mean + errors * error - below >= recall_asked or mean == 1

        return fewest_probes(reaches, most)

    return Foreseen(rows=rows, probes=fewest(0), low=fewest(_Z), high=fewest(-_Z))


def grow_with_rows(seen: Sequence[Foreseen], rows: int) -> Foreseen:
    """Return the probes of a table that is larger than any whose leaves the sample can place.

    Probes grow as a power of the rows, whose exponent halves with every tenfold of them.  At the low end they grow no
    more, at the high end the exponent stays.

    seen : at two sizes, ascending
    """
    before, last = seen
    exponent = max(0.0, log(last.probes / before.probes) / log(last.rows / before.rows))
    tenfolds = log(rows / last.rows) / log(_HALVING)
    grown = exponent * (1 - 0.5**tenfolds) / log(2)  # the integral of exponent / 2^x over the tenfolds x
    return Foreseen(
        rows=rows,
        probes=min(MOST_PROBES, last.probes * _HALVING**grown),
        low=last.low,
        high=min(MOST_PROBES, last.high * _HALVING ** (exponent * tenfolds)),
    )


def count_placeable(rows: int, sampled: int, leaf_rows: int, width: float) -> int:
    """Return how many rows the largest table has whose leaves a sample can place on the driver, at most so many rows.

    sampled   : vectors from which leaves can be grown
    leaf_rows : users at home in a leaf, on average
    width     : numbers of 4 bytes that a vector takes, on average
    """
    # As many vectors for a leaf as a build takes.  Where leaves are small, fewer: that misplaces them somewhat.
    per_leaf = max(_FEWEST_PER_LEAF, min(SAMPLED_PER_LEAF, leaf_rows // _PLACED))
    return min(rows, max(1, min(sampled // per_leaf, most_leaves_of_driver(width))) * leaf_rows)
