"""Recall of a finished table, and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.ladders import K

# Distances computed in two ways differ by rounding: this much counts as a tie.
RELATIVE, ABSOLUTE = 1e-5, 1e-6


@dataclass(frozen=True)
class Score:
    """Recall with half its 95 % interval, and the users with each fault."""

    recall: float
    half_width: float
    faults: dict[str, int]


def score(table: Path, vectors: np.ndarray, truth: dict[str, np.ndarray]) -> Score:
    """Score a table of user_id and neighbors against the exact distances of some users.

    A neighbor counts when it is no further than the exact k-th, by a distance computed here: neither how ties fall nor
    what a system says of its distances matters.  Oneself and a neighbor's second mention count for nothing.
    """
    users, owners, found = _pairs(table)
    n, own = len(vectors), owners == found
    near = np.unique(owners[~own] * n + found[~own])
    counts = np.bincount(near // n, minlength=n)
    present = np.bincount(users, minlength=n)
    faults = {
        "missing": int((present == 0).sum()),
        "repeated": int((present > 1).sum()),
        "short": int(((counts < K) & (present > 0)).sum()),
        "own neighbor": int(own.sum()),
        "twice the same": len(owners) - len(near) - int(own.sum()),
    }
    asked = truth["query_rows"]
    place = np.full(n, -1)
    place[asked] = np.arange(len(asked))
    near = near[place[near // n] >= 0]
    owners, found = near // n, near % n
    limit = truth["distances"][:, K - 1].astype(np.float64) * (1 + RELATIVE) + ABSOLUTE
    hits = distances(vectors, owners, found, str(truth["metric"])) <= limit[place[owners]]
    by_user = np.minimum(np.bincount(place[owners[hits]], minlength=len(asked)), K) / K
    half_width = 1.96 * by_user.std() / len(by_user) ** 0.5
    return Score(float(by_user.mean()), float(half_width), {name: n for name, n in faults.items() if n})


def distances(vectors: np.ndarray, rows: np.ndarray, others: np.ndarray, metric: str) -> np.ndarray:
    """Return the distance of each row to each other, in float64."""
    a, b = vectors[rows].astype(np.float64), vectors[others].astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(a - b, axis=1)
    return 1 - (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _pairs(table: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the users, and the user and neighbor of each pair."""
    rows = pq.read_table(table, columns=["user_id", "neighbors"]).combine_chunks()
    users, lists = rows["user_id"].to_numpy(), rows["neighbors"].combine_chunks()
    sizes = lists.value_lengths().fill_null(0).to_numpy()
    return users, np.repeat(users, sizes), lists.flatten().field("neighbor_id").to_numpy()
