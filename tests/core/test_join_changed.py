"""Rows that change, joined with those they meet, leave every list as a join of all rows has it, to the bit."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annspark.core import join, join_dense
from annspark.core.calls import Calls
from annspark.core.contents import contents_of
from annspark.core.distance import kernel_for
from annspark.core.excluded import pairs_of
from annspark.core.join import join_changed, join_leaves
from annspark.core.keeper import NO_BAR
from annspark.core.metric import METRICS
from annspark.core.routes import EVERY_LEAF, Visits
from annspark.core.vectors import Grouped, in_kind, take_rows
from annspark.core.visitors import gather_visitors
from tests.core.test_distance import KINDS, sparse
from tests.core.test_join_queries import make


class World:
    """Vectors of which rows are made: equal vectors have equal homes and visits, and hubs visit every leaf."""

    def __init__(self, metric, of_rows, rng, *, distinct, n_leaves, few_values):
        self.metric, self.n_leaves = metric, n_leaves
        self.vectors = make(metric, of_rows, distinct, rng, few_values=few_values)
        self.home = rng.integers(n_leaves, size=distinct).astype(np.int32)
        self.visited = []
        for home in self.home:
            if rng.random() < 0.1:
                self.visited.append(np.array([EVERY_LEAF], np.int32))
                continue
            leaves = rng.permutation(n_leaves)[: rng.integers(0, n_leaves)].astype(np.int32)
            self.visited.append(np.sort(leaves[leaves != home]))

    def visits(self, rows):
        """Return the visits of rows, each given by the vector it has."""
        visited = [self.visited[row] for row in rows]
        owner = np.repeat(np.arange(len(rows)), [len(some) for some in visited])
        return owner, np.concatenate([np.empty(0, np.int32), *visited])

    def goes(self, row):
        """Return all leaves that a row goes to."""
        visited = self.visited[row]
        return set(range(self.n_leaves)) if EVERY_LEAF in visited else {int(self.home[row]), *visited.tolist()}


def full(world, night, width, banned=()):
    """Return the lists of a join of all rows: {id: [(distance, id), ...]}; night is {id: vector}.

    banned : pairs of ids, of which the first must not be given the second
    """
    ids = sorted(night)
    rows = np.array([night[i] for i in ids], np.int64)
    visits = Visits(*world.visits(rows))
    numbered = [(ids.index(i), ids.index(j)) for i, j in banned if i in night and j in night]
    joined = join_leaves(
        take_rows(world.vectors, rows), world.home[rows], visits, width, world.metric, as_pairs(numbered, len(ids))
    )
    return lists_in(joined, ids, ids)


def as_pairs(numbered, n):
    return pairs_of(*np.array(numbered, np.int64).reshape(-1, 2).T, n, n)


def lists_in(joined, owners, ids):
    lists = {}
    for owner, neighbors, distances in zip(owners, joined.neighbors, joined.distances, strict=True):
        if owner is not None:
            kept = neighbors >= 0
            found = zip(distances[kept].tolist(), neighbors[kept].tolist(), strict=True)
            lists[owner] = [(distance, ids[n]) for distance, n in found]
    return lists


def visitors_of(world, rows, asking):
    """Return the visits of rows that do not ask, and the bit of each row among them."""
    residents = np.flatnonzero(~asking)
    residents = residents[np.argsort(world.home[rows[residents]], kind="stable")]
    owner, visited = world.visits(rows[residents])
    counts = np.bincount(owner, minlength=len(residents))
    visitors = gather_visitors(world.home[rows[residents]], counts, visited)
    bit = np.zeros(len(rows), int)
    bit[residents] = visitors.place
    return visitors, bit


def update(world, before, kept, night, k, width, banned, again):
    """Return the lists of tonight, {id: (list, whole)}, from those of last night.

    again : ids that do not exclude the same others as last night
    """
    gone = {i for i in before if night.get(i) != before[i]}
    trimmed = {i: ([e for e in kept[i][0] if e[1] not in gone], kept[i][1]) for i in before if i not in gone}
    asks = {i for i in night if i not in trimmed}
    asks |= {i for i, (found, whole) in trimmed.items() if i in again or (len(found) < k and not whole)}
    ids = sorted(night)
    both = sorted([(i, False) for i in ids] + [(i, True) for i in asks])
    rows = np.array([night[i] for i, _ in both], np.int64)
    asking = np.array([a for _, a in both])
    things = np.array([ids.index(i) for i, _ in both])
    home_of = world.home[rows]
    every = np.flatnonzero(asking)
    homes = np.concatenate([home_of[every], np.full(len(every), EVERY_LEAF)])
    calls = Calls(np.tile(every, 2), homes, *visitors_of(world, rows, asking))

    bars = np.full(len(both), NO_BAR)
    for n, (i, a) in enumerate(both):
        if not a and i not in asks:
            found, whole = trimmed[i]
            farthest = np.float32(np.inf if whole else found[-1][0])
            bars[n] = METRICS[world.metric].to_raw(farthest) if np.isfinite(farthest) else farthest
    goes = [(row, leaf) for row in every for leaf in sorted(world.goes(rows[row]))]
    visits = Visits(*np.array(goes, np.int64).reshape(-1, 2).T)
    vectors = take_rows(world.vectors, rows)
    home = np.where(asking, np.int32(-1), home_of)
    copies = {both_copies: n for n, both_copies in enumerate(both)}
    named = [((i, a), (j, not a)) for i, j in banned for a in (True, False)]
    pairs = as_pairs([(copies[one], copies[other]) for one, other in named if {one, other} <= copies.keys()], len(both))
    joined = join_changed(vectors, things, home, visits, calls, bars, width, world.metric, pairs)
    names = [i for i, _ in both]
    asked = lists_in(joined, [i if a else None for i, a in both], names)
    offered = lists_in(joined, [None if a else i for i, a in both], names)
    tonight = {i: (asked[i], len(asked[i]) < width) for i in asks}
    for i, (found, whole) in trimmed.items():
        if i not in asks:
            near = {e for e in offered[i] if whole or e <= found[-1]} | set(found)
            tonight[i] = (sorted(near)[:width], whole and len(near) <= width)
    return tonight


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 25),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from(KINDS),
    st.booleans(),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from([1, 3, 1000]),
)
def test_nights_of_changes_leave_the_lists_of_a_join_of_all_rows(
    seed, distinct, n_leaves, k, spare, kind, few_values, nights, excludes, many
):
    rng, width = np.random.default_rng(seed), k + spare
    world = World(*kind, rng, distinct=distinct, n_leaves=n_leaves, few_values=few_values)
    before = {int(i): int(rng.integers(distinct)) for i in rng.permutation(60)[: rng.integers(1, 50)]}
    banned = set(map(tuple, rng.integers(60, size=(800 * excludes, 2)).tolist()))
    kept = {i: (found, len(found) < width) for i, found in full(world, before, width, banned).items()}
    for _ in range(nights):
        differ = set(map(tuple, rng.integers(60, size=(5 * excludes, 2)).tolist()))
        banned ^= differ
        night = dict(before)
        for i in rng.permutation(60)[: rng.integers(0, 20)].tolist():
            if rng.random() < 0.4:
                night.pop(i, None)
            else:
                night[i] = int(rng.integers(distinct))
        with patch.object(join_dense, "_MANY", many):
            kept = update(world, before, kept, night, k, width, banned, {i for i, _ in differ})
        assert {i: found[:k] for i, (found, _) in kept.items()} == full(world, night, k, banned)
        before = night


@pytest.mark.parametrize("many", [1, 5, 1000])
@pytest.mark.parametrize("metric", ["euclidean", "inner_product", "manhattan"])
def test_rows_that_ask_are_compared_with_those_that_visit_their_home_and_no_others(metric, many, monkeypatch):
    monkeypatch.setattr(join_dense, "_MANY", many)
    rng, n, m, k, n_leaves = np.random.default_rng(1), 600, 60, 3, 9
    vectors = rng.normal(size=(n + m, 5)).astype(np.float32)
    home = np.concatenate([np.sort(rng.integers(n_leaves, size=n)), np.full(m, -1)]).astype(np.int32)
    asks, asking = rng.integers(n_leaves, size=m).astype(np.int32), n + np.arange(m)
    visiting = (rng.random((n, n_leaves)) < 0.15) & (home[:n, None] != np.arange(n_leaves))
    visitors = gather_visitors(home[:n], visiting.sum(axis=1), np.nonzero(visiting)[1].astype(np.int32))
    calls = Calls(asking, asks, visitors, np.concatenate([visitors.place, np.zeros(m, int)]))
    bars = np.full(n + m, np.inf, np.float32)
    joined = join_changed(vectors, np.arange(n + m), home, Visits(asking, asks), calls, bars, k, metric)
    raw = kernel_for(metric, 5).exact(vectors, np.repeat(asking, n), vectors, np.tile(np.arange(n), m)).reshape(m, n)
    met = (visiting | (home[:n, None] == np.arange(n_leaves)))[:, asks].T
    raw[~met] = np.inf
    np.testing.assert_array_equal(joined.neighbors[n:], np.argsort(raw, axis=1)[:, :k])
    of_residents = np.argsort(raw.T, axis=1)[:, :k]
    none = np.isinf(np.take_along_axis(raw.T, of_residents, axis=1))
    np.testing.assert_array_equal(joined.neighbors[:n], np.where(none, -1, of_residents + n))
    assert joined.pairs == met.sum()


@pytest.mark.parametrize("metric", ["euclidean", "inner_product"])
def test_ten_thousand_equal_rows_cost_no_more_than_a_few(metric):
    vectors = np.ones((20_000, 4), np.float32)
    home = np.where(np.arange(20_000) % 2, 0, -1).astype(np.int32)
    asking = np.flatnonzero(home < 0)
    visitors = gather_visitors(np.zeros(10_000, int), np.ones(10_000, int), np.zeros(10_000, np.int32))
    joined = join.join_changed(
        vectors,
        np.arange(20_000) // 2,
        home,
        Visits(asking, np.zeros(len(asking), np.int32)),
        Calls(
            asking,
            np.zeros(len(asking), int),
            visitors,
            np.arange(20_000) // 2,
        ),
        np.full(len(home), np.inf, np.float32),
        4,
        metric,
    )
    assert joined.pairs == 25
    assert joined.neighbors[-1].tolist() == [0, 2, 4, 6]
    assert joined.neighbors[-2].tolist() == [1, 3, 5, 7]
    assert joined.neighbors[0].tolist() == [3, 5, 7, 9]


def test_a_content_is_that_of_the_numbers_whatever_holds_them():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(300, 9)).astype(np.float32)
    contents = contents_of(dense)
    assert len(np.unique(contents)) == 300
    np.testing.assert_array_equal(contents_of(dense.astype(np.float64)), contents)
    np.testing.assert_array_equal(contents_of(dense[100:200]), contents[100:200])
    changed = dense.copy()
    changed[:, 4] = np.nextafter(changed[:, 4], np.inf)
    assert not np.isin(contents_of(changed), contents).any()
    assert not np.isin(contents_of(dense[:, ::-1].copy()), contents).any()
    rows = sparse(200, 50, density=0.2, seed=1)
    np.testing.assert_array_equal(contents_of(in_kind(rows, np.float64)), contents_of(rows))
    np.testing.assert_array_equal(contents_of(take_rows(rows, np.arange(50, 90))), contents_of(rows)[50:90])
    np.testing.assert_array_equal(contents_of(rows.toarray()), contents_of(rows))
    grouped = [contents_of(Grouped(dense, np.full(300, group))) for group in (1, 1, -1)]
    np.testing.assert_array_equal(grouped[0], grouped[1])
    assert not np.isin(grouped[2], grouped[0]).any()
