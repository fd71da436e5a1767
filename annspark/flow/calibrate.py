"""Calibrate: where the exact neighbors of some users fall in the forest, and the probes that follow from it."""

from dataclasses import dataclass

import numpy as np

from annspark.core.best import Nearest
from annspark.core.calibrate import Calibration, Chances, choose
from annspark.core.forest import Forest
from annspark.core.metric import METRICS
from annspark.core.vectors import Vectors
from annspark.core.visit import TOGETHER
from annspark.flow.exact import vectors_of
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.settings import Settings


def place_neighbors(
    users: Users, sample: Sample, nearest: Nearest, forest: Forest, few: np.ndarray | None = None
) -> Chances:
    """Return the chances that sampled users meet their exact neighbors, whose vectors are fetched.

    nearest : those of the sample's users
    few     : int64 (n,), hashes of users whom everybody meets
    """
    exists = np.isfinite(nearest.distances)
    hashes, vectors = vectors_of(users, nearest.hashes[exists])
    # A neighbor's row among those fetched; any row where there is no neighbor.
    row = np.minimum(np.searchsorted(hashes, nearest.hashes.ravel()), len(hashes) - 1)
    ways = (*exists.shape, 2 * len(forest.sizes))
    asked = np.repeat(np.arange(len(sample.ids)), exists.shape[1])
    if len(hashes) == 0:
        return Chances(exists, np.zeros(ways, np.int32), np.zeros(ways, np.float32))
    ranks, margins = forest.find_chances(sample.vectors, asked, users.coordinates.rounded(vectors), row)
    ranks, margins = ranks.reshape(ways), margins.reshape(ways)
    if users.wire.sparse:
        # Whoever shares nothing with a user is as near as such a neighbor, and everybody meets enough of those.
        replaceable = nearest.distances >= METRICS[users.coordinates.metric].unrelated
        if few is not None:
            replaceable |= np.isin(nearest.hashes, few)
        ranks[replaceable], margins[replaceable] = 0, TOGETHER
    return Chances(exists, ranks, margins)


@dataclass(frozen=True)
class Calibrated:
    """The forest that is used, and what was predicted for it.

    forest      : trees of those that were grown
    chances     : that neighbors are met in the grown trees; None where no recall was asked for
    calibration : the probes chosen; None where no recall was asked for
    """

    forest: Forest
    chances: Chances | None
    calibration: Calibration | None


def calibrate(
    users: Users,
    sample: Sample,
    nearest: Nearest,
    grown: Forest,
    shown: Vectors,
    settings: Settings,
    few: np.ndarray | None,
) -> Calibrated:
    """Return the trees and the probes that reach the recall asked for, if one was.

    nearest : exact neighbors of the sample's users
    shown   : other sampled vectors, which tell what a number of probes costs
    few     : int64 (n,), hashes of users that all others are compared with
    """
    if settings.recall_asked is None:
        return Calibrated(grown, None, None)
    chances = place_neighbors(users, sample, nearest, grown, few)
    forest, calibration = choose(grown, shown, chances, settings.recall_asked, trees=settings.trees, rows=users.rows)
    return Calibrated(forest, chances, calibration)
