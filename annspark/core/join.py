"""The leaf join: residents of a leaf are compared with each other and with its visitors; all keep their nearest.

A leaf's residents are the vectors whose home it is; its visitors are the vectors that visit it.  Either end of a pair
may keep the other, so a pair is found when one of the two visits the home of the other.  Visitors are not compared with
each other.

Selection decides the speed, and not the matrix product.  So each vector has a bar, the distance of the worst neighbor
it has kept so far, and a pair has to beat the bar of either end.  The product gives no more than a lower bound of the
distance.  The few pairs whose bound beats a bar are measured exactly, and are merged into the lists by one sort of
packed integers.  The lists are therefore exact among the pairs compared, ties included, and do not depend on the leaf,
block or partition in which a pair was compared.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.calls import Calls
from annspark.core.excluded import Pairs, pairs_of
from annspark.core.join_dense import compare_dense
from annspark.core.join_sparse import compare_sparse
from annspark.core.keeper import MAX_ROWS, NO_BAR, Keeper
from annspark.core.metric import METRICS
from annspark.core.routes import Visits
from annspark.core.vectors import (
    Vectors,
    concatenate_rows,
    groups_of,
    is_sparse,
    len_of,
    plain,
    surplus_twins,
)


@dataclass(frozen=True)
class Joined:
    """The nearest neighbors of the vectors of one partition, among those they were compared with in it.

    Under cosine, jaccard and inner product sparse rows get no neighbor that is as far as unrelated rows, or farther,
    but for those of small groups: see join_sparse.py.

    neighbors : int32 (n, k), row numbers, by (distance, row number); -1 where fewer were compared
    distances : float32 (n, k), exact (for dense vectors by differences); inf where fewer were compared
    pairs     : number of pairs compared
    max_rows  : number of residents of the largest leaf
    """

    neighbors: np.ndarray
    distances: np.ndarray
    pairs: int
    max_rows: int


def join_leaves(
    vectors: Vectors,
    home: np.ndarray,
    visits: Visits,
    k: int,
    metric: str,
    excluded: Pairs | None = None,
    shared: range = range(0),
) -> Joined:
    """Join every leaf of a partition: return each vector's k nearest among those it is compared with.

    vectors : n, dense or sparse, prepared, float32 or float64, in ascending order of id, n <= MAX_ROWS
    home    : int32 (n,), a vector's home leaf; -1 for a guest, whose home is in another partition
    visits  : of other leaves of this partition, EVERY_LEAF for all; equal vectors have equal homes and visits
    excluded : pairs of vectors, of which the first must not be given the second
    shared  : the leaves that small groups share

    Raises ValueError for more than MAX_ROWS vectors.
    """
    n = len_of(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"join_leaves: {n:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    neighbors = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    # Of equal vectors (twins) no list needs more than the first k + 1.  Further ones, the surplus, are not joined: they
    # get the list of the last one that is, their model.  So 10^5 equal vectors cost no more than k + 1.
    surplus, model = _surplus(vectors, np.arange(n), k, excluded)
    rows = np.delete(np.arange(n), surplus)
    rows = rows[np.argsort(np.where(home[rows] < 0, np.iinfo(np.int32).max, home[rows]), kind="stable")]
    group = groups_of(vectors)
    keeper = Keeper(plain(vectors), rows, home, visits, k, metric, excluded=excluded, group=group, shared=shared)
    pairs = (compare_sparse if is_sparse(vectors) else compare_dense)(keeper)
    neighbors[rows], distances[rows] = keeper.nearest()
    # A surplus guest gets no list here: in the partition of its home, k twins at distance 0 fill its list.  Here they
    # are guests like it, and guests are not compared with each other.  Under the inner product twins need not be
    # nearest, so there it gets its model's list.
    copying = (home[surplus] >= 0) | METRICS[metric].largest
    neighbors[surplus[copying]], distances[surplus[copying]] = neighbors[model[copying]], distances[model[copying]]
    return Joined(neighbors=neighbors, distances=distances, pairs=pairs, max_rows=_largest_leaf(home))


def join_queries(
    residents: Vectors,
    home: np.ndarray,
    queries: Vectors,
    visits: Visits,
    k: int,
    metric: str,
    excluded: Pairs | None = None,
    shared: range = range(0),
) -> Joined:
    """Compare queries with the residents of the leaves that they go to: return each query's k nearest among these.

    residents : n, dense or sparse, prepared, float32 or float64, in ascending order of id
    home      : int32 (n,), a resident's home leaf
    queries   : m, of the same kind; n + m <= MAX_ROWS
    visits    : the leaves of this partition that each query goes to
    excluded  : pairs of a query and a resident, which the query must not be given
    shared    : the leaves that small groups share
    returns   : for each query, row numbers of residents

    Raises ValueError for more than MAX_ROWS vectors.
    """
    n, m = len_of(residents), len_of(queries)
    if n + m > MAX_ROWS:
        raise ValueError(f"join_queries: {n + m:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    both = None if excluded is None else pairs_of(excluded.row + n, excluded.other, n + m, n + m)
    # A list that holds one of these holds k nearer ones before it.
    surplus, _ = _surplus(residents, np.arange(n), k - 1, both)
    rows = np.delete(np.arange(n), surplus)
    rows = np.concatenate([rows[np.argsort(home[rows], kind="stable")], n + np.arange(m)])
    homes = np.concatenate([home, np.full(m, -1, home.dtype)])
    visits = Visits(visits.row + n, visits.leaf)
    bars = np.where(homes >= 0, NO_BAR, np.float32(np.inf))
    everybody = concatenate_rows([residents, queries])
    group = groups_of(everybody)
    keeper = Keeper(plain(everybody), rows, homes, visits, k, metric, bars, excluded=both, group=group, shared=shared)
    pairs = (compare_sparse if is_sparse(residents) else compare_dense)(keeper)
    neighbors, distances = (part[len(rows) - m :] for part in keeper.nearest())
    return Joined(neighbors=neighbors, distances=distances, pairs=pairs, max_rows=_largest_leaf(home))


def _surplus(vectors: Vectors, some: np.ndarray, most: int, excluded: Pairs | None) -> tuple[np.ndarray, np.ndarray]:
    """Return surplus_twins among some of the vectors, ascending.

    Vectors that exclude others or are excluded are left out: their twins cannot stand for them.
    """
    if excluded is not None and len(excluded.row):
        is_free = np.ones(max(excluded.n, excluded.m), bool)
        is_free[excluded.row] = is_free[excluded.other] = False
        some = some[is_free[some]]
    return surplus_twins(vectors, most, some=some)


def join_changed(
    vectors: Vectors,
    things: np.ndarray,
    home: np.ndarray,
    visits: Visits,
    calls: Calls,
    bars: np.ndarray,
    k: int,
    metric: str,
    excluded: Pairs | None = None,
    shared: range = range(0),
) -> Joined:
    """Compare rows that ask with residents; both ends keep their k nearest of these.

    A row that asks meets the residents of the leaves it goes to, and those that visit a home of it.  A row that asks
    may be a resident, too: it then comes twice, once as either.

    vectors : n, dense or sparse, prepared, float32 or float64, in ascending order of id, n <= MAX_ROWS
    things  : int (n,), the same for both of a row that comes twice
    home    : int32 (n,), a resident's home leaf; -1 for a row that asks
    visits  : the leaves of this partition that each row that asks goes to
    calls   : rows that ask, and the residents that visit a home of theirs; equal vectors have equal ones
    bars    : float32 (n,), raw distance up to which a resident keeps neighbors; NO_BAR for one that keeps none
    excluded : pairs of a row that asks and a resident, or the other way round, of which the first must not keep the
               second
    shared  : the leaves that small groups share
    returns : lists of row numbers: residents for rows that ask, and rows that ask for residents

    Raises ValueError for more than MAX_ROWS vectors.
    """
    n = len_of(vectors)
    if n > MAX_ROWS:
        raise ValueError(f"join_changed: {n:,} rows in one partition; at most {MAX_ROWS:,} are allowed.")
    neighbors = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    bars = np.where(home < 0, np.float32(np.inf), bars)
    # As in join_leaves, of either side's twins only the first k + 1 are joined.  Their model keeps what is near enough
    # for any of them.
    sides = np.flatnonzero(home < 0), np.flatnonzero(home >= 0)
    surplus, model = zip(*(_surplus(vectors, side, k, excluded) for side in sides), strict=True)
    further, like = np.concatenate(surplus), np.concatenate(model)
    np.maximum.at(bars, like, bars[further])
    rows = np.delete(np.arange(n), further)
    rows = rows[np.argsort(np.where(home[rows] < 0, np.iinfo(np.int32).max, home[rows]), kind="stable")]
    group, calls = groups_of(vectors), calls.among(rows)
    keeper = Keeper(plain(vectors), rows, home, visits, k, metric, bars, things, excluded, group, shared)
    pairs = compare_sparse(keeper, calls.meetings(keeper.home)) if is_sparse(vectors) else compare_dense(keeper, calls)
    neighbors[rows], distances[rows] = keeper.nearest()
    neighbors[further], distances[further] = neighbors[like], distances[like]
    return Joined(neighbors=neighbors, distances=distances, pairs=pairs, max_rows=_largest_leaf(home))


def _largest_leaf(home: np.ndarray) -> int:
    """Return the number of residents of the largest leaf."""
    return int(np.unique(home[home >= 0], return_counts=True)[1].max(initial=0))
