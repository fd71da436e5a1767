"""A forest of groups: what a join by it finds is of the same group, and of small groups it is everything."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.copies import route_queries, route_residents, route_vectors
from annspark.core.exact import search_exactly
from annspark.core.excluded import pairs_of
from annspark.core.grouped_forest import LARGE, grow_grouped
from annspark.core.join import join_leaves, join_queries
from annspark.core.metric import prepare
from annspark.core.nearest_lists import empty_lists
from annspark.core.plan import Workers, count_leaves, count_residents, plan_join, plan_queries
from annspark.core.routes import Visits
from annspark.core.vectors import Grouped, concatenate_rows, is_sparse, slice_rows, surplus_twins, take_rows
from tests import oracle
from tests.helpers import clustered

LEAF_ROWS, K = 64, 5
SIZES = np.array([1500, 900, *[3] * 60, 200, 99, 1])


def make_world(metric, seed=0, *, sparse=False):
    """Return vectors, prepared and with their groups, the group's number and the vectors as they are."""
    rng = np.random.default_rng(seed)
    number = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    rows = words_of(rng, len(number), metric) if sparse else clustered(len(number), 8, seed=seed)
    names = rng.integers(-(2**63), 2**63 - 1, len(SIZES))
    return Grouped(prepare(rows, metric), names[number]), number, rows


def words_of(rng, n, metric):
    """Return sparse rows of small numbers, negative ones too; one of the 40 columns is never in the sample."""
    rows = rng.integers(-1, 5, (n, 40)) * (rng.random((n, 40)) < 0.15)
    rows[:, 0] = 1 + (np.arange(n) % 3 == 0) if metric == "cosine" else 0
    return csr_array(rows.astype(np.float32))


def grown(ready, metric, *, every=2):
    names, rows = np.unique(ready.group, return_counts=True)
    is_large = rows >= LEAF_ROWS * LARGE
    large = dict(zip(names[is_large].tolist(), rows[is_large].tolist(), strict=True))
    sample = take_rows(ready, np.arange(0, len(ready.group), every))
    return grow_grouped(sample, large, int(rows[~is_large].sum()), leaves_for, partial(grow_one, metric=metric))


def leaves_for(rows):
    return count_leaves(rows, LEAF_ROWS, K)


def grow_one(sample, rows, metric):
    if is_sparse(sample):
        return grow_columns(sample, rows, leaves_for(rows), homes=(0, 1), metric=metric)
    return grow_forest(sample, leaves_for(rows), trees=1, split="two_means", seed=0, metric=metric)


def visits_in(copies, which):
    ends = np.cumsum(copies.n_visits)
    parts = [copies.visits[ends[at] - copies.n_visits[at] : ends[at]] for at in which]
    row = np.repeat(np.arange(len(which)), copies.n_visits[which])
    return Visits(row, np.concatenate(parts) if parts else np.empty(0, np.int32))


def recall_of(lists, far, row):
    wanted = min(K, int(np.isfinite(far[row]).sum()))
    assert np.isfinite([far[row, other] for other in lists]).all()
    if wanted == 0:
        return 1.0
    radius = np.sort(far[row])[wanted - 1]
    return sum(far[row, other] <= radius + 1e-5 * abs(radius) + 1e-6 for other in lists[:K]) / wanted


KINDS = [*((metric, False) for metric in ("cosine", "euclidean", "inner_product", "manhattan")),
         *((metric, True) for metric in ("cosine", "euclidean", "inner_product", "jaccard"))]  # fmt: skip


@pytest.mark.parametrize(("metric", "sparse"), KINDS)
def test_join_by_a_forest_of_groups(metric, sparse):
    ready, number, rows = make_world(metric, sparse=sparse)
    n, forest = len(number), grown(ready, metric)
    assert len(forest.names) == 2
    assert forest.n_shared == round(SIZES[2:].sum() / LEAF_ROWS)
    plan = plan_join(forest, ready, 3, rows=n, workers=Workers(2))
    copies = route_vectors(forest, plan, ready)
    found = [[] for _ in range(n)]
    for partition in range(plan.n_partitions):
        here = np.flatnonzero(copies.partition == partition)
        row = copies.row[here]
        visits = visits_in(copies, here)
        joined = join_leaves(take_rows(ready, row), copies.home[here], visits, K, metric, shared=plan.shared)
        for at, others, distances in zip(row, joined.neighbors, joined.distances, strict=True):
            found[at] += [(d, int(row[other])) for d, other in zip(distances, others, strict=True) if other >= 0]
    far = np.where(number[:, None] == number, oracle.all_distances(rows, metric), np.inf)
    np.fill_diagonal(far, np.inf)
    recalls = np.array([recall_of([o for _, o in sorted(set(lists))], far, at) for at, lists in enumerate(found)])
    assert (recalls[SIZES[number] < LEAF_ROWS * LARGE] == 1).all()
    assert recalls.mean() > 0.9


def test_queries_by_a_forest_of_groups():
    metric = "euclidean"
    ready, number, rows = make_world(metric, seed=1)
    n = 2000
    residents, queries = slice_rows(ready, 0, n), slice_rows(ready, n, len(number))
    forest = grown(residents, metric)
    (routes,) = forest.find_routes(residents, 1)
    at_home = (count_residents(routes, forest.sizes[0]).astype(float),)
    plan = plan_queries(forest, queries, at_home, 3, queries=len(number) - n, rows=n, workers=Workers(2), width=10.0)
    homes, asking = route_residents(forest, plan, residents), route_queries(forest, plan, queries)
    found = [[] for _ in range(len(number) - n)]
    for partition in range(plan.n_partitions):
        here, there = (np.flatnonzero(copies.partition == partition) for copies in (asking, homes))
        mine, theirs = take_rows(queries, asking.row[here]), take_rows(residents, homes.row[there])
        visits = visits_in(asking, here)
        joined = join_queries(theirs, homes.home[there], mine, visits, K, metric, shared=plan.shared)
        for at, others, distances in zip(asking.row[here], joined.neighbors, joined.distances, strict=True):
            found[at] += [(d, int(homes.row[there][o])) for d, o in zip(distances, others, strict=True) if o >= 0]
    far = np.where(number[n:, None] == number[:n], oracle.between(rows[n:], rows[:n], metric), np.inf)
    recalls = [recall_of([o for _, o in sorted(set(lists))], far, at) for at, lists in enumerate(found)]
    assert np.mean(recalls) > 0.9


def test_distances_between_homes_agree_with_routes():
    """A pair whose distance is within the reach is one whose vector goes to the home of the other."""
    ready, number, _ = make_world("euclidean", seed=2)
    forest, some = grown(ready, "euclidean"), np.flatnonzero(number < 2)[:400]
    left, right = some[:200], some[200:]
    pairs = np.array([(i, j) for i in left for j in right if number[i] == number[j]])[:500]
    leaves_nearer, margins = forest.find_home_distances(ready, pairs[:, 0], ready, pairs[:, 1])
    (routes,) = forest.find_routes(ready, 4)
    home = np.empty(len(number), np.int64)
    home[routes.row[routes.home]] = routes.leaf[routes.home]
    reachable = set(zip(routes.row.tolist(), routes.leaf.tolist(), strict=True))
    told = (leaves_nearer[:, 0] < forest.most_leaves(4)) & np.isfinite(margins[:, 0])
    assert told.tolist() == [(i, home[j]) in reachable for i, j in pairs]
    small = np.flatnonzero(number == 5)
    nothing, same = forest.find_home_distances(ready, small[:1], ready, small[1:2])
    assert (nothing == 0).all()
    assert (same < -1).all()


def test_exact_search_stays_within_groups():
    ready, number, rows = make_world("cosine", seed=3)
    n, rng = len(number), np.random.default_rng(3)
    banned = pairs_of(rng.integers(0, 100, 2000), rng.integers(0, n, 2000), 100, n)
    lists = search_exactly(slice_rows(ready, 0, 100), ready, np.arange(n), empty_lists(100, K), "cosine", banned)
    far = np.where(number[:100, None] == number, oracle.all_distances(rows, "cosine")[:100], np.inf)
    far[banned.row, banned.other] = np.inf
    np.testing.assert_allclose(lists.distances, np.sort(far, axis=1)[:, :K], atol=1e-6)


def test_twins_of_other_groups_do_not_stand_for_each_other():
    vectors = Grouped(np.zeros((12, 3), np.float32), np.repeat([7, -7], 6))
    surplus, model = surplus_twins(vectors, 4)
    assert (surplus.tolist(), model.tolist()) == ([5, 11], [4, 10])
    both = concatenate_rows([vectors, vectors])
    assert both.shape == (24, 3)


def test_a_group_that_the_sample_lacks_is_treated_as_a_small_one():
    ready, _, _ = make_world("euclidean", seed=4)
    forest = grow_grouped(slice_rows(ready, 0, 1), {1: 5000}, 64, leaves_for, partial(grow_one, metric="euclidean"))
    assert (len(forest.names), forest.sizes) == (0, (79,))
    (routes,) = forest.find_routes(ready, 2)
    assert routes.home.all()
    assert forest.most_probes(ready) == 1
