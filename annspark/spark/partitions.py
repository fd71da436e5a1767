"""Partitions: many small ones are put together before Python sees them, because a task of Python costs as it is."""

import re

from pyspark.sql import DataFrame

from annspark.spark.cluster import printed_plan

# A task that hands rows to Python takes some 50 ms before its first: sockets, and the worker's garbage collection.
_BYTES = 64 << 20  # of a partition put together
_PER_CORE = 4  # partitions left at least, so that no core waits long for the last of them
_PER_CORE_UNKNOWN = 16  # where nobody knows how much data there is
_ABSURD = 1 << 60  # Spark's "unknown" is 8 EiB
_UNITS = {unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}
_NODE = re.compile(r"^([\s:|+-]*)\S.*Statistics\(sizeInBytes=([\d.E+]+) (\w+)")


def put_together(table: DataFrame, n_bytes: float | None, cores: int) -> DataFrame:
    """Return the table in no more partitions than its bytes are worth, without a shuffle; fewer stay as they are.

    n_bytes : how large it is, None when nobody knows
    """
    return table.coalesce(count_partitions(n_bytes, cores))


def count_partitions(n_bytes: float | None, cores: int) -> int:
    """Return into how many partitions so many bytes are put, at most."""
    if n_bytes is None:
        return _PER_CORE_UNKNOWN * cores
    return max(_PER_CORE * cores, round(n_bytes / _BYTES))


def estimate_bytes(table: DataFrame) -> float | None:
    """Return how many bytes Spark believes a table is made from; None when it does not know.

    Nothing is read: the plan is printed with its sizes. What stands at the plan's ends,
    files and cached tables, is summed; of what is made from them Spark's sizes are guesses, of joins wild ones.
    """
    return sum_of_leaves(printed_plan(table, "cost"))


def sum_of_leaves(plan: str) -> float | None:
    """Return the summed sizes of the ends of a plan that `explain(mode="cost")` printed; None where one is unknown."""
    lines = plan.partition("== Optimized Logical Plan ==")[2].partition("== Physical Plan ==")[0].splitlines()
    found = [node for node in map(_NODE.match, lines) if node]
    nodes = [(len(node[1]), float(node[2]) * _UNITS.get(node[3], _ABSURD)) for node in found]
    # An end is a node that is followed by none further in.
    leaves = [size for i, (depth, size) in enumerate(nodes) if i + 1 == len(nodes) or nodes[i + 1][0] <= depth]
    return sum(leaves) if leaves and sum(leaves) < _ABSURD else None
