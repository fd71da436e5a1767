"""The space dense vectors are routed in: euclidean, whatever the metric is.

Cosine, euclidean and hamming vectors are routed as they are.  For others routing is a proxy, and calibration measures
what it misses: manhattan vectors go by their euclidean distance, and inner products by the reduction to a nearest
neighbor search, in which a vector has one place where it lives and another from where it looks around.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import METRICS


@dataclass(frozen=True)
class Space:
    """How vectors become points.

    radius : of inner products, the length that all points have; None for other metrics
    """

    radius: float | None

    def residents(self, vectors: np.ndarray) -> np.ndarray:
        """Return the points where vectors live: float32 (n, dim), for inner products (n, dim + 1)."""
        if self.radius is None:
            return vectors
        rest = self.radius**2 - np.einsum("ij,ij->i", vectors, vectors)
        return _extended(vectors, np.sqrt(np.maximum(rest, 0)))

    def visitors(self, vectors: np.ndarray) -> np.ndarray | None:
        """Return the points from where vectors look for neighbors; None where it is the points where they live.

        A vector's largest products are with those whose points are nearest to [x, 0], where all points are as long as
        [x, 0] is made.
        Source: Bachrach et al. 2014 (RecSys), "Speeding up the Xbox recommender system using a euclidean transformation
        for inner-product spaces".
        """
        if self.radius is None:
            return None
        length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        scale = np.where(length > 0, self.radius / np.where(length > 0, length, 1), 0).astype(np.float32)
        return _extended(vectors * scale[:, None], np.zeros(len(vectors)))

    def are_hubs(self, vectors: np.ndarray) -> np.ndarray:
        """Return which vectors are longer than all that were sampled: bool (n,).

        Such a vector, of which there are few, has the largest products with half of everybody, whose points may be
        anywhere: it visits every leaf.
        """
        if self.radius is None:
            return np.zeros(len(vectors), bool)
        return np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) > self.radius


PLAIN = Space(None)


def _extended(points: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.concatenate([points, last.astype(np.float32)[:, None]], axis=1)


def span_space(sample: np.ndarray, metric: str) -> Space:
    """Return the space for vectors like the sampled ones; a function of them alone."""
    if not METRICS[metric].largest:
        return PLAIN
    return Space(float(np.sqrt(np.einsum("ij,ij->i", sample, sample).max(initial=0))))
