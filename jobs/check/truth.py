"""Recall against exact neighbors that come with a set."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from bench.ladders import K

TIE = 1e-6


def recall_under_cosine(table: Path, rows: csr_array, truth: dict[str, np.ndarray]) -> float:
    """Return the share of neighbors that are no further than the exact K-th, by a distance computed here.

    table : user_id and neighbors, the users' lists of any length
    truth : query_rows and their exact distances, ascending
    """
    read, n = pq.read_table(table, columns=["user_id", "neighbors"]).combine_chunks(), rows.shape[0]
    users, lists = read["user_id"].to_numpy(), read["neighbors"].combine_chunks()
    owners = np.repeat(users, lists.value_lengths().fill_null(0).to_numpy())
    others = lists.flatten().field("neighbor_id").to_numpy()
    asked = truth["query_rows"].astype(np.int64)
    place = np.full(n, -1)
    place[asked] = np.arange(len(asked))
    counted = (place[owners] >= 0) & (owners != others)
    pairs = np.unique(owners[counted] * np.int64(n) + others[counted])
    owners, others = pairs // n, pairs % n
    wide = rows.astype(np.float64)
    norms = np.sqrt(wide.power(2).sum(axis=1))
    far = 1 - wide[owners].multiply(wide[others]).sum(axis=1) / (norms[owners] * norms[others])
    hits = np.bincount(place[owners[far <= truth["distances"][place[owners], K - 1] + TIE]], minlength=len(asked))
    return float(np.minimum(hits, K).mean() / K)
