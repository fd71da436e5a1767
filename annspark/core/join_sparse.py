"""The leaf join of sparse rows: many small leaves at once, by one product of sparse matrices.

A product of sparse rows takes time for the columns that pairs share, not for pairs.  Every column of every leaf gets a
number of its own, so that one product of all visits and all residents holds the pairs of each leaf, and no others.
Those who visit every leaf are the residents of one more, which everybody visits.

Where all pairs that share nothing are equally far, they are left out: who lacks neighbors gets the first of everybody
later, and nobody gets one that is farther.  For euclidean every leaf has one column more, in which all its rows have
the same small number, so that such pairs are there too; and so it is for sets without members, which are all equal.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np

from annspark.core.distance import SparseProducts
from annspark.core.keeper import Keeper
from annspark.core.metric import Metric
from annspark.core.nearest import places
from annspark.core.vectors import Vectors, owner_of, sparse_rows, squared_lengths, take_rows

_PAIRS = 1 << 20  # pairs of one product: some 50 MB with what is made of them
_NUMBERS = 1 << 22  # numbers of the visitors of one product: a very long row may visit many leaves
_COLUMNS = 1 << 22  # columns of one product: a number is kept for each
_LEAVES = 256  # leaves of one product: more have more columns in all than pay
_CROWDED = 1 << 14  # residents from which on a leaf is cut into parts
_PART = 1 << 11
_SPREAD = 3  # candidates of which every third, or fewer, are worth a fold of their own
_MARK = 1e-150  # in the last column: its square vanishes beside any product but 0


@dataclass(frozen=True)
class _Leaves:
    """Residents, leaf by leaf.

    rows  : int (n_residents,), leaf after leaf
    first : int (n_leaves,), place in rows of each leaf's first
    count : int (n_leaves,)
    """

    rows: np.ndarray
    first: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """All rows, guests too.

    marked  : float64 (n, n_columns + 1), columns numbered anew, the last one holding marks
    lengths : float64 (n,), squared
    number  : int32 (n_columns + 1,), a table to number columns in, -1 but while it is used
    measure : of distances from products
    """

    marked: Vectors
    lengths: np.ndarray
    number: np.ndarray
    measure: SparseProducts


def meet_sparse(kept: Keeper, metric: str) -> int:
    """Let everybody meet at home, and then the visitors; returns the number of pairs."""
    mine = take_rows(kept.vectors, kept.rank)
    marked = _marked(mine, np.isinf(kept.metric.unrelated) | (kept.metric.binary & (np.diff(mine.indptr) == 0)))
    number = np.full(marked.shape[1], -1, np.int32)
    rows = _Rows(marked, squared_lengths(mine), number, SparseProducts(metric))
    residents = np.lexsort((rows.lengths, kept.home))
    residents = residents[kept.home[residents] >= 0]
    pairs = 0
    if len(kept.hubs):
        pairs = _meet_hubs(kept, rows, residents)
        residents = residents[~np.isin(residents, kept.hubs)]
    leaf, first, count = np.unique(kept.home[residents], return_index=True, return_counts=True)
    leaves = _Leaves(residents, first, count)
    if len(leaf) == 0:
        return pairs
    pairs += _meet(kept, rows, residents, _places(leaves), leaves, at_home=True)
    place = np.searchsorted(leaf, kept.visits.leaf).clip(max=len(leaf) - 1)
    here = leaf[place] == kept.visits.leaf
    row, place = kept.visits.row[here], place[here]
    order = np.lexsort((row, place))
    return pairs + _meet(kept, rows, row[order], place[order], leaves, at_home=False)


def _meet_hubs(kept: Keeper, rows: _Rows, residents: np.ndarray) -> int:
    """Let all residents, who need not meet them in their leaves then, meet those who visit every leaf.

    A hub fills its list from other hubs where it lives, and from everybody else everywhere.
    """
    hubs = _Leaves(kept.hubs, np.zeros(1, np.int64), np.array([len(kept.hubs)]))
    among = np.isin(residents, kept.hubs)
    pairs = 0
    for visitors, at_home in ((residents[among], True), (residents[~among], False)):
        pairs += _meet(kept, rows, visitors, np.zeros(len(visitors), np.int64), hubs, at_home=at_home, twice=False)
    return pairs


def _places(leaves: _Leaves) -> np.ndarray:
    """Return the place of the leaf of every resident."""
    return np.repeat(np.arange(len(leaves.count)), leaves.count)


def _marked(rows: Vectors, which: np.ndarray) -> Vectors:
    columns, place = np.unique(rows.indices, return_inverse=True)
    ends = rows.indptr[1:][which]
    return sparse_rows(
        np.diff(rows.indptr) + which,
        np.insert(place.astype(np.int32), ends, len(columns)),
        np.insert(rows.data.astype(np.float64), ends, _MARK),
        len(columns) + 1,
    )


def _meet(
    kept: Keeper,
    rows: _Rows,
    visitors: np.ndarray,
    leaf: np.ndarray,
    leaves: _Leaves,
    *,
    at_home: bool,
    twice: bool = True,
) -> int:
    """Let visitors meet the residents of leaves, some leaves at a time.

    visitors : int (n_visits,), rows
    leaf     : int (n_visits,), ascending, place of the leaf visited
    at_home  : the visitors are the residents themselves, so each row's own list is all there is to fill
    twice    : others may visit each other's homes, and then meet once
    """
    visitors, leaf, leaves = _thinned(visitors, leaf, leaves, rows.lengths, kept.metric)
    pairs, numbers = np.cumsum(leaves.count[leaf]), np.cumsum(np.diff(rows.marked.indptr)[visitors])
    start = 0
    while start < len(leaf):
        met, seen = (pairs[start - 1], numbers[start - 1]) if start else (0, 0)
        ends = (
            np.searchsorted(pairs, met + _PAIRS),
            np.searchsorted(numbers, seen + _NUMBERS),
            np.searchsorted(leaf, leaf[start] + _LEAVES),
        )
        end = max(int(min(ends)), start + 1)
        here = slice(int(leaf[start]), int(leaf[end - 1]) + 1)
        some = _Leaves(leaves.rows, leaves.first[here], leaves.count[here])
        _meet_some(kept, rows, visitors[start:end], leaf[start:end] - leaf[start], some, at_home, twice)
        start = end
    return int(pairs[-1]) if len(pairs) else 0


def _thinned(
    visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, lengths: np.ndarray, metric: Metric
) -> tuple[np.ndarray, np.ndarray, _Leaves]:
    """Cut crowded leaves, whose residents are in the order of their lengths, into smaller ones that fewer visit.

    Visitors see those about as long as they are, as rows near each other are, or for inner products the longest.  So a
    column that everybody has costs time in proportion to everybody, and not to the square.
    """
    crowded = leaves.count > _CROWDED
    if not crowded.any():
        return visitors, leaf, leaves
    parts = np.where(crowded, -(-leaves.count // _PART), 1)
    part_of = np.cumsum(parts) - parts
    within = places(parts)
    first = np.repeat(leaves.first, parts) + within * _PART
    count = np.where(np.repeat(crowded, parts), np.minimum(np.repeat(leaves.count, parts) - within * _PART, _PART), 0)
    cut = _Leaves(leaves.rows, first, np.where(count > 0, count, np.repeat(leaves.count, parts)))
    who, where = [visitors[~crowded[leaf]]], [part_of[leaf[~crowded[leaf]]]]
    for one in np.flatnonzero(crowded):
        mine = visitors[leaf == one]
        here = lengths[leaves.rows[leaves.first[one] : leaves.first[one] + leaves.count[one]]]
        middle = np.searchsorted(here, lengths[mine]) // _PART
        if metric.largest:
            middle = np.full(len(mine), parts[one] - 1)
        for aside in (-1, 0, 1):
            part = middle + aside
            good = (part >= 0) & (part < parts[one])
            who.append(mine[good])
            where.append(part_of[one] + part[good])
    who_all, where_all = np.concatenate(who), np.concatenate(where)
    order = np.lexsort((who_all, where_all))
    return who_all[order], where_all[order], cut


def _meet_some(
    kept: Keeper, rows: _Rows, visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, at_home: bool, twice: bool
) -> None:
    residents = leaves.rows[leaves.first[0] : leaves.first[-1] + leaves.count[-1]]
    right = take_rows(rows.marked, residents)
    # Columns that residents of these leaves have, and one more for all others.
    columns = np.unique(right.indices)
    n_columns = len(columns) + 1
    half = len(leaves.count) // 2
    if half and len(leaves.count) * n_columns > _COLUMNS:
        for start, end in ((0, half), (half, len(leaves.count))):
            mine = slice(*np.searchsorted(leaf, (start, end)))
            some = _Leaves(leaves.rows, leaves.first[start:end], leaves.count[start:end])
            if mine.stop > mine.start:
                _meet_some(kept, rows, visitors[mine], leaf[mine] - start, some, at_home, twice)
        return
    rows.number[columns] = np.arange(len(columns), dtype=np.int32)
    right = _in_leaves(right, _places(leaves), rows.number, n_columns, len(leaves.count))
    left = _in_leaves(take_rows(rows.marked, visitors), leaf, rows.number, n_columns, len(leaves.count))
    rows.number[columns] = -1
    products = left @ right.T.tocsr()
    one = visitors.take(owner_of(products))
    other = residents.take(products.indices)
    raw = rows.measure.from_products(rows.lengths.take(one), rows.lengths.take(other), products.data)
    raw = raw.astype(np.float32)
    unrelated = kept.metric.to_raw(np.array(kept.metric.unrelated, np.float32))
    bar = kept.bar.take(one) if at_home else np.maximum(kept.bar.take(one), kept.bar.take(other))
    near = np.flatnonzero((one != other) & (raw <= bar) & (raw < unrelated))
    if at_home:
        near = near[_fold_first(kept, one.take(near), other.take(near), raw.take(near))]
    one, other, raw = one.take(near), other.take(near), raw.take(near)
    rank, other_rank = kept.rank.take(one), kept.rank.take(other)
    # Of sparse rows many are equally far: most of them come too late by their ranks.
    enters = kept.may_enter(one, other_rank, raw)
    if at_home:
        kept.fold_pairs(one[enters], other_rank[enters], raw[enters])
        return
    enters_other = kept.may_enter(other, rank, raw)
    near = np.flatnonzero(enters | enters_other)
    if twice:
        near = near[~kept.met_before(one.take(near), other.take(near))]
    for row, nearby, may in ((one, other_rank, enters), (other, rank, enters_other)):
        keep = near[may.take(near)]
        kept.fold_pairs(row.take(keep), nearby.take(keep), raw.take(keep))


def _fold_first(kept: Keeper, row: np.ndarray, other: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Fold some of the candidates of crowded leaves, evenly spread, and return which others are within the bars now.

    row : int (n_pairs,), candidates of a row together
    """
    # Of c candidates in any order, every s-th leaves s k within its bar: c / s + s k are fewest where s^2 is c / k.
    n_rows = int(np.count_nonzero(np.diff(row, prepend=-1)))
    step = isqrt(len(row) // (kept.k * max(1, n_rows)))
    if step < _SPREAD:
        return np.arange(len(row))
    kept.fold_pairs(row[::step], kept.rank.take(other[::step]), raw[::step])
    within = raw <= kept.bar.take(row)
    within[::step] = False
    return np.flatnonzero(within)


def _in_leaves(rows: Vectors, leaf: np.ndarray, number: np.ndarray, n_columns: int, n_leaves: int) -> Vectors:
    """Give the columns of rows numbers of their own in each leaf."""
    counts = np.diff(rows.indptr)
    # -1, of a column that no resident has, is the last column of the leaf.
    columns = np.repeat((leaf * n_columns).astype(np.int32), counts) + number.take(rows.indices) % np.int32(n_columns)
    return sparse_rows(counts, columns, rows.data, n_leaves * n_columns)
