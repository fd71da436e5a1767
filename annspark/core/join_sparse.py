"""The leaf join of sparse rows: many small leaves at once, by one product of sparse matrices.

A product of sparse rows takes time for each column that a pair shares, and none for pairs that share no column.  Every
column of every leaf gets a number of its own, so that one product of all visits and all residents holds the pairs of
each leaf, and no others.  Hubs, which visit every leaf, are treated as the residents of one more leaf, which all rows
visit.

Pairs that share no column are unrelated.  Under cosine, jaccard and inner product all of them are equally far.  The
join leaves them out, and farther pairs too: a row whose list is short gets the first rows of all by id later, which are
as near (see first_rows.py).  Under euclidean distance unrelated pairs count.  So every leaf has one more column, in
which all of its rows have the same tiny number, a mark, and the product holds these pairs too.  Under jaccard only
the empty sets get the mark: they share no column, yet their distance is 0.

Rows of groups may only be neighbors within their group.  So what is treated as a leaf are the rows of one group in a
leaf.  Rows of small groups, which are compared with all of their group, get the mark, and keep unrelated rows, too.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np

from annspark.core.arrays import distinct, places_in_groups
from annspark.core.calls import Meetings
from annspark.core.distance import SparseProducts
from annspark.core.keeper import Keeper
from annspark.core.metric import Metric
from annspark.core.vectors import Vectors, owner_of, sparse_rows, squared_lengths, take_rows

_PAIRS = 1 << 20  # pairs of one product: some 50 MB with what is made of them
_NUMBERS = 1 << 22  # numbers of the visitors of one product: a very long row may visit many leaves
_COLUMNS = 1 << 22  # columns of one product: memory is needed for each
_LEAVES = 256  # leaves of one product: columns of more leaves would cost more than the larger product saves
CROWDED = 1 << 14  # a leaf with more residents is cut into parts
_PART = 1 << 11  # residents of a part
_SPREAD = 3  # a first fold of every s-th candidate pays from this s on
_MARK = 1e-150  # the mark: its square is lost beside any product but 0


@dataclass(frozen=True)
class _Leaves:
    """Residents, leaf by leaf.

    rows  : int (n_residents,), leaf after leaf
    first : int (n_leaves,), place in rows of the first resident of each leaf
    count : int (n_leaves,), residents of each leaf
    """

    rows: np.ndarray
    first: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """All rows of the partition, guests too.

    marked  : sparse float64 (n, n_columns + 1), columns numbered from 0, the last one for marks
    lengths : float64 (n,), squared lengths
    group   : int64 (n,), the number of a row's group, all 0 where there are no groups
    number  : int32 (n_columns + 1,), scratch: the number of a column in one product; -1 while none is made
    measure : gives distances from products
    """

    marked: Vectors
    lengths: np.ndarray
    group: np.ndarray
    number: np.ndarray
    measure: SparseProducts

    def in_groups(self, leaf: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Return a number for each leaf and the group of a row there, in the order of leaves: int64 (n,)."""
        return leaf.astype(np.int64) * (int(self.group.max(initial=0)) + 1) + self.group.take(row)


def compare_sparse(keeper: Keeper, meetings: Meetings = ()) -> int:
    """Compare the residents of each leaf with each other, then with its visitors; return the number of pairs.

    meetings : guests, and residents that these are compared with, too
    """
    mine = take_rows(keeper.vectors, keeper.id_order)
    all_count, empty = np.isinf(keeper.facts.unrelated), np.diff(mine.indptr) == 0
    marked = _marked(mine, all_count | (keeper.facts.sets & empty) | keeper.small)
    no_groups = np.zeros(len(keeper.home), np.int64)
    rows = _Rows(
        marked=marked,
        lengths=squared_lengths(mine),
        group=no_groups if keeper.group is None else np.unique(keeper.group, return_inverse=True)[1].reshape(-1),
        number=np.full(marked.shape[1], -1, np.int32),
        measure=SparseProducts(keeper.metric),
    )
    residents = np.lexsort((rows.lengths, rows.group, keeper.home))
    residents = residents[keeper.home[residents] >= 0]
    pairs = 0
    if len(keeper.hubs):
        pairs = _compare_with_hubs(keeper, rows, residents)
        residents = residents[~np.isin(residents, keeper.hubs)]
    homes = rows.in_groups(keeper.home[residents], residents)
    leaf, first, count = np.unique(homes, return_index=True, return_counts=True)
    leaves = _Leaves(residents, first, count)
    if len(leaf) == 0:  # then there are no meetings either
        return pairs
    if keeper.residents_meet:
        pairs += _compare(keeper, rows, residents, _leaf_places(leaves), leaves, at_home=True)
    visited = rows.in_groups(keeper.visits.leaf, keeper.visits.row)
    place = np.searchsorted(leaf, visited).clip(max=len(leaf) - 1)
    here = leaf[place] == visited
    row, place = keeper.visits.row[here], place[here]
    order = np.lexsort((row, place))
    pairs += _compare(keeper, rows, row[order], place[order], leaves, at_home=False)
    if meetings:
        count = np.array([len(called) for _, called in meetings])
        leaves = _Leaves(np.concatenate([called for _, called in meetings]), np.cumsum(count) - count, count)
        place = np.repeat(np.arange(len(meetings)), [len(some) for some, _ in meetings])
        some = np.concatenate([some for some, _ in meetings])
        pairs += _compare(keeper, rows, some, place, leaves, at_home=False, whole=True)
    return pairs


def _compare_with_hubs(keeper: Keeper, rows: _Rows, residents: np.ndarray) -> int:
    """Compare all residents with the hubs of their group, and return the number of pairs; leaves then need hold none.

    A hub is compared with other hubs in the partition of its home only, and with all other rows in every partition.
    """
    hubs = keeper.hubs[np.argsort(rows.group[keeper.hubs], kind="stable")]
    groups, first, count = np.unique(rows.group[hubs], return_index=True, return_counts=True)
    leaves = _Leaves(hubs, first, count)
    residents = residents[np.isin(rows.group[residents], groups)]
    residents = residents[np.argsort(rows.group[residents], kind="stable")]
    are_hubs = np.isin(residents, hubs)
    pairs = 0
    for visitors, at_home in ((residents[are_hubs], True), (residents[~are_hubs], False)):
        place = np.searchsorted(groups, rows.group[visitors])
        pairs += _compare(keeper, rows, visitors, place, leaves, at_home=at_home, twice=False)
    return pairs


def _leaf_places(leaves: _Leaves) -> np.ndarray:
    """Return the place among the leaves of the leaf of every resident: int (n_residents,)."""
    return np.repeat(np.arange(len(leaves.count)), leaves.count)


def _marked(rows: Vectors, which: np.ndarray) -> Vectors:
    """Return rows with columns numbered from 0 and one more column, in which some rows have a mark.

    which : bool (n,), rows that get a mark
    """
    columns, place = np.unique(rows.indices, return_inverse=True)
    ends = rows.indptr[1:][which]
    return sparse_rows(
        np.diff(rows.indptr) + which,
        np.insert(place.astype(np.int32), ends, len(columns)),
        np.insert(rows.data.astype(np.float64), ends, _MARK),
        len(columns) + 1,
    )


def _compare(
    keeper: Keeper,
    rows: _Rows,
    visitors: np.ndarray,
    leaf: np.ndarray,
    leaves: _Leaves,
    *,
    at_home: bool,
    twice: bool = True,
    whole: bool = False,
) -> int:
    """Compare visitors with the residents of leaves, some leaves at a time; return the number of pairs.

    visitors : int (n_visits,), rows
    leaf     : int (n_visits,), ascending, place among leaves of the leaf visited
    at_home  : the visitors are the residents themselves; every pair comes twice, once from either end, so only the
               visitor's list is filled
    twice    : two rows may visit each other's homes, and are then to be compared once only
    whole    : no leaf is cut, however crowded it is
    """
    if not whole:
        crowded = (leaves.count > CROWDED) & ~keeper.small.take(leaves.rows.take(leaves.first))
        visitors, leaf, leaves = _cut_crowded(visitors, leaf, leaves, crowded, rows.lengths, keeper.facts)
    pairs, numbers = np.cumsum(leaves.count[leaf]), np.cumsum(np.diff(rows.marked.indptr)[visitors])
    start = 0
    while start < len(leaf):
        pairs_before, numbers_before = (pairs[start - 1], numbers[start - 1]) if start else (0, 0)
        ends = (
            np.searchsorted(pairs, pairs_before + _PAIRS),
            np.searchsorted(numbers, numbers_before + _NUMBERS),
            np.searchsorted(leaf, leaf[start] + _LEAVES),
        )
        end = max(int(min(ends)), start + 1)
        here = slice(int(leaf[start]), int(leaf[end - 1]) + 1)
        some = _Leaves(leaves.rows, leaves.first[here], leaves.count[here])
        _compare_at_once(keeper, rows, visitors[start:end], leaf[start:end] - leaf[start], some, at_home, twice)
        start = end
    return int(pairs[-1]) if len(pairs) else 0


def _cut_crowded(
    visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, crowded: np.ndarray, lengths: np.ndarray, facts: Metric
) -> tuple[np.ndarray, np.ndarray, _Leaves]:
    """Cut crowded leaves into parts, and return visitors, the parts they visit, and all leaves.

    The residents of a leaf come in the order of their lengths.  A visitor goes to the part of residents about as long
    as itself, since rows near each other have about the same length, and to the parts before and after.  Under the
    inner product it goes to the longest residents.  So a column that all rows have costs time in proportion to the
    number of rows, and not to its square.

    visitors, leaf : as for _compare
    crowded        : bool (n_leaves,)
    lengths        : float64 (n,), squared lengths of all rows
    """
    if not crowded.any():
        return visitors, leaf, leaves
    parts = np.where(crowded, -(-leaves.count // _PART), 1)
    part_of = np.cumsum(parts) - parts
    place = places_in_groups(parts)
    first = np.repeat(leaves.first, parts) + place * _PART
    count = np.where(np.repeat(crowded, parts), np.minimum(np.repeat(leaves.count, parts) - place * _PART, _PART), 0)
    cut = _Leaves(leaves.rows, first, np.where(count > 0, count, np.repeat(leaves.count, parts)))
    some_visitors, some_parts = [visitors[~crowded[leaf]]], [part_of[leaf[~crowded[leaf]]]]
    for one in np.flatnonzero(crowded):
        mine = visitors[leaf == one]
        here = lengths[leaves.rows[leaves.first[one] : leaves.first[one] + leaves.count[one]]]
        middle = np.searchsorted(here, lengths[mine]) // _PART
        if facts.largest:
            middle = np.full(len(mine), parts[one] - 1)
        for aside in (-1, 0, 1):
            part = middle + aside
            good = (part >= 0) & (part < parts[one])
            some_visitors.append(mine[good])
            some_parts.append(part_of[one] + part[good])
    all_visitors, all_parts = np.concatenate(some_visitors), np.concatenate(some_parts)
    order = np.lexsort((all_visitors, all_parts))
    return all_visitors[order], all_parts[order], cut


def _compare_at_once(
    keeper: Keeper, rows: _Rows, visitors: np.ndarray, leaf: np.ndarray, leaves: _Leaves, at_home: bool, twice: bool
) -> None:
    """Compare visitors with the residents of leaves by one product, or by more if it would have too many columns."""
    residents = leaves.rows[leaves.first[0] : leaves.first[-1] + leaves.count[-1]]
    right = take_rows(rows.marked, residents)
    # The columns of the residents of these leaves, and one more that stands for all others.
    columns = distinct(right.indices)
    n_columns = len(columns) + 1
    half = len(leaves.count) // 2
    if half and len(leaves.count) * n_columns > _COLUMNS:
        for start, end in ((0, half), (half, len(leaves.count))):
            mine = slice(*np.searchsorted(leaf, (start, end)))
            some = _Leaves(leaves.rows, leaves.first[start:end], leaves.count[start:end])
            if mine.stop > mine.start:
                _compare_at_once(keeper, rows, visitors[mine], leaf[mine] - start, some, at_home, twice)
        return
    rows.number[columns] = np.arange(len(columns), dtype=np.int32)
    right = _columns_by_leaf(right, _leaf_places(leaves), rows.number, n_columns, len(leaves.count))
    left = _columns_by_leaf(take_rows(rows.marked, visitors), leaf, rows.number, n_columns, len(leaves.count))
    rows.number[columns] = -1
    products = left @ right.T.tocsr()
    one = visitors.take(owner_of(products))
    other = residents.take(products.indices)
    raw = rows.measure.from_products(rows.lengths.take(one), rows.lengths.take(other), products.data)
    raw = raw.astype(np.float32)
    unrelated = keeper.facts.to_raw(np.array(keeper.facts.unrelated, np.float32))
    bar = keeper.bar.take(one) if at_home else np.maximum(keeper.bar.take(one), keeper.bar.take(other))
    counts = raw < unrelated
    if keeper.group is not None:
        counts |= keeper.small.take(one)
    near = np.flatnonzero((one != other) & (raw <= bar) & counts)
    if at_home:
        near = keeper.allowed(near, one, other)
        near = near[_fold_some_first(keeper, one.take(near), other.take(near), raw.take(near))]
    one, other, raw = one.take(near), other.take(near), raw.take(near)
    id_order, other_id_order = keeper.id_order.take(one), keeper.id_order.take(other)
    # Many sparse rows are equally far, and most of them are behind the list's last by id.
    enters = keeper.may_enter(one, other_id_order, raw)
    if at_home:
        keeper.fold_pairs(one[enters], other_id_order[enters], raw[enters])
        return
    enters_other = keeper.may_enter(other, id_order, raw)
    near = np.flatnonzero(enters | enters_other)
    if twice:
        near = near[~keeper.left_out(one.take(near), other.take(near))]
    for row, others, nearby, may in ((one, other, other_id_order, enters), (other, one, id_order, enters_other)):
        keep = keeper.allowed(near[may.take(near)], row, others)
        keeper.fold_pairs(row.take(keep), nearby.take(keep), raw.take(keep))


def _fold_some_first(keeper: Keeper, row: np.ndarray, other: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Fold every s-th candidate where rows have many, and return which of the others are within the bars then.

    row : int (n_pairs,), the candidates of each row one after the other
    """
    # Let a row have c candidates, in any order.  After every s-th of them is folded, about s k of the others are within
    # the bar.  The number folded in all, c / s + s k, is least for s^2 = c / k.
    n_rows = int(np.count_nonzero(np.diff(row, prepend=-1)))
    step = isqrt(len(row) // (keeper.k * max(1, n_rows)))
    if step < _SPREAD:
        return np.arange(len(row))
    keeper.fold_pairs(row[::step], keeper.id_order.take(other[::step]), raw[::step])
    beats = raw <= keeper.bar.take(row)
    beats[::step] = False
    return np.flatnonzero(beats)


def _columns_by_leaf(rows: Vectors, leaf: np.ndarray, number: np.ndarray, n_columns: int, n_leaves: int) -> Vectors:
    """Return rows whose columns have numbers of their own in each leaf.

    leaf      : int (n,), place of the leaf that each row is in
    number    : int32, for each column its number in a leaf, or -1
    n_columns : columns of a leaf
    """
    counts = np.diff(rows.indptr)
    # A column that no resident has, -1, becomes the last column of the leaf.
    columns = np.repeat((leaf * n_columns).astype(np.int32), counts) + number.take(rows.indices) % np.int32(n_columns)
    return sparse_rows(counts, columns, rows.data, n_leaves * n_columns)
