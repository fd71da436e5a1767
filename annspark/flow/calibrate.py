"""Calibrate: where the exact neighbors of a few users fall in the forest."""

import numpy as np

from annspark.core.best import Nearest
from annspark.core.calibrate import Chances
from annspark.core.metric import METRICS
from annspark.core.plan import AnyForest
from annspark.core.visit import TOGETHER
from annspark.flow.exact import vectors_of
from annspark.flow.read import Users
from annspark.flow.sample import Sample


def place_neighbors(
    users: Users, sample: Sample, nearest: Nearest, forest: AnyForest, few: np.ndarray | None = None
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
