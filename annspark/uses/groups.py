"""Groups: rows that are nearly the same, and which of them to keep."""

from collections import Counter
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.hops import diameters
from annspark.errors import InputError, SettingsError, spark_errors_explained
from annspark.input.given import require_table
from annspark.run import Run
from annspark.settings import make_record, takes
from annspark.spark.arrow import Batches, gathered, ranks_of_ids
from annspark.spark.staging import Store
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.beside import require_column, require_one_row_each, require_same_type, select_beside
from annspark.uses.components import GROUP, HIGH, LOW, connect
from annspark.uses.pairs import neighbor_lists, require_distances
from annspark.uses.report import Used, tell, use_in_session
from annspark.uses.settings import DuplicateSettings
from annspark.uses.stars import OTHER, both_ways, split
from annspark.uses.sums import sum_in_order

_KEPT_ID, _KEEP, _SIZE, _LINKED, _DIAMETER = "kept_id", "keep", "group_size", "linked", "diameter"
_PRIORITY = "priority"


@spark_errors_explained()
@takes(DuplicateSettings)
def duplicates(
    neighbors: DataFrame,
    priorities: DataFrame | None = None,
    *,
    scratch: str | PathLike[str] | None = None,
    **settings: Any,
) -> Used:
    """Return the groups of rows that are nearly the same, and which row of each to keep.

    neighbors  : a neighbor table of one table with itself, in either shape, with distances.  Another cut-off needs no
                 other table: call this again
    priorities : a row per row, with its id and priority_col; a row without a priority comes after those that have one
    {settings}
    scratch    : Folder for intermediate tables. Default: none, they are kept on the executors.

    The table has only the rows that are in groups, with the columns id_col, kept_id (the row to keep of the group),
    keep (whether it is that row), distance (to that row; null where the two hang together by others only), group_size,
    linked (share of the group's pairs that are linked: 1 where all are) and diameter (links between the two rows that
    are farthest apart: 1 where all are linked). To leave the others out, and lose no row that is in no group:

        rows.join(found.table.where("not keep"), "user_id", "left_anti")

    Two rows are linked if one lists the other within max_distance. With links "mutual", the distance must also not be
    larger than that of the other's last neighbor: that holds for two rows that list each other, and for twins, of which
    a list of k can name only k. Of a table that has each pair from one side only, links must be "either".

    Linked rows are in one group, and so are rows linked by others, up to max_group rows. A larger group is split: each
    row of it goes to the nearest of some central rows that it is linked to.

    The report's facts: users, k (of the longest list), near (listed neighbors within max_distance; two for each pair of
    rows that list each other), full (users whose k neighbors are all within max_distance: they may have more),
    farthest (distance in the table), links (pairs of linked rows), rounds (of the search for connected rows), split
    (groups that were larger than max_group), groups, grouped (rows in groups), to_leave_out (rows that are not kept),
    largest (group), sizes (groups by size), diameters (groups by diameter), linked (mean over groups), chained (rows
    that are not linked to the row that is kept).

    Raises SettingsError for settings that cannot be used and InputError for tables that cannot be used.
    """
    asked = make_record(DuplicateSettings, settings, "priorities", "scratch")
    table = require_table(neighbors, "neighbors")
    if priorities is not None:
        priorities = require_table(priorities, "priorities")
    return use_in_session(partial(find_groups, table, priorities, asked), table.sparkSession, scratch)


def find_groups(neighbors: DataFrame, priorities: DataFrame | None, settings: DuplicateSettings, run: Run) -> Used:
    """Return the groups, as duplicates does."""
    require_distances(neighbors, settings.id_col, "duplicates")
    lists = neighbor_lists(neighbors, settings.id_col)
    order = _priorities(lists, priorities, settings, run)
    # Each table is stored anew: plans that held those of all stored tables before them would take longer than the work.
    store = partial(run.stage, anew=True)
    with run.clock.step("link") as facts:
        lists = run.stage(lists)
        told = _lists_told(lists, settings.max_distance)
        links = store(_links(lists, settings.max_distance, settings.links))
        told["links"] = links.count()
        facts += [f"{told['links']:,} links"]
    with run.clock.step("connect") as facts:
        connected, told["rounds"] = connect(links, store)
        members, told["split"] = _split_large(store(connected), links, settings.max_group, store)
        inner = store(_within(links, members))
        facts += [f"{told['rounds']} rounds"]
    with run.clock.step("keep") as facts:
        kept = store(_kept(members, inner, order, settings.keep))
        groups = store(_shapes(inner, members))
        table = run.keep(_told(members, kept, groups, inner, settings.id_col))
        told |= _groups_told(table)
        facts += [f"{told['groups']:,} groups of {told['grouped']:,} rows"]
    return Used(table, tell("duplicates", settings, run, told, _warnings(told, settings)))


def _priorities(
    lists: DataFrame, priorities: DataFrame | None, settings: DuplicateSettings, run: Run
) -> DataFrame | None:
    """Return user_id and priority, where keep needs them."""
    if (priorities is not None) != (settings.keep == "highest_priority"):
        given = "given" if priorities is not None else "not given"
        raise SettingsError(
            f"'keep' is {settings.keep!r}, and 'priorities' is {given}. The two go together: give both, or neither."
        )
    if priorities is None:
        return None
    kind = require_column(priorities, settings.priority_col, "priorities")
    if not isinstance(kind, T.NumericType):
        raise InputError(
            f"priorities: {settings.priority_col!r} is {kind.simpleString()}, and it must be a number. Cast it; of a "
            "date, for example, unix_date makes one."
        )
    table = select_beside(priorities, {settings.id_col: USER_ID, settings.priority_col: _PRIORITY}, "priorities")
    require_same_type(lists, table, USER_ID, "priorities", settings.id_col)
    known = run.stage(table.dropna())
    require_one_row_each(known, "priorities", settings.id_col)
    return known


def _lists_told(lists: DataFrame, max_distance: float) -> dict[str, Any]:
    """Return what the report says of the neighbor table."""
    last = F.try_element_at(f"{NEIGHBORS}.{DISTANCE}", F.lit(-1))
    by_size = lists.groupBy(F.size(NEIGHBORS).alias("size")).agg(
        F.count("*").alias("users"),
        F.sum(F.size(_near(lists, max_distance))).alias("near"),
        F.count_if(last <= _cut_off(lists, max_distance)).alias("full"),
        F.max(last).alias("farthest"),
    )
    rows = sorted(by_size.collect(), key=lambda row: row["size"])
    return {
        "users": sum(row["users"] for row in rows),
        "k": rows[-1]["size"] if rows else 0,
        "near": sum(row["near"] for row in rows),
        "full": rows[-1]["full"] if rows else 0,
        "farthest": max((row["farthest"] for row in rows if row["farthest"] is not None), default=None),
    }


def _near(lists: DataFrame, max_distance: float) -> Column:
    """Return the neighbors within the cut-off."""
    cut_off = _cut_off(lists, max_distance)
    return F.filter(NEIGHBORS, lambda neighbor: neighbor[DISTANCE] <= cut_off)


def _cut_off(lists: DataFrame, max_distance: float) -> Column:
    """Return the cut-off in the type of the distances, so that one equal to it is within it."""
    element = lists.select(F.explode(NEIGHBORS).alias("pair")).select(f"pair.{DISTANCE}")
    return F.lit(float(max_distance)).cast(element.schema[DISTANCE].dataType)


def _links(lists: DataFrame, max_distance: float, links: str) -> DataFrame:
    """Return every linked pair once: low, high, distance."""
    pairs = lists.select(USER_ID, F.explode(_near(lists, max_distance)).alias("neighbor")).select(USER_ID, "neighbor.*")
    if links == "mutual":
        # Of two rows that list each other, at least one passes, also where their distances are rounded differently.
        last = F.try_element_at(f"{NEIGHBORS}.{DISTANCE}", F.lit(-1)).alias("last")
        pairs = pairs.join(lists.select(F.col(USER_ID).alias(NEIGHBOR_ID), last), NEIGHBOR_ID, "left")
        pairs = pairs.where((F.col(DISTANCE) <= F.col("last")) | F.col("last").isNull())
    ends = F.least(USER_ID, NEIGHBOR_ID).alias(LOW), F.greatest(USER_ID, NEIGHBOR_ID).alias(HIGH)
    return pairs.groupBy(*ends).agg(F.min(DISTANCE).alias(DISTANCE))


def _split_large(members: DataFrame, links: DataFrame, max_group: int, store: Store) -> tuple[DataFrame, int]:
    """Return user_id and group, with groups of more than max_group rows split; and how many these were.

    members : user_id, group
    """
    large = store(members.groupBy(GROUP).count().where(F.col("count") > max_group).select(GROUP))
    count = large.count()
    if not count:
        return members, 0
    rows = members.join(F.broadcast(large), GROUP).select(F.col(USER_ID).alias(LOW))
    stars = split(links.join(rows, LOW), store)
    others = members.join(F.broadcast(large), GROUP, "left_anti").select(USER_ID, GROUP)
    alone = stars.groupBy(GROUP).count().where("count = 1").select(GROUP)
    return store(others.unionByName(stars.join(alone, GROUP, "left_anti").select(USER_ID, GROUP))), count


def _within(links: DataFrame, members: DataFrame) -> DataFrame:
    """Return the links within groups: group, low, high, distance."""
    of_low = members.select(F.col(USER_ID).alias(LOW), GROUP)
    of_high = members.select(F.col(USER_ID).alias(HIGH), F.col(GROUP).alias("other_group"))
    inner = links.join(of_low, LOW).join(of_high, HIGH).where(F.col(GROUP) == F.col("other_group"))
    return inner.select(GROUP, LOW, HIGH, DISTANCE)


def _kept(members: DataFrame, inner: DataFrame, order: DataFrame | None, keep: str) -> DataFrame:
    """Return the row to keep of each group: group, kept_id."""
    first: tuple[Column, ...] = ()
    if keep == "most_central":
        ends = both_ways(inner).groupBy(USER_ID)
        central = ends.agg((-F.count("*")).alias("links"), sum_in_order(F.col(DISTANCE)).alias("far"))
        members, first = members.join(central, USER_ID), (F.col("links"), F.col("far"))
    if order is not None:
        members = members.join(order, USER_ID, "left")
        first = (F.col(_PRIORITY).isNull().alias("none"), (-F.col(_PRIORITY)).alias(_PRIORITY))
    best = F.min(F.struct(*first, USER_ID))
    return members.groupBy(GROUP).agg(best[USER_ID].alias(_KEPT_ID))


def _shapes(inner: DataFrame, members: DataFrame) -> DataFrame:
    """Return group, group_size, linked and diameter."""
    sizes = members.groupBy(GROUP).agg(F.count("*").alias(_SIZE))
    count = F.col(_SIZE).cast("double")
    share = F.col("links") / (count * (count - 1) / 2)
    shapes = sizes.join(inner.groupBy(GROUP).agg(F.count("*").alias("links")), GROUP)
    shapes = shapes.select(GROUP, F.col(_SIZE).cast("int").alias(_SIZE), share.alias(_LINKED))
    # Most groups are pairs, of which Python need not know.
    open_ones = inner.join(shapes.where(F.col(_LINKED) < 1).select(GROUP), GROUP).select(GROUP, LOW, HIGH)
    kind = T.StructType([inner.schema[GROUP], T.StructField(_DIAMETER, T.IntegerType())])
    found = open_ones.repartition(GROUP).mapInArrow(_diameters, kind)
    diameter = F.coalesce(_DIAMETER, F.lit(1)).alias(_DIAMETER)
    return shapes.join(found, GROUP, "left").select(GROUP, _SIZE, _LINKED, diameter)


def _diameters(batches: Batches) -> Batches:
    """Measure all groups of a partition: group, low, high to group, diameter."""
    links = gathered(batches)
    if links is None:
        return
    groups, (group,) = ranks_of_ids(links[GROUP].combine_chunks())
    _, ends = ranks_of_ids(links[LOW].combine_chunks(), links[HIGH].combine_chunks())
    found = diameters(group, np.stack(ends, axis=1))
    yield pa.RecordBatch.from_arrays([groups, pa.array(found)], [GROUP, _DIAMETER])


def _told(members: DataFrame, kept: DataFrame, groups: DataFrame, inner: DataFrame, id_col: str) -> DataFrame:
    """Return the table to publish."""
    rows = members.join(kept, GROUP).join(groups, GROUP)
    to_kept = both_ways(inner).withColumnRenamed(OTHER, _KEPT_ID)
    is_kept, none = F.col(USER_ID) == F.col(_KEPT_ID), F.lit(0.0).cast(inner.schema[DISTANCE].dataType)
    return rows.join(to_kept, [USER_ID, _KEPT_ID], "left").select(
        F.col(USER_ID).alias(id_col),
        _KEPT_ID,
        is_kept.alias(_KEEP),
        F.when(is_kept, none).otherwise(F.col(DISTANCE)).alias(DISTANCE),
        _SIZE,
        _LINKED,
        _DIAMETER,
    )


def _groups_told(table: DataFrame) -> dict[str, Any]:
    """Return what the report says of the groups."""
    alike = table.groupBy(_SIZE, _DIAMETER).agg(
        F.count_if(_KEEP).alias("groups"),
        F.count("*").alias("grouped"),
        F.count_if(F.col(DISTANCE).isNull()).alias("chained"),
        F.sum(F.when(F.col(_KEEP), F.col(_LINKED)).otherwise(0)).alias("linked"),
    )
    rows = sorted(alike.collect(), key=lambda row: (row[_SIZE], row[_DIAMETER]))
    groups, grouped, chained = (sum(row[name] for row in rows) for name in ("groups", "grouped", "chained"))
    sizes, across = Counter[str](), Counter[int]()
    for row in rows:
        sizes[_range_of(row[_SIZE])] += row["groups"]
        across[row[_DIAMETER]] += row["groups"]
    return {
        "groups": groups,
        "grouped": grouped,
        "to_leave_out": grouped - groups,
        "largest": rows[-1][_SIZE] if rows else 0,
        "sizes": dict(sizes),
        "diameters": {str(links): across[links] for links in sorted(across)},
        "linked": sum(row["linked"] for row in rows) / groups if groups else None,
        "chained": chained,
    }


def _range_of(size: int) -> str:
    """Return the sizes that a report counts together with one: from 2^n + 1 to 2^(n + 1)."""
    high = 1 << (size - 1).bit_length()
    return f"{high // 2 + 1} to {high}" if high > 2 else "2"


def _warnings(told: dict[str, Any], settings: DuplicateSettings) -> list[str]:
    warnings = []
    if told["full"]:
        warnings.append(
            f"{told['full']:,} of {told['users']:,} rows have k = {told['k']} neighbors in the table, all within "
            f"{settings.max_distance:g}. They may have more duplicates than the table says, and linked is too low for "
            "them. Build with a larger k, or lower max_distance."
        )
    farthest = told["farthest"]
    if farthest is not None and farthest < settings.max_distance and told["full"] < told["users"]:
        warnings.append(
            f"No pair in the table is farther than {farthest:g}, and max_distance is {settings.max_distance:g}. If the "
            "table was built with a smaller max_distance, pairs in between are not in it."
        )
    if told["split"]:
        warnings.append(
            f"{told['split']:,} groups had more than {settings.max_group:,} rows, hanging together by chains of pairs, "
            "and were split. Look at some of them, and lower max_distance if their rows are different things."
        )
    if told["chained"]:
        warnings.append(
            f"{told['chained']:,} of {told['to_leave_out']:,} rows to leave out are not linked to the row that is "
            "kept. They are those with no distance."
        )
    return warnings
