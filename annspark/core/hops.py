"""Hops: over how many links the two farthest rows of a group hang together."""

import numpy as np

_CELLS = 1 << 22  # cells of the matrices that are multiplied at once


def diameters(groups: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the diameter of each group, in links.

    groups  : int (n_links,), the group of each link: 0, 1, ..., each with at least one link
    ends    : int (n_links, 2), the two rows of each link; the links of a group connect all of its rows
    returns : int (n_groups,)
    """
    # Rows are numbered within their groups: the distinct pairs of group and row are in the order of the groups.
    pairs, places = np.unique(np.stack([np.repeat(groups, 2), ends.ravel()]), axis=1, return_inverse=True)
    sizes = np.bincount(pairs[0])
    first = np.cumsum(sizes) - sizes
    own = places.reshape(-1, 2) - first[groups][:, None]
    found = np.zeros(len(sizes), np.int32)
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        at_once = max(1, _CELLS // int(size) ** 2)
        for start in range(0, len(alike), at_once):
            chosen = alike[start : start + at_once]
            slot = np.full(len(sizes), -1)
            slot[chosen] = np.arange(len(chosen))
            of_chosen = slot[groups] >= 0
            found[chosen] = _diameters(slot[groups[of_chosen]], own[of_chosen], len(chosen), int(size))
    return found


def _diameters(slot: np.ndarray, ends: np.ndarray, count: int, size: int) -> np.ndarray:
    """Return the diameters of groups of one size, by one matrix of its rows per group."""
    near = np.zeros((count, size, size), np.float32)
    near[slot, ends[:, 0], ends[:, 1]] = near[slot, ends[:, 1], ends[:, 0]] = 1
    near[:, np.arange(size), np.arange(size)] = 1
    reached, found, open_ones = near, np.ones(count, np.int32), np.arange(count)
    while True:
        is_open = (reached == 0).any(axis=(1, 2))
        open_ones, reached, near = open_ones[is_open], reached[is_open], near[is_open]
        if not len(open_ones):
            return found
        found[open_ones] += 1
        reached = (reached @ near > 0).astype(np.float32)
