"""The join of an update of an index where only some rows may be neighbors: all rows ask, and these are asked.

Rows that ask anew go to the parts of the index, as queries do.  Every other row is compared with the residents that are
new in the leaves it goes to.  These residents are few.  So they go to the rows, with the code of the task, and the rows
stay where they are.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from annspark.core.arrays import are_in, distinct
from annspark.core.coordinates import Coordinates
from annspark.core.copies import route_queries, route_residents
from annspark.core.excluded import excluded_by
from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.vectors import in_kind, take_rows
from annspark.flow.ask import Queries, Residents, answer, queries_in, residents_of
from annspark.flow.exclude import pairs_with
from annspark.flow.join import joined_batches, joined_schema
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.index_changes import Changes, Saved
from annspark.index_join import parts_of
from annspark.index_rows import one_row_each
from annspark.saved.parts import read_part
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, numbers
from annspark.spark.block import id_type, read_excluded
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter, watch_joined, watch_shipped
from annspark.spark.wire import Wire
from annspark.tables import HASHES, IDS, PARTITION_KEY


def ask_changed(
    asking: DataFrame,
    entering: DataFrame,
    users: Users,
    forest: Forest,
    plan: Plan,
    changes: Changes,
    old: Saved,
    new: Saved,
    meter: Meter,
) -> DataFrame:
    """Compare rows that ask anew with all residents, and the others with new ones; return lists as candidates, by slot.

    asking   : blocks of the rows that ask anew
    entering : blocks of the residents that are new
    users    : all rows
    plan     : its partitions are tonight's parts
    old      : the index of last night
    new      : tonight's parts
    """
    assert new.manifest.join is not None
    keys, width = partition_keys(len(old.slots)), new.manifest.join.width
    lists = _ask_parts(asking, users, forest, plan, changes, new, width, keys, meter)
    if len(residents := collect(entering)):
        at_home = _at_home(residents, forest, plan, users.wire, users.coordinates)
        mapper = _meet_mapper(at_home, changes.asking, forest, plan, users.wire, users.coordinates, width, keys)
        lists = lists.unionByName(users.table.mapInArrow(mapper, joined_schema(id_type(users.table))))
    return watch_joined(lists, meter)


def _ask_parts(
    asking: DataFrame,
    users: Users,
    forest: Forest,
    plan: Plan,
    changes: Changes,
    new: Saved,
    width: int,
    keys: np.ndarray,
    meter: Meter,
) -> DataFrame:
    """Return the nearest residents of the leaves that the rows that ask anew go to.

    width : length of a list
    keys  : int32, the targets of the slots
    """
    part_keys = partition_keys(plan.n_partitions)
    shipped = ship_vectors(asking, forest, plan, users.wire, users.coordinates, route_queries)
    shipped = watch_shipped(shipped, meter, users.wire)
    # Where no row asks, the table is not empty all the same: Spark drops the plan of an empty one, and what it counts.
    shipped = shipped.unionByName(one_row_each(users.table.sparkSession, part_keys), allowMissingColumns=True)
    pairs = pairs_with(users, changes.asking)
    mapper = _ask_mapper(part_keys, keys, new, pairs, plan.shared, users.wire, users.coordinates, width)
    return shipped.repartition(plan.n_partitions, PARTITION_KEY).mapInArrow(mapper, joined_schema(id_type(asking)))


def _ask_mapper(
    part_keys: np.ndarray,
    keys: np.ndarray,
    new: Saved,
    pairs: tuple[np.ndarray, np.ndarray] | None,
    shared: range,
    wire: Wire,
    coordinates: Coordinates,
    width: int,
) -> Mapper:
    """Return the function that compares the rows that ask with the residents of a part.

    pairs : hashes of excluded pairs; None where no pairs are excluded
    """
    number_of, parts = {int(key): number for number, key in enumerate(part_keys)}, parts_of(new)

    def ask(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:
            return
        part = parts[number_of[shipped[PARTITION_KEY][0].as_py()]]
        shipped = shipped.filter(shipped[IDS].is_valid())
        if len(shipped) == 0:
            return
        queries = queries_in(shipped, IDS, wire)
        if pairs is not None:
            queries = replace(queries, excluded=excluded_by(queries.hashes, *pairs))
        ids, hashes, vectors = read_part(part.path, wire.dim, sparse=wire.sparse)
        row = np.flatnonzero(np.isin(part.leaf, queries.visits.leaf))
        ids = ids.take(pa.array(row)).cast(queries.ids.type)
        vectors = coordinates.for_join(take_rows(vectors, row))
        residents = residents_of(ids, hashes[row], vectors, part.leaf[row])
        yield from _lists_of(queries, residents, shared, coordinates, width, keys)

    return ask


def _at_home(residents: pa.Table, forest: Forest, plan: Plan, wire: Wire, coordinates: Coordinates) -> list[Residents]:
    """Return residents in the leaves of each tree.

    residents : blocks of them
    """
    ids, hashes = elements(residents[IDS]), numbers(residents[HASHES], np.int64)
    vectors = coordinates.for_join(wire.read(residents))
    copies = route_residents(forest, plan, in_kind(vectors, np.float32))
    tree = np.searchsorted(plan.first_leaf, copies.home, side="right") - 1
    by_tree = [np.flatnonzero(tree == number) for number in range(len(forest.sizes))]
    return [
        residents_of(ids.take(pa.array(row)), hashes[row], take_rows(vectors, row), copies.home[here])
        for here, row in ((here, copies.row[here]) for here in by_tree)
    ]


def _meet_mapper(
    at_home: list[Residents],
    asking: np.ndarray,
    forest: Forest,
    plan: Plan,
    wire: Wire,
    coordinates: Coordinates,
    width: int,
    keys: np.ndarray,
) -> Mapper:
    """Return the function that compares rows with the residents that are new in the leaves they go to.

    at_home : the new residents, tree after tree
    asking  : int64 (n,), ascending, hashes of the rows that are left out, because they ask anew
    """
    leaves = [distinct(residents.home) for residents in at_home]

    def meet(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes, excluded = elements(batch[IDS]), numbers(batch[HASHES], np.int64), read_excluded(batch)
            vectors = coordinates.for_join(wire.read(batch))
            copies = route_queries(forest, plan, in_kind(vectors, np.float32))
            row, leaf = np.repeat(copies.row, copies.n_visits), copies.visits
            stays = ~are_in(hashes, asking)
            for residents, of_tree in zip(at_home, leaves, strict=True):
                here = np.flatnonzero(are_in(leaf, of_tree) & stays[row])
                going = distinct(row[here])
                if len(going) == 0:
                    continue
                queries = Queries(
                    ids=ids.take(pa.array(going)),
                    hashes=hashes[going],
                    vectors=take_rows(vectors, going),
                    visits=Visits(np.searchsorted(going, row[here]), leaf[here]),
                    excluded=excluded.take(going) if excluded else None,
                )
                # Arrow may have given the driver a narrower type of ids.
                residents = replace(residents, ids=residents.ids.cast(ids.type))
                yield from _lists_of(queries, residents, plan.shared, coordinates, width, keys)

    return meet


def _lists_of(
    queries: Queries, residents: Residents, shared: range, coordinates: Coordinates, width: int, keys: np.ndarray
) -> Batches:
    """Yield the nearest residents of each query that has some, in the columns of joined_schema."""
    joined = answer(queries, residents, shared, coordinates, width, own=True)
    listed = np.flatnonzero(joined.neighbors[:, 0] >= 0)
    yield from joined_batches(joined, listed, queries.hashes, keys, queries.ids, residents.ids)
