"""The join of an update: write the parts of an index anew, and compare the rows that ask with those they meet there."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from annspark.core.arrays import are_in, members_of
from annspark.core.calls import Calls
from annspark.core.contents import contents_of
from annspark.core.coordinates import Coordinates
from annspark.core.copies import Callers, callers_of, route_changed, route_homes, route_residents
from annspark.core.excluded import Pairs, excluded_by, pairs_of
from annspark.core.forest import Forest
from annspark.core.join import join_changed
from annspark.core.keeper import NO_BAR
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.vectors import Vectors, len_of, merged_rows, merging, take_rows
from annspark.core.visitors import renew_visitors
from annspark.flow.exclude import pairs_with
from annspark.flow.join import joined_batches, joined_schema
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.index_changes import Changes, Saved
from annspark.index_rows import block_facts, cannot_write, facts_schema, one_row_each
from annspark.index_writer import NUMBER, VISITED, WRITTEN, PartRows, number_kind_of, order_with_new, write_files
from annspark.saved.kept import read_visitors
from annspark.saved.parts import read_pieces
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, numbers
from annspark.spark.block import id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter, watch_joined, watch_shipped
from annspark.spark.wire import Wire
from annspark.tables import BARS, HASHES, HOMES, IDS, N_VISITS, PARTITION_KEY, VISITS

_SLACK = np.float32(1e-5)  # share by which a bar is raised: more than turning it into a raw distance can lose


@dataclass(frozen=True)
class SavedPart:
    """A part of a saved index.

    path      : of its rows
    visitors  : path of who visits which leaf; None for a tree that is not joined
    leaves    : int32 (n,), its leaves, ascending
    leaf_rows : int64 (n,), rows of each
    """

    path: str
    visitors: str | None
    leaves: np.ndarray
    leaf_rows: np.ndarray

    @property
    def leaf(self) -> np.ndarray:
        """The leaf of each row: int32 (n_rows,)."""
        return np.repeat(self.leaves, self.leaf_rows)


def parts_of(saved: Saved) -> list[SavedPart]:
    """Return the parts of a saved index."""
    manifest = saved.manifest
    found = []
    for number, name in enumerate(manifest.parts):
        leaves = np.flatnonzero(manifest.part_of_leaf == number).astype(np.int32)
        visitors = f"{saved.folder}/{manifest.visitors[number]}" if number < len(manifest.visitors) else None
        found.append(SavedPart(f"{saved.folder}/{name}", visitors, leaves, manifest.leaf_rows[leaves]))
    return found


def write_parts(
    entering: DataFrame, users: Users, forest: Forest, plan: Plan, replaced: np.ndarray, old: Saved, folder: str
) -> pa.Table:
    """Write the parts of an index anew, with some rows in place of others.

    entering : blocks of the rows
    forest   : all trees of the index
    plan     : its partitions are the parts of the index
    replaced : int64 (n,), ascending, hashes of the ids of the others
    folder   : where the parts are written to
    returns  : what the tasks told, part after part
    """
    keys, route = partition_keys(plan.n_partitions), route_homes if old.manifest.visitors else route_residents
    shipped = ship_vectors(entering, forest, plan, users.wire, users.coordinates, route, prepared=False)
    shipped = shipped.unionByName(one_row_each(users.table.sparkSession, keys), allowMissingColumns=True)
    mapper = _rewrite_mapper(keys, users.wire, replaced, old, folder, number_kind_of(users))
    return collect(shipped.repartition(plan.n_partitions, PARTITION_KEY).mapInArrow(mapper, WRITTEN)).sort_by(NUMBER)


def _rewrite_mapper(
    keys: np.ndarray, wire: Wire, replaced: np.ndarray, old: Saved, folder: str, number_kind: str
) -> Mapper:
    parts = parts_of(old)
    number_of = {int(key): number for number, key in enumerate(keys)}

    def write(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        number = number_of[shipped[PARTITION_KEY][0].as_py()]
        shipped = shipped.filter(shipped[IDS].is_valid())
        part = parts[number]
        ids, hashes, pieces = read_pieces(part.path, wire.dim, sparse=wire.sparse)
        row = np.flatnonzero(~are_in(hashes, replaced))
        new_ids, new_leaf = elements(shipped[IDS]).cast(ids.type), numbers(shipped[HOMES], np.int32)
        ids, leaf = ids.take(pa.array(row)), part.leaf[row]
        if len(leaf) + len(new_leaf) == 0:
            return
        order = order_with_new(leaf, ids, new_leaf, new_ids)
        ids, leaf = pa.concat_arrays([ids, new_ids]), np.concatenate([leaf, new_leaf])
        rows = PartRows(
            ids=ids.take(pa.array(order)),
            hashes=np.concatenate([hashes[row], numbers(shipped[HASHES], np.int64)])[order],
            vectors=merging(pieces, row, wire.read(shipped), order),
            leaf=leaf[order],
        )
        visitors = None
        if part.visitors is not None:
            before = np.concatenate([row, np.full(len(new_leaf), -1)])[order]
            counts = np.concatenate([np.zeros(len(row), np.int32), numbers(shipped[N_VISITS], np.int32)])
            visited = numbers(shipped[VISITS], np.int32)[members_of(order, counts)]
            visitors = renew_visitors(read_visitors(part.visitors), rows.leaf, before, counts[order], visited)
        with cannot_write():
            told = write_files(folder, number, rows, visitors, number_kind)
        yield told

    return write


def callers_told(written: pa.Table, plan: Plan) -> Callers:
    """Return the callers of all leaves from what the tasks that wrote the parts told, in the order of the parts.

    A part that has lost all its rows tells nothing, so that those after it have smaller numbers tonight.
    """
    counts = pc.binary_length(written[VISITED]).to_numpy() // 4
    partition = np.repeat(np.arange(len(written), dtype=np.int32), counts)
    return callers_of(partition, numbers(written[VISITED], np.int32), len(plan.partition_of_leaf))


def join_asking(
    asking: DataFrame,
    users: Users,
    forest: Forest,
    plan: Plan,
    callers: Callers,
    changes: Changes,
    n_slots: int,
    new: Saved,
    meter: Meter,
) -> DataFrame:
    """Compare the rows that ask with the residents that they meet; return the lists of both as candidates, by slot.

    forest : the trees that are joined
    plan   : its partitions are tonight's parts
    new    : tonight's parts
    """
    wire, coordinates = users.wire, users.coordinates
    shipped = ship_vectors(asking, forest, plan, wire, coordinates, partial(route_changed, callers))
    shipped = watch_shipped(shipped, meter, wire)
    keys, slot_keys = partition_keys(plan.n_partitions), partition_keys(n_slots)
    together = shipped.unionByName(changes.bars, allowMissingColumns=True).repartition(plan.n_partitions, PARTITION_KEY)
    pairs = pairs_with(users, changes.asking)
    mapper = _join_mapper(keys, slot_keys, wire, coordinates, new, changes.replaced, pairs)
    return watch_joined(together.mapInArrow(mapper, joined_schema(id_type(users.table))), meter)


def _join_mapper(
    keys: np.ndarray,
    slot_keys: np.ndarray,
    wire: Wire,
    coordinates: Coordinates,
    new: Saved,
    replaced: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray] | None,
) -> Mapper:
    """Return the function that joins the rows that ask with the residents of a part.

    pairs : hashes of excluded pairs of which an end asks; None where no pairs are excluded
    """
    number_of = {int(key): number for number, key in enumerate(keys)}
    parts, join_facts, shared = parts_of(new), new.manifest.join, new.manifest.forest.shared_leaves
    assert join_facts is not None
    width = join_facts.width

    def join(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:  # a part of a tree that is not joined
            return
        told, asking = shipped.filter(shipped[BARS].is_valid()), shipped.filter(shipped[IDS].is_valid())
        del shipped
        if len(asking) == 0:
            return
        # Bars came by the parts of last night.  Where one of these is gone, those here may be of other parts.
        part = parts[number_of[asking[PARTITION_KEY][0].as_py()]]
        met = _gather(part, told, asking, replaced, wire, coordinates)
        joined = join_changed(
            met.vectors,
            met.things,
            met.home,
            met.visits,
            met.calls,
            met.bars,
            width,
            coordinates.metric,
            met.excluded(*pairs) if pairs else None,
            shared,
        )
        joined = replace(joined, distances=coordinates.in_input_units(joined.distances))
        # A resident that is replaced asks for its list.
        listed = (joined.neighbors[:, 0] >= 0) & ((met.home < 0) | ~are_in(met.hashes, replaced))
        yield from joined_batches(joined, np.flatnonzero(listed), met.hashes, slot_keys, met.ids)

    return join


@dataclass(frozen=True)
class _Met:
    """Rows that ask, and residents, together in the order of their ids.

    The residents are those of the leaves that these rows go to, and of leaves with one that visits a home of theirs.

    A row that asks and is a resident comes twice.

    ids      : (n,)
    hashes   : int64 (n,), of the ids
    vectors  : ready to be joined
    home     : int32 (n,), home leaf of a resident; -1 for a row that asks
    bars     : float32 (n,), raw distance up to which a resident keeps neighbors
    visits   : of rows that ask
    calls    : rows that ask, and residents that visit a home of theirs
    """

    ids: pa.Array
    hashes: np.ndarray
    vectors: Vectors
    home: np.ndarray
    bars: np.ndarray
    visits: Visits
    calls: Calls

    @property
    def things(self) -> np.ndarray:
        """A number for each id: int (n,)."""
        begins = np.ones(len(self.ids), bool)
        begins[1:] = pc.not_equal(self.ids[1:], self.ids[:-1]).to_numpy(zero_copy_only=False)
        return np.cumsum(begins)

    def excluded(self, named: np.ndarray, others: np.ndarray) -> Pairs:
        """Return the excluded pairs of a row that asks and a resident, whichever excludes the other.

        named, others : int64 (n_pairs,), hashes of both ends of pairs
        """
        residents, asking = np.flatnonzero(self.home >= 0), np.flatnonzero(self.home < 0)
        ends = [(residents[:0], asking[:0])]
        for some, among in ((residents, asking), (asking, residents)):
            if len(some) and len(among):
                found = excluded_by(self.hashes[some], named, others).among(self.hashes[among])
                ends.append((some[found.row], among[found.other]))
        row, other = (np.concatenate(part) for part in zip(*ends, strict=True))
        return pairs_of(row, other, len(self.ids), len(self.ids))


def _gather(
    part: SavedPart, told: pa.Table, asking: pa.Table, replaced: np.ndarray, wire: Wire, coordinates: Coordinates
) -> _Met:
    """Return the rows that ask and the residents that they may meet in a part.

    told     : hashes and bars of rows
    asking   : as ship_vectors returns it, routed by route_changed
    replaced : int64 (n,), ascending, hashes of residents that keep no neighbors, as they ask
    """
    assert part.visitors is not None
    n_visits, visits = numbers(asking[N_VISITS], np.int32), numbers(asking[VISITS], np.int32)
    n_asking, goes, target = len(n_visits), visits >= 0, -3 - visits
    ids, hashes, pieces = read_pieces(part.path, wire.dim, sparse=wire.sparse)
    visitors = read_visitors(part.visitors)
    owner = np.repeat(np.arange(n_asking), n_visits)
    calling = visitors.leaf[np.isin(visitors.visited, target[~goes])]
    row = np.flatnonzero(np.isin(part.leaf, np.concatenate([visits[goes], calling])))
    ids = pa.concat_arrays([ids.take(pa.array(row)), elements(asking[IDS]).cast(ids.type)])
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    at = np.empty(len(order), np.int64)
    at[order] = np.arange(len(order))
    owner = at[len(row) + owner]
    bars = _bars_of(hashes[row], told, replaced, coordinates)
    bit = np.concatenate([visitors.place[row], np.zeros(n_asking, np.int32)])
    starts = np.cumsum([0, *(len_of(piece) for piece in pieces)])
    cuts = np.searchsorted(row, starts)
    residents = (
        coordinates.for_join(take_rows(piece, row[a:b] - start))
        for piece, start, a, b in zip(pieces, starts[:-1], cuts[:-1], cuts[1:], strict=True)
    )
    return _Met(
        ids=ids.take(pa.array(order)),
        hashes=np.concatenate([hashes[row], numbers(asking[HASHES], np.int64)])[order],
        vectors=merged_rows(residents, np.arange(len(row)), wire.read(asking), order),
        home=np.concatenate([part.leaf[row], np.full(n_asking, -1, np.int32)])[order],
        bars=np.concatenate([bars, np.full(n_asking, np.inf, np.float32)])[order],
        visits=Visits(owner[goes], visits[goes]),
        calls=Calls(owner[~goes], target[~goes], visitors, bit[order]),
    )


def _bars_of(hashes: np.ndarray, told: pa.Table, replaced: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """Return the raw distance up to which each resident keeps neighbors: float32 (n,); NO_BAR for one that asks."""
    known, distances = numbers(told[HASHES], np.int64), numbers(told[BARS], np.float32)
    raw = np.full(len(hashes), np.inf, np.float32)
    if len(known):
        order = np.argsort(known, kind="stable")
        at = np.searchsorted(known[order], hashes).clip(max=len(known) - 1)
        exact = coordinates.facts.to_raw(coordinates.in_join_units(distances[order][at]))
        raw = np.where(known[order][at] == hashes, exact + np.abs(exact) * _SLACK, raw)
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
