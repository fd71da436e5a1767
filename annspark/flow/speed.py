"""Speed: how long a core of the cluster takes to route and to join vectors like those sampled.

Tasks measure it, one on each core at once, because cores that share a memory are slower together.  They read the
processor's clock of their thread, which does not count the time in which other programs run.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from annspark.core.copies import route_vectors
from annspark.core.cost import Kernels
from annspark.core.forest import Forest
from annspark.core.join import join_leaves
from annspark.core.plan import Plan, Workers, plan_join
from annspark.core.routes import Visits
from annspark.core.vectors import Vectors, in_kind, len_of, slice_rows
from annspark.flow.grow import grow
from annspark.flow.read import Users
from annspark.settings import Settings
from annspark.spark.arrow import Batches, Mapper

_JOINED = 30_000  # vectors joined, at most: they travel with the function
_ROUTED = 4_000  # vectors routed


def measure_kernels(users: Users, own: Vectors, probes: float, settings: Settings, cores: int) -> Kernels:
    """Return what this many cores take for the kernels of the join, the mean of all.

    own    : sampled vectors, as in the input
    probes : mean number of leaves a vector goes to
    """
    some, coordinates = slice_rows(own, 0, _JOINED), users.coordinates
    few = replace(users, rows=len_of(some))
    forest = grow(few, coordinates.for_routing(some), settings, trees=1)

    def time_all() -> list[float]:
        found = time_kernels(coordinates.for_join(some), coordinates.metric, forest, probes, settings.k)
        return [found.reference, found.row, found.pair]

    return Kernels(*_on_each_core(users.table.sparkSession, cores, time_all))


def measure_routing(users: Users, own: Vectors, forest: Forest, plan: Plan, cores: int) -> float:
    """Return the seconds that a core takes to find the leaves and partitions of a vector.

    own : sampled vectors, as in the input
    """
    some, coordinates = slice_rows(own, 0, _ROUTED), users.coordinates

    def time_routing() -> list[float]:
        points = in_kind(coordinates.for_join(some), np.float32)
        route_vectors(forest, plan, slice_rows(points, 0, 1))  # groups the centres, once for a worker
        return [_seconds(lambda: route_vectors(forest, plan, points)) / len_of(points)]

    return _on_each_core(users.table.sparkSession, cores, time_routing)[0]


def _on_each_core(spark: SparkSession, cores: int, measure: Callable[[], list[float]]) -> list[float]:
    """Return the means of what is measured by as many tasks as there are cores."""
    told = spark.range(0, cores, 1, cores).mapInArrow(_telling(measure), "told array<double>").collect()
    return [float(mean) for mean in np.mean([row["told"] for row in told], axis=0)]


def _telling(measure: Callable[[], list[float]]) -> Mapper:
    def tell(batches: Batches) -> Batches:
        for batch in batches:
            if batch.num_rows:
                yield pa.RecordBatch.from_pydict({"told": pa.array([measure()], pa.list_(pa.float64()))})

    return tell


def time_kernels(vectors: Vectors, metric: str, forest: Forest, probes: float, k: int) -> Kernels:
    """Return the seconds that this thread takes for the kernels of the join.

    The vectors are joined twice, with these probes, as far as there are leaves, and with one.

    vectors : ready to be joined
    forest  : of one tree, with the leaves of these vectors
    """
    points = in_kind(vectors, np.float32)
    most = max(1.0, min(probes, forest.most_probes(points) / 2))
    (least, few), (longest, many) = (_time_join(vectors, points, forest, tried, k, metric) for tried in (1.0, most))
    # Two joins of about the same pairs do not tell a row from its pairs: all is taken for pairs then.
    pair = max(0.0, longest - least) / (many - few) if many > 1.5 * few else longest / max(1, many)
    row = max(0.0, longest - pair * many) / len_of(points)
    return Kernels(reference=_seconds(_reference), row=row, pair=pair)


def _time_join(
    vectors: Vectors, points: Vectors, forest: Forest, probes: float, k: int, metric: str
) -> tuple[float, int]:
    """Return the seconds of a join of vectors in one partition, and the pairs compared."""
    plan = plan_join(forest, points, probes, rows=len_of(points), workers=Workers(1))
    one = replace(plan, partition_of_leaf=np.zeros_like(plan.partition_of_leaf), n_partitions=1)
    copies = route_vectors(forest, one, points)
    visits = Visits(np.repeat(copies.row, copies.n_visits), copies.visits)
    start = time.thread_time()
    joined = join_leaves(vectors, copies.home, visits, k, metric)
    return time.thread_time() - start, joined.pairs


def _seconds(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def _reference() -> None:
    """Do a fixed piece of work of some hundredths of a second: products, and sorts of integers."""
    rng = np.random.default_rng(0)
    left, keys = rng.standard_normal((512, 64)).astype(np.float32), rng.integers(1 << 40, size=1 << 18)
    for _ in range(20):
        left @ left.T
        np.sort(keys)
