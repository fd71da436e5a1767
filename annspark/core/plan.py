"""The plan of the join: which run of leaves shares a partition, decided from the sample before anything is shipped."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from annspark.core.forest import Forest
from annspark.core.routes import Routes, reach_for, within
from annspark.core.vectors import Vectors, len_of, width_of

_SAMPLED_PER_LEAF = 40
_SAMPLED_AT_LEAST = 10_000
_SAMPLE_BYTES = 512 << 20
_LIMB_BYTES = 64 << 20  # the sample of a limb: some 6,000 leaves of 64 numbers, half a minute of a task
SHOWN = 20_000  # vectors routed by the driver: enough to tell the shares of runs of many leaves
_PARTITION_BYTES = 192 << 20  # a worker holds a partition about three times over while it joins


@dataclass(frozen=True)
class Expected:
    """What a sample's own routing lets expect of the join.

    pairs       : distances compared for a user
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
    reach             : per tree, the margin up to which a vector visits leaves
    first_leaf        : int (trees + 1,), number of the first leaf of each tree; leaves are numbered through all trees
    partition_of_leaf : int32 (n_leaves,), ascending
    n_partitions      : partitions of the join, over all trees
    copies            : partitions a vector is shipped to on average
    expected          : of the join
    """

    probes: float
    reach: tuple[float, ...]
    first_leaf: np.ndarray
    partition_of_leaf: np.ndarray
    n_partitions: int
    copies: float
    expected: Expected

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees together."""
        return len(self.partition_of_leaf)

    @property
    def n_home_partitions(self) -> int:
        """Partitions of the first tree, in one of which every dense vector is at home."""
        return int(self.partition_of_leaf[self.first_leaf[1] - 1]) + 1


def plan_join(
    forest: Forest, sample: Vectors, probes: float, *, rows: int, cores: int, width: float | None = None
) -> Plan:
    """Cut the leaves, in tree order, into partitions of about equal work.

    A run of consecutive leaves is a subtree or nearly so: most leaves a vector visits lie in few partitions, and the
    vector is shipped once to each.  Work is the pairs a leaf will compare.  That, the reach and the copies are what the
    sample's own routing shows.

    sample : n_sample vectors, prepared; not the one the forest was grown from, which lies nearer to its centres
    probes : mean number of leaves a vector is to go to in each tree, its home included
    rows   : users to be joined
    cores  : tasks that run at once
    width  : numbers of 4 bytes that a vector brings, on average; those of the sample where not given
    """
    width = width_of(sample) if width is None else width
    near = forest.find_routes(sample, probes)
    reach = tuple(reach_for(goals, probes) for goals in near)
    goals = [within(*one) for one in zip(near, reach, strict=True)]
    sizes, n_hubs = forest.sizes, int(np.count_nonzero(forest.are_hubs(sample)))
    hubs = [n_hubs] + [0] * (len(sizes) - 1)  # they meet everybody in the first tree
    visits = sum(len(goal.leaf) for goal in goals) / max(1, len_of(sample))
    n_partitions, copies = 0, float(len(sizes))
    while True:  # more partitions make more copies, which may want more partitions
        wanted = _count_partitions(rows, 4 * (copies * (width + 4) + visits), cores)
        if wanted <= n_partitions:
            break
        n_partitions = wanted
        each = max(1, round(n_partitions / len(sizes)))
        runs = [_cut_tree(*one, each) for one in zip(goals, sizes, hubs, strict=True)]
        copies = sum(_count_copies(*one) for one in zip(goals, runs, strict=True))
    first_run = np.cumsum([0] + [run[-1] + 1 for run in runs])
    return Plan(
        probes=probes,
        reach=reach,
        first_leaf=np.cumsum([0, *sizes]),
        partition_of_leaf=np.concatenate([run + first for run, first in zip(runs, first_run[:-1], strict=True)]).astype(
            np.int32
        ),
        n_partitions=int(first_run[-1]),
        copies=copies,
        expected=_expect(goals, sizes, n_hubs, rows),
    )


def expect_pairs(forest: Forest, sample: Vectors, probes: float, rows: int) -> float:
    """Return how many distances will be compared for a user, as far as a sample can tell; see plan_join."""
    goals = [within(near, reach_for(near, probes)) for near in forest.find_routes(sample, probes)]
    return _expect(goals, forest.sizes, int(np.count_nonzero(forest.are_hubs(sample))), rows).pairs


def _expect(goals: list[Routes], sizes: tuple[int, ...], n_hubs: int, rows: int) -> Expected:
    """Scale what is seen of a sample to all rows; goals and sizes have an entry a tree."""
    scale = rows / goals[0].n_rows
    pairs, residents = n_hubs * scale * rows, []
    for goal, n_leaves in zip(goals, sizes, strict=True):
        home = _residents(goal, n_leaves).astype(np.float64)
        met = np.bincount(goal.leaf, minlength=n_leaves)
        # Residents all meet each other, both ways round.  A sampled user is no evidence for others like itself.
        pairs += float((home * (home - 1) + home * (met - home)).sum()) * scale**2
        # Counts of a few users a leaf vary by chance as well: what chance adds to their variance is taken out.
        mean, variance = home.mean(), home.var()
        shrink = np.sqrt(max(0.0, 1 - mean / variance)) if variance > 0 else 0.0
        residents.append((mean + (home - mean) * shrink) * scale)
    median, p99, largest = np.quantile(np.concatenate(residents), (0.5, 0.99, 1.0))
    return Expected(pairs / rows, round(median), round(p99), round(largest))


def _residents(goals: Routes, n_leaves: int) -> np.ndarray:
    """Count the sampled vectors at home in each leaf."""
    return np.bincount(goals.leaf[goals.home], minlength=n_leaves)


def _cut_tree(goals: Routes, n_leaves: int, n_hubs: int, runs: int) -> np.ndarray:
    """Return the run of each leaf of a tree, runs of about equal work: int (n_leaves,), ascending from 0.

    goals  : of sampled vectors
    n_hubs : sampled vectors that visit every leaf
    """
    residents = _residents(goals, n_leaves) + 1e-3
    met = np.bincount(goals.leaf, minlength=n_leaves) + n_hubs + 1e-3
    work = np.cumsum(residents * met)
    runs = min(runs, n_leaves)
    cut = np.searchsorted(work, work[-1] * np.arange(1, runs) / runs)
    # Every run keeps at least one leaf, whatever the shares.
    place = np.arange(1, runs)
    cut = np.maximum.accumulate(np.maximum(cut - place, 0)) + place
    cut = np.minimum(cut, n_leaves - runs + place)
    return np.searchsorted(cut, np.arange(n_leaves), side="right")


def _count_copies(goals: Routes, run: np.ndarray) -> float:
    """Return to how many runs of leaves a sampled vector goes on average."""
    reached = goals.row * len(run) + run[goals.leaf]
    reached.sort()  # np.unique hashes, which takes ten times as long
    return np.count_nonzero(np.diff(reached, prepend=-1)) / max(goals.n_rows, 1)


def count_leaves(rows: int, leaf_rows: int, k: int) -> int:
    """Return how many leaves a tree should have; a leaf holds at least four times the neighbors wanted."""
    return max(1, round(rows / max(leaf_rows, 4 * k)))


def count_limbs(n_leaves: int, width: float) -> int:
    """Return into how many limbs a tree is divided, to be grown on the executors; 0 when the driver grows it whole.

    The driver does so as long as its sample will do: leaves are not relaxed across limbs, which costs recall.  1 M
    vectors of 64 numbers, 2 probes, 2,150 leaves: 0.954 grown whole, 0.924 in 6 limbs.
    """
    wanted = 4 * width * _SAMPLED_PER_LEAF * n_leaves
    return 0 if wanted <= _SAMPLE_BYTES else ceil(wanted / _LIMB_BYTES)


def count_shuffle_bytes(plan: Plan, rows: int, width: float, k: int, id_bytes: float) -> int:
    """Return about how many bytes the shuffles will carry: copies of vectors, then a list for each copy."""
    visits = 4 * len(plan.reach) * (plan.probes - 1)
    copy = 4 * width + 16 + id_bytes  # hash, home, number of visits
    return round(rows * (plan.copies * (copy + (k + 1) * (4 + id_bytes)) + visits))


def count_task_bytes(plan: Plan, rows: int, width: float) -> int:
    """Return about how many bytes a Python worker holds at most, beside its 100 MB of libraries."""
    each = plan.copies * (width + 4) + len(plan.reach) * plan.probes
    return round(3 * rows * 4 * each / plan.n_partitions)


def count_known(rows: int, audit_users: int, calibrated: int) -> tuple[int, int]:
    """Return of how many users the exact neighbors are found, for the audit and for calibration.

    Nobody serves both: of few users each gets half, and only a single user has to do.
    """
    audited = min(audit_users, rows if calibrated == 0 else max(1, rows // 2))
    return audited, min(calibrated, max(1, rows - audited))


def count_sampled_for_limbs(rows: int, n_leaves: int) -> int:
    """Return how many rows the limbs of a tree are grown from, all together."""
    return min(rows, _SAMPLED_PER_LEAF * n_leaves)


def count_sampled(rows: int, width: float, n_leaves: int) -> int:
    """Return how many rows the forest is grown from: enough to place every leaf, within the driver's memory."""
    return min(
        rows, max(_SAMPLED_PER_LEAF * n_leaves, _SAMPLED_AT_LEAST), max(n_leaves, int(_SAMPLE_BYTES / (4 * width)))
    )


def count_merge_partitions(rows: int, copies: float, k: int, id_bytes: float, cores: int) -> int:
    """Return how many partitions to merge in, when a user has as many lists as copies."""
    return _count_partitions(rows, copies * (id_bytes + k * (4 + id_bytes)), cores)


def _count_partitions(rows: int, row_bytes: float, cores: int) -> int:
    """Return how many partitions to use for rows that bring row_bytes each.

    Few, because every partition a vector is shipped to costs a copy; two a core, so that no core waits long for the
    last one; more when a partition would not fit a worker comfortably.
    """
    wanted = max(2 * cores, ceil(rows * row_bytes / _PARTITION_BYTES))
    return min(-(-wanted // cores) * cores, max(1, rows // 500))
