"""The steps of an update: find what has changed, write the parts anew, and join what has changed with what it meets."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.contents import contents_of
from annspark.core.coordinates import Coordinates
from annspark.core.copies import Callers, callers_of, route_changed, route_homes
from annspark.core.forest import Forest
from annspark.core.join import join_changed
from annspark.core.keeper import NO_BAR
from annspark.core.plan import Plan
from annspark.core.routes import EVERY_LEAF, Visits
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, concatenate_rows, in_kind, is_sparse, len_of, take_rows
from annspark.flow.join import joined_batches, joined_schema
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.index_rows import are_in, block_facts, facts_schema, one_row_each
from annspark.index_writer import CALLERS, VISITED, WRITTEN, PartRows, write_files
from annspark.saved.kept import Gone, read_rows, read_visitors
from annspark.saved.manifest import Manifest
from annspark.saved.parts import read_part
from annspark.spark.arrow import Batches, Mapper, collect, elements, numbers, to_binary, to_lists
from annspark.spark.block import block_lengths, block_users, id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter, watch_joined, watch_shipped
from annspark.spark.wire import Wire
from annspark.tables import (
    CONTENTS,
    HASHES,
    HOMES,
    IDS,
    LOWEST,
    N_VISITS,
    PARTITION_KEY,
    VISITS,
)

_BARS, _ADDED, _GONE = "bars", "added", "gone"
_SLACK = np.float32(1e-5)  # share by which a bar is raised: more than turning it into a raw distance can lose


@dataclass(frozen=True)
class Changes:
    """What has changed since an index was made.

    gone  : rows of the index that are not there any more, or have other vectors now
    added : int64 (n,), ascending, hashes of the ids of rows that are new, or have other vectors now
    short : int64 (n,), ascending, hashes of other rows, of whose neighbors so many are gone that the next are not known
    """

    gone: Gone
    added: np.ndarray
    short: np.ndarray

    @property
    def asking(self) -> np.ndarray:
        """Hashes of the rows that are joined: int64 (n,), ascending."""
        return np.union1d(self.added, self.short)

    @property
    def replaced(self) -> np.ndarray:
        """Hashes of all rows that have no list of last night that is still used: int64 (n,), ascending."""
        return np.union1d(self.gone.hashes, self.asking)


def find_changes(users: Users, folder: str, manifest: Manifest) -> Changes:
    """Compare tonight's rows with those of an index, by the hashes of their ids and of their vectors."""
    spark = users.table.sparkSession
    paths = [f"{folder}/{name}" for name in manifest.slots]
    keys, kind = partition_keys(len(paths)), id_type(users.table)
    told = users.table.select(HASHES, *users.wire.names).mapInArrow(
        _contents_mapper(keys, users.wire), f"{PARTITION_KEY} int, {HASHES} binary, {CONTENTS} binary"
    )
    told = told.unionByName(one_row_each(spark, keys), allowMissingColumns=True)
    schema = T.StructType(
        [T.StructField(IDS, T.ArrayType(kind)), *(T.StructField(name, T.BinaryType()) for name in (_GONE, _ADDED))]
    )
    found = collect(told.repartition(len(paths), PARTITION_KEY).mapInArrow(_compare_mapper(paths, keys), schema))
    gone = Gone(elements(found[IDS]), np.sort(numbers(found[_GONE], np.int64)))
    added, short = np.sort(numbers(found[_ADDED], np.int64)), np.empty(0, np.int64)
    if len(gone.hashes):
        numbered = spark.range(0, len(paths), 1, len(paths))
        mapper = _short_mapper(paths, gone, manifest.settings["k"])
        short = np.sort(numbers(collect(numbered.mapInArrow(mapper, f"{HASHES} binary"))[HASHES], np.int64))
    return Changes(gone=gone, added=added, short=short)


def _contents_mapper(keys: np.ndarray, wire: Wire) -> Mapper:
    def tell(batches: Batches) -> Batches:
        for batch in batches:
            hashes, contents = numbers(batch.column(0), np.int64), contents_of(wire.read(batch))
            slot = slot_of(hashes, len(keys))
            order = np.argsort(slot, kind="stable")
            first, lengths = block_lengths(slot[order], 1)  # of some kilobytes, as there is no vector in them
            columns = [to_binary(part[order], lengths) for part in (hashes, contents)]
            yield pa.RecordBatch.from_arrays(
                [pa.array(keys[slot[order][first]]), *columns], [PARTITION_KEY, HASHES, CONTENTS]
            )

    return tell


def _compare_mapper(paths: list[str], keys: np.ndarray) -> Mapper:
    slot_of_key = {int(key): slot for slot, key in enumerate(keys)}

    def compare(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        slot = slot_of_key[shipped[PARTITION_KEY][0].as_py()]
        shipped = shipped.filter(shipped[HASHES].is_valid())
        tonight = numbers(shipped[HASHES], np.int64), numbers(shipped[CONTENTS], np.int64)
        rows = read_rows(paths[slot])
        before = rows.hashes, rows.contents
        # Rows whose ids have the same hash are taken for one: where one of them has changed, all have.
        both = [np.stack(side, axis=1).view("i8,i8")[:, 0] for side in (before, tonight)]
        lost, new = (np.unique(one["f0"][~np.isin(one, other)]) for one, other in (both, both[::-1]))
        changed = np.union1d(lost, new)
        gone = np.flatnonzero(np.isin(rows.hashes, changed))
        added = np.intersect1d(tonight[0], changed)
        columns = [to_lists(rows.ids.take(pa.array(gone)), np.array([len(gone)]))]
        columns += [to_binary(part, np.array([len(part)])) for part in (rows.hashes[gone], added)]
        yield pa.RecordBatch.from_arrays(columns, [IDS, _GONE, _ADDED])

    return compare


def _short_mapper(paths: list[str], gone: Gone, k: int) -> Mapper:
    def find(batches: Batches) -> Batches:
        for batch in batches:
            for slot in batch.column(0).to_pylist():
                rows = read_rows(paths[slot]).without(gone)
                short = rows.hashes[rows.are_short(k)]
                yield pa.RecordBatch.from_arrays([to_binary(short, np.array([len(short)]))], [HASHES])

    return find


def pick_rows(users: Users, wanted: np.ndarray) -> DataFrame:
    """Return blocks of the users with the given hashes.

    wanted : int64 (n,), ascending
    """
    wire = users.wire

    def pick(batches: Batches) -> Batches:
        for batch in batches:
            hashes = numbers(batch.column(1), np.int64)
            row = np.flatnonzero(are_in(hashes, wanted))
            if len(row):
                vectors = take_rows(wire.read(batch), row)
                ids = elements(batch.column(0)).take(pa.array(row))
                blocks = block_users(ids, hashes[row], vectors, wire)
                yield pa.RecordBatch.from_arrays(blocks, [IDS, HASHES, *wire.names, LOWEST])

    columns = [IDS, HASHES, *wire.names, LOWEST]
    return users.table.select(*columns).mapInArrow(pick, users.table.select(*columns).schema)


def write_parts(
    asking: DataFrame,
    users: Users,
    forest: Forest,
    plan: Plan,
    changes: Changes,
    old: str,
    manifest: Manifest,
    folder: str,
    number_kind: str,
) -> pa.Table:
    """Write the parts of an index anew, with the rows that ask in place of those that are replaced.

    asking   : blocks of the rows that ask
    plan     : its partitions are the parts of the index
    old      : folder of the index
    manifest : of the index
    folder   : where the parts are written to
    returns  : what the tasks told, part after part
    """
    keys = partition_keys(plan.n_partitions)
    shipped = ship_vectors(asking, forest, plan, users.wire, users.coordinates, route_homes, prepared=False)
    shipped = shipped.unionByName(one_row_each(users.table.sparkSession, keys), allowMissingColumns=True)
    mapper = _rewrite_mapper(keys, users.wire, changes.replaced, old, manifest, folder, number_kind)
    return collect(shipped.repartition(plan.n_partitions, PARTITION_KEY).mapInArrow(mapper, WRITTEN)).sort_by("number")


def _rewrite_mapper(
    keys: np.ndarray, wire: Wire, replaced: np.ndarray, old: str, manifest: Manifest, folder: str, number_kind: str
) -> Mapper:
    number_of = {int(key): number for number, key in enumerate(keys)}
    leaves = [np.flatnonzero(manifest.part_of_leaf == number).astype(np.int32) for number in range(len(keys))]
    leaf_rows = [manifest.leaf_rows[some] for some in leaves]
    parts, visits = manifest.parts, manifest.visits

    def write(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        number = number_of[shipped[PARTITION_KEY][0].as_py()]
        shipped = shipped.filter(shipped[IDS].is_valid())
        ids, hashes, vectors = read_part(f"{old}/{parts[number]}", wire.dim, sparse=wire.sparse)
        leaf = np.repeat(leaves[number], leaf_rows[number])
        stays = ~are_in(hashes, replaced)
        new_ids, new_leaf = elements(shipped[IDS]), numbers(shipped[HOMES], np.int32)
        row = np.flatnonzero(stays)
        rows = PartRows(
            ids=pa.concat_arrays([ids.take(pa.array(row)), new_ids.cast(ids.type)]),
            hashes=np.concatenate([hashes[row], numbers(shipped[HASHES], np.int64)]),
            vectors=_together(take_rows(vectors, row), wire.read(shipped)),
            leaf=np.concatenate([leaf[row], new_leaf]),
        )
        visitors = None
        if number < len(visits):
            visiting, visited = read_visitors(f"{old}/{visits[number]}").visits(leaf)
            here = stays[visiting]
            place = np.cumsum(stays) - 1
            owner = len(row) + np.repeat(np.arange(len(new_leaf)), numbers(shipped[N_VISITS], np.int32))
            visitors = Visits(
                np.concatenate([place[visiting[here]], owner]),
                np.concatenate([visited[here], numbers(shipped[VISITS], np.int32)]),
            )
        if len(rows.leaf):
            yield write_files(folder, number, rows, visitors, number_kind)

    return write


def _together(old: Vectors, new: Vectors) -> Vectors:
    """Return rows of both, in the wider of their types."""
    kinds = [(part.data if is_sparse(part) else part).dtype for part in (old, new)]
    wide = np.float64 if np.float64 in kinds else np.float32
    return concatenate_rows([in_kind(part, wide) for part in (old, new)])


def callers_told(written: pa.Table, n_leaves: int) -> Callers:
    """Return the callers of all leaves from what the tasks that wrote the parts told."""
    return callers_of(numbers(written[CALLERS], np.int32), numbers(written[VISITED], np.int32), n_leaves)


def join_asking(
    asking: DataFrame,
    users: Users,
    forest: Forest,
    plan: Plan,
    callers: Callers,
    changes: Changes,
    old: tuple[str, Manifest],
    new: tuple[str, Manifest],
    meter: Meter,
) -> DataFrame:
    """Compare the rows that ask with the residents that they meet; return the lists of both as candidates, by slot.

    forest   : the trees that are joined
    plan     : its partitions are tonight's parts, of these trees
    old, new : folder and manifest of the index, and of tonight's parts
    """
    spark, wire, coordinates = users.table.sparkSession, users.wire, users.coordinates
    shipped = ship_vectors(asking, forest, plan, wire, coordinates, partial(route_changed, callers))
    shipped = watch_shipped(shipped, meter, wire)
    paths = [f"{old[0]}/{name}" for name in old[1].slots]
    keys, slot_keys = partition_keys(plan.n_partitions), partition_keys(len(paths))
    bars = spark.range(0, len(paths), 1, len(paths)).mapInArrow(
        _bars_mapper(paths, changes, plan, keys), f"{PARTITION_KEY} int, {HASHES} binary, {_BARS} binary"
    )
    together = shipped.unionByName(bars, allowMissingColumns=True).repartition(plan.n_partitions, PARTITION_KEY)
    mapper = _join_mapper(keys, slot_keys, wire, coordinates, new, changes.replaced)
    return watch_joined(together.mapInArrow(mapper, joined_schema(id_type(users.table))), meter)


def _bars_mapper(paths: list[str], changes: Changes, plan: Plan, keys: np.ndarray) -> Mapper:
    """Return the function that yields for each part up to which distance the lists of its rows are known."""
    gone, replaced = changes.gone, changes.replaced

    def tell(batches: Batches) -> Batches:
        for batch in batches:
            for slot in batch.column(0).to_pylist():
                rows = read_rows(paths[slot]).without(gone)
                bars, stays = rows.farthest(), ~are_in(rows.hashes, replaced)
                for homes in rows.homes.T:
                    row = np.flatnonzero(stays & (homes >= 0))
                    part = plan.partition_of_leaf[homes[row]]
                    order = np.argsort(part, kind="stable")
                    row, part = row[order], part[order]
                    first, lengths = block_lengths(part, 1)
                    columns = [to_binary(values[row], lengths) for values in (rows.hashes, bars)]
                    yield pa.RecordBatch.from_arrays(
                        [pa.array(keys[part[first]]), *columns], [PARTITION_KEY, HASHES, _BARS]
                    )

    return tell


def _join_mapper(
    keys: np.ndarray,
    slot_keys: np.ndarray,
    wire: Wire,
    coordinates: Coordinates,
    new: tuple[str, Manifest],
    replaced: np.ndarray,
) -> Mapper:
    folder, manifest = new
    number_of = {int(key): number for number, key in enumerate(keys)}
    leaves = [np.flatnonzero(manifest.part_of_leaf == number).astype(np.int32) for number in range(len(keys))]
    leaf_rows = [manifest.leaf_rows[some] for some in leaves]
    parts, visits, width = manifest.parts, manifest.visits, manifest.join.width if manifest.join else 0

    def join(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        number = number_of[shipped[PARTITION_KEY][0].as_py()]
        told, asking = shipped.filter(shipped[_BARS].is_valid()), shipped.filter(shipped[IDS].is_valid())
        del shipped
        if len(asking) == 0:
            return
        # The residents of the leaves that any row goes to.
        count = numbers(asking[N_VISITS], np.int32)
        going = numbers(asking[VISITS], np.int32)
        target = np.where(going < 0, -3 - going, going)
        ids, hashes, vectors = read_part(f"{folder}/{parts[number]}", wire.dim, sparse=wire.sparse)
        leaf = np.repeat(leaves[number], leaf_rows[number])
        place = np.arange(len(leaf)) - np.repeat(np.cumsum(leaf_rows[number]) - leaf_rows[number], leaf_rows[number])
        here = np.flatnonzero(np.isin(leaf, target))
        if len(here) == 0:
            return
        ids, hashes, leaf, place = ids.take(pa.array(here)), hashes[here], leaf[here], place[here]
        known_hashes, known_bars = numbers(told[HASHES], np.int64), numbers(told[_BARS], np.float32)
        bars = _bars_of(hashes, known_hashes, known_bars, replaced, coordinates)
        mine, asked = coordinates.for_join(take_rows(vectors, here)), wire.read(asking)
        both_ids = pa.concat_arrays([ids, elements(asking[IDS]).cast(ids.type)])
        order = pc.sort_indices(both_ids).to_numpy()
        n_here, n = len(here), len(both_ids)
        at = np.empty(n, np.int64)
        at[order] = np.arange(n)
        both_ids = both_ids.take(pa.array(order))
        is_asking = order >= n_here
        homes = numbers(asking[HOMES], np.int32).reshape(len(count), -1)
        home = np.concatenate([leaf, np.full(len(count), -1, np.int32)])[order]
        homes_of = np.concatenate([np.full((n_here, homes.shape[1]), -1, np.int32), homes])[order]
        all_place = np.concatenate([place, np.zeros(len(count), np.int64)])[order]
        first = np.ones(n, bool)
        first[1:] = pc.not_equal(both_ids[1:], both_ids[:-1]).to_numpy(zero_copy_only=False)
        thing = np.cumsum(first)
        owner = at[n_here + np.repeat(np.arange(len(count)), count)]
        n_leaves = len(manifest.leaf_rows)
        forward = np.sort(owner[going >= 0] * n_leaves + going[going >= 0])
        visitors = read_visitors(f"{folder}/{visits[number]}")

        def unrelated(one: np.ndarray, other: np.ndarray) -> np.ndarray:
            goes = are_in(one * n_leaves + home[other], forward)
            rest = np.flatnonzero(~goes)
            at_home, it = home[other[rest]], all_place[other[rest]]
            for targets in (*homes_of[one[rest]].T, np.full(len(rest), EVERY_LEAF, np.int32)):
                goes[rest] |= visitors.are_visiting(at_home, it, targets)
            return ~goes | (thing[one] == thing[other])

        all_vectors = take_rows(_together(mine, asked), order)
        all_bars = np.concatenate([bars, np.full(len_of(asked), np.inf, np.float32)])[order]
        joined = join_changed(
            all_vectors,
            home,
            Visits(owner, target),
            all_bars,
            unrelated,
            width,
            coordinates.metric,
        )
        joined = replace(joined, distances=coordinates.in_input_units(joined.distances))
        # Lists of residents that are replaced, or whose model kept some for them, are not wanted.
        all_hashes = np.concatenate([hashes, numbers(asking[HASHES], np.int64)])[order]
        listed = (joined.neighbors[:, 0] >= 0) & (is_asking | ~are_in(all_hashes, replaced))
        yield from joined_batches(joined, np.flatnonzero(listed), all_hashes, slot_keys, both_ids)

    return join


def _bars_of(
    hashes: np.ndarray, known: np.ndarray, bars: np.ndarray, replaced: np.ndarray, coordinates: Coordinates
) -> np.ndarray:
    """Return the raw distance up to which each resident keeps neighbors: float32 (n,); NO_BAR for one that asks."""
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], hashes).clip(max=max(0, len(known) - 1))
    found = known[order][at] == hashes if len(known) else np.zeros(len(hashes), bool)
    raw = np.full(len(hashes), np.inf, np.float32)
    if len(known):
        distance = coordinates.in_join_units(bars[order][at])
        exact = coordinates.facts.to_raw(distance.astype(np.float32))
        raw = np.where(found, exact + np.abs(exact) * _SLACK, raw).astype(np.float32)
    raw[are_in(hashes, replaced)] = NO_BAR
    return raw


def facts_of(asking: DataFrame, users: Users, forest: Forest, added: np.ndarray, n_slots: int) -> DataFrame:
    """Return what is known of the rows that are new or changed, as read_facts does.

    asking : blocks of rows, of which some are these
    forest : the trees that are joined
    added  : int64 (n,), ascending, their hashes
    """
    wire, coordinates, keys = users.wire, users.coordinates, partition_keys(n_slots)
    first_leaf = np.cumsum([0, *forest.sizes])

    def tell(batches: Batches) -> Batches:
        for batch in batches:
            hashes, vectors, ids = numbers(batch.column(1), np.int64), wire.read(batch), elements(batch.column(0))
            new = np.flatnonzero(are_in(hashes, added))
            vectors = take_rows(vectors, new)
            for tree, of_tree in enumerate(forest.find_routes(coordinates.for_routing(vectors), 1)):
                row, leaf = of_tree.row[of_tree.home], of_tree.leaf[of_tree.home] + np.int32(first_leaf[tree])
                contents = contents_of(take_rows(vectors, row)) if tree == 0 else np.zeros(len(row), np.int64)
                yield block_facts(ids.take(pa.array(new[row])), hashes[new[row]], contents, leaf, keys)

    return asking.select(IDS, HASHES, *wire.names).mapInArrow(tell, facts_schema(users))
