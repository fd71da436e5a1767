"""Neighbor tables for the tests of uses: exact ones by scikit-learn, and ones written down pair by pair."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

LONG = "user_id bigint, neighbor_id bigint, distance double"


def exact_neighbors(points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of every row to its k nearest others, ascending, and their numbers."""
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors()


def as_table(spark, distances: np.ndarray, numbers: np.ndarray, names=lambda number: number, kind="bigint"):
    """Return a nested neighbor table of the rows 0, 1, ... as names calls them."""
    rows = [
        (names(user), [(names(int(other)), float(far)) for far, other in zip(*both, strict=True)])
        for user, both in enumerate(zip(distances, numbers, strict=True))
    ]
    schema = f"user_id {kind}, neighbors array<struct<neighbor_id: {kind}, distance: double>>"
    return spark.createDataFrame(rows, schema).repartition(3)


def as_pairs(spark, pairs, schema=LONG):
    """Return a long neighbor table of (user, neighbor, distance), which holds both directions of every pair."""
    both = [*pairs, *((other, user, far) for user, other, far in pairs)]
    return spark.createDataFrame(sorted(set(both)), schema).repartition(3)


def column(table, name: str, by: str = "user_id") -> dict:
    """Return a column of a table by user, having checked that no user comes twice."""
    rows = table.select(by, name).collect()
    found = {row[by]: row[name] for row in rows}
    assert len(found) == len(rows)
    return found
