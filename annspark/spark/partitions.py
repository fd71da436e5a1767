"""Partitions: put many small ones together before Python processes them, because every Python task has a fixed cost."""

import re

from pyspark.sql import DataFrame

from annspark.spark.cluster import printed_plan

# A Python task takes some 50 ms before its first row: sockets, and the worker's garbage collection.
_BYTES = 64 << 20  # bytes of a partition after putting together
_PER_CORE = 4  # at least so many partitions per core, so that no core waits long for the last ones
_PER_CORE_UNKNOWN = 16  # partitions per core where the size of the data is not known
_ABSURD = 1 << 60  # a size from here on means "unknown", for which Spark gives 8 EiB
_UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}
_NODE = re.compile(r"^([\s:|+-]*)\S.*Statistics\(sizeInBytes=([\d.E+]+) (\w+)")


def put_together(table: DataFrame, n_bytes: float | None, cores: int) -> DataFrame:
    """Return the table in at most count_partitions(n_bytes, cores) partitions, without a shuffle.

    n_bytes : size of the table, None where it is not known
    """
    return table.coalesce(count_partitions(n_bytes, cores))


def count_partitions(n_bytes: float | None, cores: int) -> int:
    """Return the most partitions for so many bytes."""
    if n_bytes is None:
        return _PER_CORE_UNKNOWN * cores
    return max(_PER_CORE * cores, round(n_bytes / _BYTES))


def estimate_bytes(table: DataFrame) -> float | None:
    """Return Spark's estimate of the bytes that a table is computed from; None where Spark has none.

    Nothing is read: Spark prints the plan with the size of every node.  Only the leaves of the plan are summed, which
    are files and cached tables, because the sizes of other nodes are guesses, and bad ones for joins.
    """
    return sum_of_leaves(printed_plan(table, "cost"))


def sum_of_leaves(plan: str) -> float | None:
    """Return the sum of the sizes of a plan's leaves; None where one is unknown.

    plan : as `explain(mode="cost")` prints it
    """
    lines = plan.partition("== Optimized Logical Plan ==")[2].partition("== Physical Plan ==")[0].splitlines()
    found = [node for node in map(_NODE.match, lines) if node]
    nodes = [(len(node[1]), float(node[2]) * _UNITS.get(node[3], _ABSURD)) for node in found]
    # A leaf is a node that is not followed by a more deeply indented one.
    leaves = [size for i, (depth, size) in enumerate(nodes) if i + 1 == len(nodes) or nodes[i + 1][0] <= depth]
    return sum(leaves) if leaves and sum(leaves) < _ABSURD else None
