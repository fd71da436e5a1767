"""Groups: count the users of each group, within which neighbors are looked for."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.core.forest import Forest
from annspark.core.grouped_forest import LARGE, GroupedForest
from annspark.flow.read import GroupSizes, Users
from annspark.settings import Settings
from annspark.spark.arrow import Batches, collect, numbers
from annspark.spark.staging import Store
from annspark.tables import GROUPS

_GROUP, _ROWS, _OTHERS = "group", "rows", "others"


def with_groups(users: Users, settings: Settings, stage: Store, forest: Forest | None = None) -> Users:
    """Return users with the sizes of their groups; as they are where they have no groups, or the sizes are known.

    stage  : computes and stores an intermediate table
    forest : groups with trees in it are the large ones; None where none is grown yet
    """
    if not users.wire.grouped or users.groups is not None:
        return users
    table, rows = stage(_counted(users)), F.col(_ROWS)
    count, largest = table.agg(F.count("*"), F.max(rows)).collect()[0]
    groups = GroupSizes(table=table, count=count, largest=largest, large={}, small_rows=users.rows, too_small=0)
    if isinstance(forest, GroupedForest):
        sizes = sizes_of_groups(groups, forest.names)
        large = {name: size for name, size in zip(forest.names.tolist(), sizes.tolist(), strict=True) if size}
    else:
        from_here = LARGE * max(settings.leaf_rows, 4 * settings.k)
        large = {row[_GROUP]: row[_ROWS] for row in table.where(rows >= from_here).collect()}
    return replace(users, groups=replace(groups, large=large, small_rows=users.rows - sum(large.values())))


def with_too_small(users: Users, neighbors: int) -> Users:
    """Return users that know how many of them are in groups of no more than the given number of neighbors."""
    if users.groups is None:
        return users
    lacking = F.when(F.col(_ROWS) <= neighbors, F.col(_ROWS)).otherwise(0)
    too_small = users.groups.table.agg(F.sum(lacking)).collect()[0][0]
    return replace(users, groups=replace(users.groups, too_small=too_small))


def with_groups_among(queries: Users, indexed: Users, neighbors: int, *, own: bool) -> Users:
    """Return queries with the sizes of the groups of those that may be their neighbors.

    neighbors : the most neighbors a query can have
    own       : a query is one of the indexed rows of its group, and not its own neighbor
    """
    if indexed.groups is None:
        return queries
    there = indexed.groups.table.withColumnRenamed(_ROWS, _OTHERS)
    both = _counted(queries).join(there, _GROUP, "left").fillna(0, [_OTHERS])
    lacking = F.when(F.col(_OTHERS) < neighbors + own, F.col(_ROWS)).otherwise(0)
    count, too_small = both.agg(F.count("*"), F.sum(lacking)).collect()[0]
    return replace(queries, groups=replace(indexed.groups, count=count, too_small=too_small))


def _counted(users: Users) -> DataFrame:
    """Return the rows of each group: group, rows."""
    counted = users.table.select(GROUPS).mapInArrow(_count, f"{_GROUP} long, {_ROWS} long")
    return counted.groupBy(_GROUP).agg(F.sum(_ROWS).alias(_ROWS))


def _count(batches: Batches) -> Batches:
    for batch in batches:
        group, rows = np.unique(numbers(batch.column(0), np.int64), return_counts=True)
        yield pa.RecordBatch.from_arrays([pa.array(group), pa.array(rows)], [_GROUP, _ROWS])


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
