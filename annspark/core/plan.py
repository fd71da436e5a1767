"""The plan of the join: which leaves share a partition.  It is made from a sample, before any vector is shipped."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import numpy as np

from annspark.core.forest import Forest
from annspark.core.routes import Routes, reach_for, within_reaches
from annspark.core.vectors import Vectors, width_of

SAMPLED_PER_LEAF = 40
_SAMPLED_AT_LEAST = 10_000
_SAMPLE_BYTES = 512 << 20  # the sample a tree is grown from on the driver, at most
_LIMB_BYTES = 64 << 20  # the sample of a limb: some 6,000 leaves of 64 numbers, half a minute of a task
PLAN_SAMPLE = 20_000  # vectors routed by the driver: enough to measure the shares of runs of many leaves
_PART_BYTES = 64 << 20  # vectors in a file of a saved index
_TASK_BYTES = 576 << 20  # what any machine is taken to hold for each core, besides libraries
_TIGHT_BYTES = 96 << 20  # what a task holds even where a worker has less memory: its libraries take as much
_MOST_COPIES = 16  # of a row, on average, where a worker may lack the memory for fewer
# Of the memory that is free for its worker, a task may hold this share.  Java's heap may still grow, and other jobs may
# come; of address space, which may be limited, a task takes up to twice what it holds.
_SHARE = 0.5
_FINER = 1.5  # times as many partitions are tried next
_ARRIVING = 3  # times that a worker holds vectors while it puts them in order
_JOINING = 2  # times that it holds them beside the lists that it makes
_VISIT_BYTES = 44  # of a leaf that a vector visits; measured with 100 and 200 leaves, 24 with 3
_NEIGHBOR_BYTES = 36  # of a neighbor in these lists; measured with 10, 30 and 100 neighbors
_MERGING = 7  # times that it holds lists while it merges them; measured with 4 lists of a user, 4.5 with 1.3


@dataclass(frozen=True)
class Workers:
    """Who joins.

    cores : number of tasks that run at once
    free  : bytes of memory that are free for the worker of a task; 0 where that is not known
    """

    cores: int
    free: int = 0


@dataclass(frozen=True)
class Expected:
    """What the routes of a sample predict for the join.

    pairs       : pairs compared for a user, on average
    median_rows : users at home in half of the leaves at most
    p99_rows    : users at home in 99 % of the leaves at most
    max_rows    : users at home in the largest leaf
    """

    pairs: float
    median_rows: int
    p99_rows: int
    max_rows: int


@dataclass(frozen=True)
class Plan:
    """Where leaves are joined.

    probes            : mean number of leaves a vector goes to in each tree, its home included
    reach             : for each tree, the margin up to which a vector visits leaves
    first_leaf        : int (trees + 1,), number of the first leaf of each tree; leaves are numbered through all trees
    partition_of_leaf : int32 (n_leaves,), ascending
    n_partitions      : partitions of the join, over all trees
    copies            : partitions a vector is shipped to on average
    expected          : what the routes of the sample predict
    shared            : the leaves that small groups share, in which all rows of a group are compared
    """

    probes: float
    reach: tuple[float, ...]
    first_leaf: np.ndarray
    partition_of_leaf: np.ndarray
    n_partitions: int
    copies: float
    expected: Expected
    shared: range = range(0)

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees together."""
        return len(self.partition_of_leaf)

    @property
    def n_home_partitions(self) -> int:
        """Number of partitions of the first tree, in which every vector has a home."""
        return int(self.partition_of_leaf[self.first_leaf[1] - 1]) + 1


def plan_join(
    forest: Forest,
    sample: Vectors,
    probes: float,
    *,
    rows: int,
    workers: Workers,
    width: float | None = None,
    k: int = 10,
) -> Plan:
    """Cut the leaves, in tree order, into partitions of about equal work.

    A partition is a run of consecutive leaves, so a subtree or nearly so.  Most leaves that a vector visits therefore
    lie in few partitions, and the vector is shipped once to each.  The work of a leaf is the number of pairs it will
    compare.  Work, reach and copies are measured on the routes of the sample.

    sample  : n_sample vectors, prepared; not those the forest was grown from, which are nearer to its centres
    probes  : mean number of leaves a vector goes to in each tree, its home included
    rows    : number of users to be joined
    workers : who joins
    width   : numbers of 4 bytes that a vector takes, on average; measured on the sample when None
    k       : neighbors in a list
    """
    width = width_of(sample) if width is None else width
    routes, reach = _reached(forest.find_routes(sample, probes), probes)
    sizes, n_hubs = forest.sizes, int(np.count_nonzero(forest.are_hubs(sample)))
    hubs = [n_hubs] + [0] * (len(sizes) - 1)  # hubs visit all leaves of the first tree, and no leaf of others
    work = []
    for of_tree, n_leaves, of_hubs in zip(routes, sizes, hubs, strict=True):
        going = np.bincount(of_tree.leaf, minlength=n_leaves) + of_hubs
        work.append((count_residents(of_tree, n_leaves) + 1e-3) * (going + 1e-3))
    held_with = partial(_held_to_join, rows, width, k, _mean_visits(routes))
    cut = _cut_into_partitions(routes, work, held_with, workers, rows)
    plan = _plan_of(probes, reach, sizes, cut, _expect(routes, sizes, n_hubs, rows))
    return replace(plan, shared=forest.shared_leaves)


def plan_queries(
    forest: Forest,
    sample: Vectors,
    residents: tuple[np.ndarray, ...],
    probes: float,
    *,
    queries: int,
    rows: int,
    workers: Workers,
    width: float,
    k: int = 10,
) -> Plan:
    """Cut the leaves into partitions of about equal work for queries, which are nobody's neighbors.

    A row is shipped to the partition of its home in each tree, a query to the partitions of the leaves that it goes to.

    sample    : sampled queries, prepared
    residents : for each tree float (n_leaves,), about how many rows are at home in each leaf
    probes    : mean number of leaves a query goes to in each tree
    queries   : number of queries
    rows      : number of rows
    workers   : who joins
    width     : numbers of 4 bytes that a vector takes, on average
    k         : neighbors in a list
    """
    routes, reach = _reached(forest.find_query_routes(sample, probes), probes)
    sizes = forest.sizes
    work = [
        (at_home + 1e-3) * (np.bincount(of_tree.leaf, minlength=n_leaves) + 1e-3)
        for of_tree, n_leaves, at_home in zip(routes, sizes, residents, strict=True)
    ]
    held_with = partial(_held_to_ask, queries, rows * len(sizes), width, k, _mean_visits(routes))
    cut = _cut_into_partitions(routes, work, held_with, workers, rows + queries)
    pairs = count_query_pairs(routes, residents)
    median, p99, largest = np.quantile(np.concatenate(residents), (0.5, 0.99, 1.0))
    expected = Expected(pairs=pairs, median_rows=round(median), p99_rows=round(p99), max_rows=round(largest))
    return replace(_plan_of(probes, reach, sizes, cut, expected), shared=forest.shared_leaves)


def plan_parts(sizes: tuple[int, ...], residents: tuple[np.ndarray, ...], rows: int, width: float, cores: int) -> Plan:
    """Cut the leaves of each tree into parts of about as many rows each, in which an index is saved.

    sizes     : leaves of each tree
    residents : for each tree float (n_leaves,), about how many rows are at home in each leaf
    width     : numbers of 4 bytes that a vector takes, on average
    """
    each = max(1, min(rows // 500, max(cores, ceil(4 * rows * (width + 4) / _PART_BYTES))))
    cut = _Cut([_runs_of_leaves(at_home + 1e-3, each) for at_home in residents], float(len(sizes)))
    median, p99, largest = np.quantile(np.concatenate(residents), (0.5, 0.99, 1.0))
    expected = Expected(pairs=0.0, median_rows=round(median), p99_rows=round(p99), max_rows=round(largest))
    return _plan_of(1, (-1.0,) * len(sizes), sizes, cut, expected)


def reach_of_queries(forest: Forest, sample: Vectors, probes: float) -> tuple[float, ...]:
    """Return for each tree the margin up to which queries like the sampled vectors go to so many leaves on average."""
    return _reached(forest.find_query_routes(sample, probes), probes)[1]


def count_query_pairs(routes: list[Routes], residents: tuple[np.ndarray, ...]) -> float:
    """Return the mean number of pairs compared for a query: the residents of the leaves that it goes to.

    routes : of each tree, of sampled queries, within reach
    """
    pairs = sum(float(at_home[of_tree.leaf].sum()) for of_tree, at_home in zip(routes, residents, strict=False))
    return pairs / max(1, routes[0].n_rows)


def expect_query_pairs(forest: Forest, probes: float, *, sample: Vectors, residents: tuple[np.ndarray, ...]) -> float:
    """Return the mean number of pairs that will be compared for a query; arguments are those of plan_queries."""
    return count_query_pairs(_reached(forest.find_query_routes(sample, probes), probes)[0], residents)


def _mean_visits(routes: list[Routes]) -> float:
    """Return the mean number of leaves that a vector goes to, in all trees."""
    return sum(len(of_tree.leaf) for of_tree in routes) / max(1, routes[0].n_rows)


def _reached(reachable: list[Routes], probes: float) -> tuple[list[Routes], tuple[float, ...]]:
    """Return the routes within reach, and the reach, of each tree."""
    reach = tuple(reach_for(of_tree, probes) for of_tree in reachable)
    return within_reaches(reachable, reach), reach


@dataclass(frozen=True)
class _Cut:
    """Leaves in runs, one run a partition.

    runs   : for each tree int (n_leaves,), the run of each leaf, ascending from 0
    copies : partitions that a vector of the sample goes to on average
    """

    runs: list[np.ndarray]
    copies: float


def _cut_into_partitions(
    routes: list[Routes],
    work: list[np.ndarray],
    held_with: Callable[[float], float],
    workers: Workers,
    rows: int,
) -> _Cut:
    """Cut the leaves of all trees into runs of about equal work.

    There are as many runs as it takes for partitions that a worker can hold.  But where rows have many near others,
    more partitions make more copies, which make more partitions: of a million titles each row went to 35 of 96.  So the
    number stays where copies would grow faster than its square root, if a worker has the memory, or if there would be
    more copies than _MOST_COPIES: partitions then hardly become smaller.

    routes    : of each tree, of sampled vectors, within reach
    work      : for each tree float (n_leaves,), the work of each leaf
    held_with : the bytes that the joins of all partitions hold at most, from the copies of a vector
    workers   : who joins
    rows      : number of all vectors that are shipped
    """

    def cut_into(n_partitions: int) -> _Cut:
        each = max(1, round(n_partitions / len(work)))
        runs = [_runs_of_leaves(of_tree, each) for of_tree in work]
        return _Cut(runs, sum(_mean_copies(*one) for one in zip(routes, runs, strict=True)))

    n_partitions = _count_partitions(rows, 0, workers)
    cut = cut_into(n_partitions)
    while True:
        most = -(-ceil(_FINER * n_partitions) // workers.cores) * workers.cores
        needed = min(_count_partitions(rows, held_with(cut.copies), workers), most)
        if needed <= n_partitions:
            return cut
        finer = cut_into(needed)
        fits = held_with(cut.copies) / n_partitions <= _SHARE * workers.free
        run_away = finer.copies > cut.copies * (needed / n_partitions) ** 0.5
        if run_away and (fits or finer.copies > _MOST_COPIES):
            return cut
        n_partitions, cut = needed, finer


def _plan_of(probes: float, reach: tuple[float, ...], sizes: tuple[int, ...], cut: _Cut, expected: Expected) -> Plan:
    first_run = np.cumsum([0] + [run[-1] + 1 for run in cut.runs])
    numbered = [run + first for run, first in zip(cut.runs, first_run[:-1], strict=True)]
    return Plan(
        probes=probes,
        reach=reach,
        first_leaf=np.cumsum([0, *sizes]),
        partition_of_leaf=np.concatenate(numbered).astype(np.int32),
        n_partitions=int(first_run[-1]),
        copies=cut.copies,
        expected=expected,
    )


def expect_pairs(forest: Forest, probes: float, *, sample: Vectors, rows: int) -> float:
    """Return the mean number of pairs that will be compared for a user; arguments are those of plan_join."""
    routes, _ = _reached(forest.find_routes(sample, probes), probes)
    return _expect(routes, forest.sizes, int(np.count_nonzero(forest.are_hubs(sample))), rows).pairs


def _expect(routes: list[Routes], sizes: tuple[int, ...], n_hubs: int, rows: int) -> Expected:
    """Return what the routes of a sample predict for all rows.

    routes : of each tree, within reach
    sizes  : leaves of each tree
    n_hubs : sampled vectors that visit every leaf of the first tree
    rows   : number of all rows
    """
    scale = rows / routes[0].n_rows
    pairs, residents = n_hubs * scale * rows, []
    for of_tree, n_leaves in zip(routes, sizes, strict=True):
        home = count_residents(of_tree, n_leaves).astype(np.float64)
        going = np.bincount(of_tree.leaf, minlength=n_leaves)
        # Each resident is compared with the other residents, home - 1 of the sampled ones, and with the visitors.
        # home * home would count pairs of a user with itself, and scale**2 would multiply them.
        pairs += float((home * (home - 1) + home * (going - home)).sum()) * scale**2
        # Counts of a few users a leaf also vary by chance.  The variance that chance adds is taken out.
        mean, variance = home.mean(), home.var()
        shrink = np.sqrt(max(0.0, 1 - mean / variance)) if variance > 0 else 0.0
        residents.append((mean + (home - mean) * shrink) * scale)
    median, p99, largest = np.quantile(np.concatenate(residents), (0.5, 0.99, 1.0))
    return Expected(pairs=pairs / rows, median_rows=round(median), p99_rows=round(p99), max_rows=round(largest))


def count_residents(routes: Routes, n_leaves: int) -> np.ndarray:
    """Return the number of sampled vectors at home in each leaf: int (n_leaves,)."""
    return np.bincount(routes.leaf[routes.home], minlength=n_leaves)


def _runs_of_leaves(work: np.ndarray, runs: int) -> np.ndarray:
    """Return the run of each leaf of a tree, runs of about equal work: int (n_leaves,), ascending from 0.

    work : float (n_leaves,), of each leaf
    runs : how many are asked for; there are no more than leaves
    """
    n_leaves, done = len(work), np.cumsum(work)
    runs = min(runs, n_leaves)
    cut = np.searchsorted(done, done[-1] * np.arange(1, runs) / runs)
    # Every run gets at least one leaf, however little the work of its leaves is.
    place = np.arange(1, runs)
    cut = np.maximum.accumulate(np.maximum(cut - place, 0)) + place
    cut = np.minimum(cut, n_leaves - runs + place)
    return np.searchsorted(cut, np.arange(n_leaves), side="right")


def _mean_copies(routes: Routes, run: np.ndarray) -> float:
    """Return the mean number of runs that a sampled vector goes to.

    run : int (n_leaves,), the run of each leaf
    """
    reached = routes.row * len(run) + run[routes.leaf]
    reached.sort()  # np.unique hashes, which takes ten times as long
    return np.count_nonzero(np.diff(reached, prepend=-1)) / max(routes.n_rows, 1)


def count_leaves(rows: int, leaf_rows: int, k: int) -> int:
    """Return how many leaves a tree should have, of leaf_rows rows each, or of 4 k where that is more."""
    return max(1, round(rows / max(leaf_rows, 4 * k)))


def count_kept(k: int) -> int:
    """Return how many neighbors of a row an index keeps: k, and some to spare for those that will be gone."""
    return k + (k + 1) // 2


def count_slots(rows: int, k: int, id_bytes: float, cores: int) -> int:
    """Return in how many files an index keeps the lists of its rows, k neighbors each."""
    return max(1, min(rows // 500, max(cores, ceil(rows * (k * (4 + id_bytes) + 24 + id_bytes) / _PART_BYTES))))


def count_limbs(n_leaves: int, width: float) -> int:
    """Return how many limbs of a tree are grown on the executors; 0 when the driver grows the whole tree.

    The driver does so as long as the sample that its leaves need fits.  Lloyd steps do not move centres across limbs,
    and that costs recall: 0.954 grown whole, 0.924 in 6 limbs (1 M vectors of 64 numbers, 2 probes, 2,150 leaves).
    """
    if n_leaves <= most_leaves_of_driver(width):
        return 0
    return ceil(4 * width * SAMPLED_PER_LEAF * n_leaves / _LIMB_BYTES)


def most_leaves_of_driver(width: float) -> int:
    """Return the most leaves of a tree that the driver grows whole."""
    return int(_SAMPLE_BYTES / (4 * width * SAMPLED_PER_LEAF))


def count_shuffle_bytes(plan: Plan, rows: int, width: float, k: int, id_bytes: float) -> int:
    """Return about how many bytes will be shuffled: copies of vectors, and then a list for each copy."""
    visits = 4 * len(plan.reach) * (plan.probes - 1)
    copy = 4 * width + 16 + id_bytes  # hash, home, number of visits
    return round(rows * (plan.copies * (copy + (k + 1) * (4 + id_bytes)) + visits))


def count_staged_bytes(rows: int, width: float) -> int:
    """Return how many bytes of vectors Java keeps during a run, in its heap or on disk, with the hashes of ids."""
    return round(rows * (4 * width + 16))


def count_task_bytes(plan: Plan, rows: int, width: float, k: int) -> int:
    """Return about how many bytes a Python worker holds at most while it joins, besides 100 MB of libraries."""
    return round(_held_to_join(rows, width, k, _visits_of(plan), plan.copies) / plan.n_partitions)


def count_query_task_bytes(plan: Plan, queries: int, rows: int, width: float, k: int) -> int:
    """Return about how many bytes a Python worker holds at most while it asks, besides 100 MB of libraries.

    queries : that are shipped to the leaves they go to
    rows    : at home in the leaves
    """
    at_home = rows * len(plan.reach)
    return round(_held_to_ask(queries, at_home, width, k, _visits_of(plan), plan.copies) / plan.n_partitions)


def _held_to_join(rows: int, width: float, k: int, visits: float, copies: float) -> float:
    """Return the bytes that the joins of all partitions hold at most.

    visits : leaves that a vector goes to
    copies : partitions that it is shipped to
    """
    return _held(4 * rows * copies * (width + 4), rows * visits, rows * copies * k)


def _held_to_ask(queries: int, at_home: int, width: float, k: int, visits: float, copies: float) -> float:
    """Return the bytes that the joins of all partitions hold at most; only queries get lists.

    at_home : rows at home in the leaves of all trees
    """
    vectors = 4 * queries * copies * (width + 4) + 4 * at_home * (width + 4)
    return _held(vectors, queries * visits, queries * copies * k)


def _held(vectors: float, visits: float, neighbors: float) -> float:
    """Return the bytes held at most.

    vectors   : bytes of vectors as they arrive
    visits    : leaves that they go to
    neighbors : of all lists
    """
    arriving = _ARRIVING * (vectors + 4 * visits)
    return max(arriving, _JOINING * vectors + _VISIT_BYTES * visits + _NEIGHBOR_BYTES * neighbors)


def _visits_of(plan: Plan) -> float:
    return len(plan.reach) * plan.probes


def count_exact_users(rows: int, audit_users: int, calibrated: int) -> tuple[int, int]:
    """Return for how many users exact neighbors are found: for the audit, and for calibration.

    The two groups share no user.  Where there are few users, each group gets half of them.  A table of one user has
    that user in both groups.

    calibrated : users asked for by calibration; 0 where there is none
    """
    audited = min(audit_users, rows if calibrated == 0 else max(1, rows // 2))
    return audited, min(calibrated, max(1, rows - audited))


def count_sampled_for_limbs(rows: int, n_leaves: int) -> int:
    """Return how many rows all limbs of a tree together are grown from."""
    return min(rows, SAMPLED_PER_LEAF * n_leaves)


def count_sampled(rows: int, width: float, n_leaves: int) -> int:
    """Return how many rows the forest is grown from: enough to place every leaf, within the driver's memory."""
    return min(
        rows, max(SAMPLED_PER_LEAF * n_leaves, _SAMPLED_AT_LEAST), max(n_leaves, int(_SAMPLE_BYTES / (4 * width)))
    )


def count_merge_partitions(rows: int, copies: float, k: int, id_bytes: float, workers: Workers) -> int:
    """Return how many partitions lists are merged in, when a user has a list for each copy."""
    return _count_partitions(rows, _held_to_merge(rows, copies, k, id_bytes), workers)


def count_merge_task_bytes(rows: int, copies: float, k: int, id_bytes: float, workers: Workers) -> int:
    """Return about how many bytes a Python worker holds at most while it merges, besides 100 MB of libraries."""
    held = _held_to_merge(rows, copies, k, id_bytes)
    return round(held / _count_partitions(rows, held, workers))


def _held_to_merge(rows: int, copies: float, k: int, id_bytes: float) -> float:
    """Return the bytes that the merges of all partitions hold at most."""
    return _MERGING * rows * copies * (id_bytes + k * (4 + id_bytes))


def _count_partitions(rows: int, held: float, workers: Workers) -> int:
    """Return how many partitions to use for rows, whose tasks hold so many bytes together.

    Every partition that a vector is shipped to costs a copy, so the number is the least that meets two limits.  Each
    core gets at least two partitions, so that no core waits long for the last one.  No task holds more than
    _TASK_BYTES, or than its share of what is free for a worker, if that is less.
    """
    share = _SHARE * workers.free or _TASK_BYTES
    most = min(max(share, _TIGHT_BYTES), _TASK_BYTES)
    needed = max(2 * workers.cores, ceil(held / most))
    return min(-(-needed // workers.cores) * workers.cores, max(1, rows // 500))
