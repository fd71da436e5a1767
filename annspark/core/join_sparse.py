"""The leaf join of sparse rows: many small leaves at once, by one product of sparse matrices.

A product of sparse rows takes time for the columns that pairs share, not for pairs.  Every column of every leaf gets a
number of its own, so that one product of all visits and all residents holds the pairs of each leaf, and no others; and
every leaf gets one column more, in which all its rows have the same number, so that pairs that share nothing are there
too.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np

from annspark.core.keep import Keeper
from annspark.core.rows import Vectors, owner_of, sparse_rows, take_rows
from annspark.core.score import SparseProducts, squared_lengths

_PAIRS = 1 << 20  # pairs of one product: some 50 MB with what is made of them
_MARK = 1e-150  # in the column of the leaf: its square vanishes beside any product but 0


@dataclass(frozen=True)
class _Leaves:
    """Residents, leaf by leaf, and what they are measured by.

    first   : int (n_leaves,), first resident of each leaf; residents are consecutive rows
    count   : int (n_leaves,)
    lengths : float64 (n_rows,), squared, of all rows
    """

    first: np.ndarray
    count: np.ndarray
    lengths: np.ndarray


def meet_sparse(kept: Keeper) -> int:
    """Let everybody meet at home, and then the visitors; returns the number of pairs."""
    leaves, first, count = np.unique(kept.home, return_index=True, return_counts=True)
    first, count, leaves = first[leaves >= 0], count[leaves >= 0], leaves[leaves >= 0]
    if len(leaves) == 0:
        return 0
    at_home = np.arange(count.sum())
    all_leaves = _Leaves(first, count, squared_lengths(kept.all.values))
    pairs = _meet(kept, at_home, np.repeat(np.arange(len(leaves)), count), all_leaves, at_home=True)
    row, column = np.nonzero(kept.visits >= 0)
    leaf = kept.visits[row, column]
    place = np.searchsorted(leaves, leaf).clip(max=len(leaves) - 1)
    here = leaves[place] == leaf
    row, place = row[here], place[here]
    order = np.lexsort((row, place))
    return pairs + _meet(kept, row[order], place[order], all_leaves, at_home=False)


def _meet(kept: Keeper, visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, *, at_home: bool) -> int:
    """Let visitors meet the residents of leaves, some leaves at a time.

    visitors : int (n_visits,), rows
    leaf     : int (n_visits,), ascending, place of the leaf visited
    """
    ends = np.cumsum(leaves.count[leaf])
    if len(ends) == 0:
        return 0
    cut = np.unique(np.searchsorted(ends, np.arange(_PAIRS, ends[-1] + _PAIRS, _PAIRS))) + 1
    start = 0
    for end in np.minimum(cut, len(leaf)).tolist():
        if end > start:
            here = slice(int(leaf[start]), int(leaf[end - 1]) + 1)
            some = _Leaves(leaves.first[here], leaves.count[here], leaves.lengths)
            _meet_some(kept, visitors[start:end], leaf[start:end] - leaf[start], some, at_home)
        start = end
    return int(ends[-1])


def _meet_some(kept: Keeper, visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, at_home: bool) -> None:
    residents = np.arange(leaves.first[0], leaves.first[-1] + leaves.count[-1])
    theirs = np.repeat(np.arange(len(leaves.first)), leaves.count)
    kernel, lengths = cast(SparseProducts, kept.kernel), leaves.lengths
    right, right_keys = _in_leaves(kept.all.values, residents, theirs)
    left, left_keys = _in_leaves(kept.all.values, visitors, leaf)
    numbers, right_columns = np.unique(right_keys, return_inverse=True)
    place = np.searchsorted(numbers, left_keys).clip(max=len(numbers) - 1)
    shared = numbers[place] == left_keys
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(shared)])
    left = _matrix(np.diff(before[left.indptr]), place[shared], left.data[shared], len(numbers))
    right = _matrix(np.diff(right.indptr), right_columns, right.data, len(numbers))
    products = left @ right.T.tocsr()
    one = visitors.take(owner_of(products))
    other = residents.take(products.indices)
    raw = kernel.from_products(lengths.take(one), lengths.take(other), products.data)
    if at_home:
        new = np.flatnonzero(one != other)
        kept.fold_pairs(one.take(new), kept.rank.take(other.take(new)), raw.take(new))
        return
    near = np.flatnonzero(raw <= np.maximum(kept.bar.take(one), kept.bar.take(other)))
    one, other, raw = one.take(near), other.take(near), raw.take(near)
    new = np.flatnonzero(~kept.met_before(one, other))  # a pair that visits each other's homes meets once
    one, other, raw = one.take(new), other.take(new), raw.take(new)
    for row, nearby in ((one, other), (other, one)):
        keep = np.flatnonzero(raw <= kept.bar.take(row))
        kept.fold_pairs(row.take(keep), kept.rank.take(nearby.take(keep)), raw.take(keep))


def _in_leaves(rows: Vectors, chosen: np.ndarray, leaf: np.ndarray) -> tuple[Vectors, np.ndarray]:
    """Return rows, each with a number for its leaf, and a key for each number: its column and the leaf."""
    some = take_rows(rows, chosen)
    ends = some.indptr[1:]
    marked = sparse_rows(
        np.diff(some.indptr) + 1,
        np.insert(some.indices, ends, some.shape[1]),
        np.insert(some.data.astype(np.float64), ends, _MARK),
        some.shape[1] + 1,
    )
    return marked, leaf[owner_of(marked)] * np.int64(some.shape[1] + 1) + marked.indices


def _matrix(counts: np.ndarray, columns: np.ndarray, values: np.ndarray, width: int) -> Vectors:
    return sparse_rows(counts, columns.astype(np.int32), values, width)
