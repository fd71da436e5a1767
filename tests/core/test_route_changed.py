"""A row that asks meets just those residents that it would meet in a join of all rows."""

import numpy as np
import pytest

from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.copies import callers_of, route_changed, route_homes, route_vectors
from annspark.core.metric import prepare
from annspark.core.plan import Expected, Plan
from annspark.core.routes import EVERY_LEAF, reach_for
from annspark.core.vectors import len_of, take_rows
from annspark.core.visitors import gather_visitors
from tests.core.test_distance import KINDS, sparse
from tests.core.test_visitors import visits_in


def make_vectors(metric, of_rows, n, rng):
    if of_rows:
        return prepare(sparse(n, 25, density=0.12, seed=int(rng.integers(2**32)), binary=metric == "jaccard"), metric)
    if metric == "hamming":
        return rng.integers(0, 2, (n, 8)).astype(np.float32)
    return prepare((rng.normal(size=(n, 6)) * rng.exponential(size=(n, 1))).astype(np.float32), metric)


def plan_in_parts(forest, reach, probes, parts, rng):
    """Return a plan in which the leaves of each tree are cut into parts at random."""
    cuts = [np.sort(rng.integers(0, parts, size)) for size in forest.sizes]
    runs = [np.unique(cut, return_inverse=True)[1] for cut in cuts]
    first = np.cumsum([0, *(run[-1] + 1 for run in runs)])
    partition = np.concatenate([run + start for run, start in zip(runs, first[:-1], strict=True)])
    expected = Expected(pairs=0, median_rows=0, p99_rows=0, max_rows=0)
    first_leaf = np.cumsum([0, *forest.sizes])
    return Plan(probes, reach, first_leaf, partition.astype(np.int32), int(first[-1]), 1.0, expected)


@pytest.mark.parametrize(("metric", "of_rows"), KINDS)
@pytest.mark.parametrize(("trees", "probes", "seed"), [(1, 2.5, 0), (2, 1.5, 1), (3, 4.0, 2)])
def test_rows_meet_whom_they_meet_in_a_join_of_all(metric, of_rows, trees, probes, seed):
    rng = np.random.default_rng(seed)
    vectors = make_vectors(metric, of_rows, 300, rng)
    if of_rows:
        forest = grow_columns(take_rows(vectors, np.arange(150)), 300, 10, homes=tuple(range(trees + 1)), metric=metric)
    else:
        forest = grow_forest(vectors[:150], 12, trees=trees + 1, split="two_means", seed=0, metric=metric)
    joined = forest.first(trees)
    reach = tuple(reach_for(of_tree, probes) for of_tree in joined.find_routes(vectors, probes))
    plan = plan_in_parts(forest, reach, probes, 3, rng)

    of_join = plan_in_parts(joined, reach, probes, 3, rng)
    whole = route_vectors(joined, of_join, vectors)
    n, n_leaves = len_of(vectors), plan.n_leaves
    goes, at_home = np.zeros((n, n_leaves), bool), np.zeros((n, n_leaves), bool)
    owner = np.repeat(np.arange(len(whole.row)), whole.n_visits)
    for copy, leaf in zip(owner, whole.visits, strict=True):
        here = np.flatnonzero(of_join.partition_of_leaf == whole.partition[copy])
        goes[whole.row[copy], here if leaf == EVERY_LEAF else leaf] = True
    resident = whole.home >= 0
    at_home[whole.row[resident], whole.home[resident]] = True
    goes |= at_home
    meets = (goes.astype(int) @ at_home.T.astype(int)) > 0
    wanted = meets | meets.T

    homes = route_homes(forest, plan, vectors)
    found = np.zeros((n, n), bool)
    order = np.lexsort((homes.row, homes.home))
    leaf = homes.home[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    owner = place[np.repeat(np.arange(len(order)), homes.n_visits)]
    by_owner = np.argsort(owner, kind="stable")
    visitors = gather_visitors(leaf, np.bincount(owner, minlength=len(order)), homes.visits[by_owner])
    np.testing.assert_array_equal(
        np.unique(np.stack(visits_in(visitors, leaf)), axis=1),
        np.unique(np.stack([owner[by_owner], homes.visits[by_owner]]), axis=1),
    )
    resident, partition = homes.row[order], plan.partition_of_leaf[leaf]
    resident_of, called = visits_in(visitors, leaf)
    callers = callers_of(plan.partition_of_leaf[visitors.leaf], visitors.visited, n_leaves)
    asked = route_changed(callers, joined, plan, vectors)
    for copy, going in zip(np.repeat(np.arange(len(asked.row)), asked.n_visits), asked.visits, strict=True):
        if going >= 0:
            there = np.flatnonzero(leaf == going)
        else:
            calling = resident_of[called == -3 - going]
            there = calling[partition[calling] == asked.partition[copy]]
        assert (partition[there] == asked.partition[copy]).all()
        found[asked.row[copy], resident[there]] = True
    np.testing.assert_array_equal(found, wanted)
