"""The space dense vectors are routed in: points, whose distances are euclidean whatever the metric is.

Under cosine, euclidean and hamming the points are the vectors.  Under other metrics routing is a proxy, and calibration
measures what it misses.  For manhattan the points are the vectors, too.  For the inner product there is a known
reduction to euclidean distance, in which a vector has two points: one that decides its home, and one that decides which
leaves it visits.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.metric import METRICS


@dataclass(frozen=True)
class RoutingSpace:
    """How vectors become points.

    radius : for the inner product, the length that all points get; None for other metrics
    """

    radius: float | None

    def home_points(self, vectors: np.ndarray) -> np.ndarray:
        """Return the points that decide homes: float32 (n, dim), for the inner product (n, dim + 1).

        For the inner product that is [x, sqrt(radius^2 - |x|^2)], with 0 for the root of a negative number.
        """
        if self.radius is None:
            return vectors
        rest = self.radius**2 - np.einsum("ij,ij->i", vectors, vectors)
        return _extended(vectors, np.sqrt(np.maximum(rest, 0)))

    def visit_points(self, vectors: np.ndarray) -> np.ndarray | None:
        """Return the points that decide visits, of the same shape; None where they are the home points.

        For the inner product that is [x, 0], scaled to the length radius.  All points then have one length, so that the
        nearest home points to it are those of the largest inner products with x.
        Source: Bachrach et al. 2014 (RecSys), "Speeding up the Xbox recommender system using a euclidean transformation
        for inner-product spaces".
        """
        if self.radius is None:
            return None
        length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        scale = np.where(length > 0, self.radius / np.where(length > 0, length, 1), 0).astype(np.float32)
        return _extended(vectors * scale[:, None], np.zeros(len(vectors)))

    def are_hubs(self, vectors: np.ndarray) -> np.ndarray:
        """Return which vectors are longer than radius, so than all that were sampled: bool (n,).

        There are few.  Such a vector is the neighbor of about half of all vectors, wherever their points are.  So it is
        a hub: it visits every leaf.
        """
        if self.radius is None:
            return np.zeros(len(vectors), bool)
        return np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) > self.radius


PLAIN = RoutingSpace(None)


def _extended(points: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.concatenate([points, last.astype(np.float32)[:, None]], axis=1)


def choose_space(sample: np.ndarray, metric: str) -> RoutingSpace:
    """Return the space for vectors like the sampled ones, whatever the order of the sample.

    sample : float32 (n_sample, dim), prepared
    """
    if not METRICS[metric].largest:
        return PLAIN
    return RoutingSpace(float(np.sqrt(np.einsum("ij,ij->i", sample, sample).max(initial=0))))
