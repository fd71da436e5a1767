"""Calibrate: choose the probes that reach the recall asked for.

For a sample of users the exact neighbors are known.  The places of these in the forest determine the recall of every
number of probes.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from annspark.core.calibrate import Calibration, HomeDistances, choose
from annspark.core.forest import Forest
from annspark.core.metric import METRICS
from annspark.core.nearest_lists import Nearest
from annspark.core.plan import expect_pairs
from annspark.core.routes import SAME_LEAF
from annspark.core.vectors import Vectors
from annspark.flow.exact import vectors_of
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.settings import Settings


def place_neighbors(
    users: Users,
    sample: Sample,
    nearest: Nearest,
    forest: Forest,
    first_rows: np.ndarray | None = None,
    *,
    queries: bool = False,
) -> HomeDistances:
    """Return how far sampled users and their exact neighbors are from each other's homes.

    The neighbors' vectors are fetched from the cluster.

    nearest    : exact neighbors of the sample's users
    first_rows : int64 (n,), hashes of the users that every user is compared with
    queries    : whether the sample is of queries, which are nobody's neighbors
    """
    exists = np.isfinite(nearest.distances)
    hashes, vectors = vectors_of(users, nearest.hashes[exists])
    # The row of each neighbor among the fetched vectors; any row where there is no neighbor.
    row = np.minimum(np.searchsorted(hashes, nearest.hashes.ravel()), len(hashes) - 1)
    ways = 1 if queries else 2
    shape = (*exists.shape, ways * len(forest.sizes))
    query = np.repeat(np.arange(len(sample.ids)), exists.shape[1])
    if len(hashes) == 0:
        return HomeDistances(exists, np.zeros(shape, np.int32), np.zeros(shape, np.float32), ways)
    find_distances = forest.find_query_distances if queries else forest.find_home_distances
    leaves_nearer, margins = find_distances(sample.vectors, query, users.coordinates.for_routing(vectors), row)
    leaves_nearer, margins = leaves_nearer.reshape(shape), margins.reshape(shape)
    if users.wire.sparse:
        # Under all metrics but euclidean, the rows that share no column with a user are equally far from it, and every
        # user is compared with enough of them: a neighbor at that distance is never missed.
        replaceable = nearest.distances >= METRICS[users.coordinates.metric].unrelated
        if first_rows is not None:
            replaceable |= np.isin(nearest.hashes, first_rows)
        leaves_nearer[replaceable], margins[replaceable] = 0, SAME_LEAF
    return HomeDistances(exists, leaves_nearer, margins, ways)


@dataclass(frozen=True)
class Calibrated:
    """The forest that is used, and the prediction for it.

    forest         : the trees used, all or the first of those grown
    home_distances : from users and their neighbors to each other's homes in the grown trees; None where no recall was
                     asked for
    calibration    : the chosen probes; None where no recall was asked for
    """

    forest: Forest
    home_distances: HomeDistances | None
    calibration: Calibration | None


def calibrate(
    users: Users,
    sample: Sample,
    nearest: Nearest,
    grown: Forest,
    routed: Vectors,
    settings: Settings,
    first_rows: np.ndarray | None,
) -> Calibrated:
    """Return the trees and the probes that reach the recall asked for, if one was.

    nearest    : exact neighbors of the sample's users
    routed     : other sampled vectors, from which the cost of a number of probes is estimated
    first_rows : int64 (n,), hashes of the users that every user is compared with
    """
    if settings.recall_asked is None:
        return Calibrated(grown, None, None)
    home_distances = place_neighbors(users, sample, nearest, grown, first_rows)
    forest, calibration = choose(
        grown,
        routed,
        home_distances,
        settings.recall_asked,
        trees=settings.trees,
        count_pairs=partial(expect_pairs, sample=routed, rows=users.rows),
    )
    return Calibrated(forest, home_distances, calibration)
