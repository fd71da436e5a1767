"""Groups: count the users of each group, within which neighbors are looked for."""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from annspark.core.forest import Forest
from annspark.core.grouped_forest import LARGE, GroupedForest
from annspark.core.sampling import slot_of
from annspark.flow.read import GroupSizes, Users
from annspark.settings import Settings
from annspark.spark.arrow import Batches, Mapper, collect, gathered, numbers
from annspark.spark.block import block_numbers
from annspark.spark.cluster import partition_keys
from annspark.spark.staging import Store
from annspark.tables import GROUPS, PARTITION_KEY

logger = logging.getLogger("annspark")
_GROUP, _ROWS, _TIMES, _OTHERS = "group", "rows", "times", "others"
_PARTITION_ROWS = 4_000_000  # users whose groups are counted in one partition: the groups are some 100 MB at most


def large_from(settings: Settings) -> int:
    """Return the rows from which on a group is large."""
    return LARGE * max(settings.leaf_rows, 4 * settings.k)


def with_groups(users: Users, settings: Settings, stage: Store, forest: Forest | None = None) -> Users:
    """Return users with the sizes of their groups; as they are where they have no groups, or the sizes are known.

    stage  : computes and stores an intermediate table
    forest : groups with trees in it are the large ones; None where none is grown yet
    """
    if not users.wire.grouped or users.groups is not None:
        return users
    grown = forest.names if isinstance(forest, GroupedForest) else None
    table = stage(_counted(users))
    mapper, columns = _sizes_mapper(grown, large_from(settings)), f"{_GROUP} long, {_ROWS} long, {_TIMES} long"
    found = collect(table.mapInArrow(mapper, columns))
    large = found.filter(found[_GROUP].is_valid())
    rows_by_size: dict[int, int] = {}
    for size, times in zip(found[_ROWS].to_pylist(), found[_TIMES].to_pylist(), strict=True):
        rows_by_size[size] = rows_by_size.get(size, 0) + size * times
    groups = GroupSizes(
        table=table,
        count=sum(found[_TIMES].to_pylist()),
        rows_by_size=rows_by_size,
        large=dict(zip(large[_GROUP].to_pylist(), large[_ROWS].to_pylist(), strict=True)),
        too_small=0,
        in_small=0,
    )
    return replace(users, groups=groups)


def _sizes_mapper(grown: np.ndarray | None, from_here: int) -> Mapper:
    """Return the function that yields the large groups, and how many of the others have each size.

    grown     : int64, the large groups; None where these are the groups of at least from_here rows
    from_here : a number of rows
    """

    def summarize(batches: Batches) -> Batches:
        for batch in batches:
            group, rows = (column.to_numpy() for column in batch.columns)
            is_large = rows >= from_here if grown is None else np.isin(group, grown)
            size, times = np.unique(rows[~is_large], return_counts=True)
            large, no_name = np.flatnonzero(is_large), pa.nulls(len(size), pa.int64())
            columns = [
                pa.concat_arrays([pa.array(group[large]), no_name]),
                pa.array(np.concatenate([rows[large], size])),
                pa.array(np.concatenate([np.ones(len(large), np.int64), times])),
            ]
            yield pa.RecordBatch.from_arrays(columns, [_GROUP, _ROWS, _TIMES])

    return summarize


def with_too_small(users: Users, neighbors: int, k: int) -> Users:
    """Return users that know how many of them are in groups of no more than the given number of neighbors, and of k.

    neighbors : the most neighbors a user can have, at most k
    """
    if users.groups is None:
        return users
    sizes = users.groups.rows_by_size.items()
    too_small, in_small = (sum(rows for size, rows in sizes if size <= most) for most in (neighbors, k))
    return replace(users, groups=replace(users.groups, too_small=too_small, in_small=in_small))


def with_groups_among(queries: Users, indexed: Users, neighbors: int, k: int, *, own: bool | None) -> Users:
    """Return queries with the sizes of the groups of those that may be their neighbors.

    Logs a warning where no query is of a group with such rows.

    neighbors : the most neighbors a query can have, at most k
    own       : a query is one of the indexed rows of its group, and not its own neighbor; None where all indexed rows
                are queries, and others are, too
    """
    if indexed.groups is None:
        return queries
    there = indexed.groups.table.withColumnRenamed(_ROWS, _OTHERS)
    both = _counted(queries).join(there, _GROUP, "left").fillna(0, [_OTHERS])

    def lacking(least: int) -> Column:
        """Count the queries that can have fewer neighbors than `least`."""
        fewer = F.when(F.col(_OTHERS) < least + bool(own), F.col(_ROWS))
        if own is None:
            fewer = fewer.when(F.col(_OTHERS) == least, F.col(_OTHERS))  # these lose themselves
        return F.sum(fewer.otherwise(0))

    alone = F.sum(F.when(F.col(_OTHERS) == 0, F.col(_ROWS)).otherwise(0))
    found = both.agg(F.count("*"), lacking(neighbors), lacking(k), alone).collect()[0]
    count, too_small, in_small, unknown = found
    if unknown == queries.rows:
        logger.warning(
            "within: none of the %s rows of the %s is of a group that has rows in the %s, so all lists are empty. "
            "Groups are compared as texts: give their columns in the same types and spelling.",
            f"{queries.rows:,}",
            queries.role,
            indexed.role,
        )
    return replace(queries, groups=replace(indexed.groups, count=count, too_small=too_small, in_small=in_small))


def _counted(users: Users) -> DataFrame:
    """Return the rows of each group: group, rows.

    Counted in Python: an aggregation by Spark takes some nine core-seconds to compile and to run on a cold session.
    """
    n_partitions = 1 + users.rows // _PARTITION_ROWS
    keys = partition_keys(n_partitions)

    def count(batches: Batches) -> Batches:
        if (blocks := gathered(batches)) is not None:
            group, rows = np.unique(numbers(blocks[GROUPS], np.int64), return_counts=True)
            columns = block_numbers(slot_of(group, n_partitions), keys, group, rows)
            yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, _GROUP, _ROWS])

    def add_up(batches: Batches) -> Batches:
        if (blocks := gathered(batches)) is not None:
            counted, rows = numbers(blocks[_GROUP], np.int64), numbers(blocks[_ROWS], np.int64)
            group, place = np.unique(counted, return_inverse=True)
            total = np.zeros(len(group), np.int64)
            np.add.at(total, place, rows)
            yield pa.RecordBatch.from_arrays([pa.array(group), pa.array(total)], [_GROUP, _ROWS])

    by_batch = users.table.select(GROUPS).mapInArrow(count, f"{PARTITION_KEY} int, {_GROUP} binary, {_ROWS} binary")
    return by_batch.repartition(n_partitions, PARTITION_KEY).mapInArrow(add_up, f"{_GROUP} long, {_ROWS} long")


def sizes_of_groups(groups: GroupSizes, wanted: np.ndarray) -> np.ndarray:
    """Return the rows of some groups: int64 (n,) to int64 (n,), 0 for an unknown group."""
    names = np.unique(wanted)

    def pick(batches: Batches) -> Batches:
        for batch in batches:
            yield batch.filter(pa.array(np.isin(batch.column(0).to_numpy(), names)))

    # Not by isin, which would make Spark compile a plan of as many names as users are audited.
    found = collect(groups.table.select(_GROUP, _ROWS).mapInArrow(pick, groups.table.schema))
    rows = dict(zip(found[_GROUP].to_pylist(), found[_ROWS].to_pylist(), strict=True))
    return np.array([rows.get(name, 0) for name in wanted.tolist()], np.int64)
