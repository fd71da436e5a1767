"""Metrics as preprocessing: every metric becomes euclidean distance between prepared vectors.

The join therefore has one kernel, and only this file knows that there is more than one metric.
"""

import numpy as np

METRICS = ("cosine", "euclidean")


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return vectors between which euclidean distance orders neighbors as the metric does.

    vectors : float32 or float64 (n, dim), finite
    returns : float32 (n, dim); unit length for cosine (an all-zero vector stays zero), else unchanged
    """
    if metric == "euclidean":
        return np.ascontiguousarray(vectors, np.float32)
    # float64 and a first scaling by the largest component: squares neither overflow nor vanish.
    wide = np.asarray(vectors, np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
    wide = wide / np.where(largest > 0, largest, 1)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return (wide / np.where(norms > 0, norms, 1)).astype(np.float32)


def to_distance(squared: np.ndarray, metric: str) -> np.ndarray:
    """Turn squared euclidean distances between prepared vectors into the metric's own distances.

    squared : float32, any shape; inf stays inf
    returns : float32, same shape; cosine is 1 - cos, which is half the squared distance of unit vectors
    """
    if metric == "cosine":
        return squared * np.float32(0.5)
    return np.sqrt(squared)


def squared_limit(distance: np.ndarray, metric: str) -> np.ndarray:
    """Return squared euclidean distances no smaller than any whose to_distance is at most the given.

    distance : float32, any shape; inf stays inf
    """
    if metric == "cosine":
        return distance * np.float32(2)
    return distance * distance * np.float32(1 + 1e-6)
