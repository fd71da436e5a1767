"""A finished table: whether it is complete, and its neighbors as arrays."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Found:
    """What a table holds.

    faults : users with each fault; a whole table has none
    near   : neighbors of row 0, 1, ... (n, k), and
    told   : their distances, minus the product for inner_product; both empty where the table is not complete
    """

    faults: dict[str, int]
    near: np.ndarray
    told: np.ndarray


def read_found(path: Path, n: int, k: int) -> Found:
    """Read a nested table of n users who want k neighbors each."""
    rows = pq.read_table(path).combine_chunks()
    users, lists = rows["user_id"].to_numpy(), rows["neighbors"].combine_chunks()
    sizes, flat, want = lists.value_lengths().fill_null(0).to_numpy(), lists.flatten(), min(k, n - 1)
    others = flat.field("neighbor_id").to_numpy()
    largest = "inner_product" in [field.name for field in flat.type]
    told = -flat.field("inner_product").to_numpy() if largest else flat.field("distance").to_numpy()
    present = np.bincount(users, minlength=n)
    owners = np.repeat(users, sizes)
    pairs = owners * np.int64(n) + others
    order = owners[1:] == owners[:-1]
    falling = order & ((told[1:] < told[:-1]) | ((told[1:] == told[:-1]) & (others[1:] < others[:-1])))
    faults = {
        "missing": int((present == 0).sum()),
        "repeated": int((present > 1).sum()),
        "short": int((sizes < want).sum()),
        "long": int((sizes > want).sum()),
        "own neighbor": int((owners == others).sum()),
        "twice the same": len(pairs) - len(np.unique(pairs)),
        "out of order": int(falling.sum()),
        "not a number": int((~np.isfinite(told)).sum()),
    }
    faults = {name: number for name, number in faults.items() if number}
    if len(users) != n or (sizes != want).any():
        return Found(faults, np.empty((0, want), np.int64), np.empty((0, want)))
    place = np.argsort(users)
    return Found(faults, others.reshape(n, want)[place], told.reshape(n, want)[place])
