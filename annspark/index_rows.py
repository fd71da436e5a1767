"""The lists that an index keeps: which rows it has, and the nearest of those each was compared with, slot by slot.

A slot is the rows whose ids have hashes of one remainder.  So the lists of a row that come from several partitions meet
in one task, as in a merge, and last night's lists are read there from a file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from annspark.core.arrays import are_in, distinct, looked_up, order_of, ranges
from annspark.core.contents import contents_of
from annspark.core.packing import EMPTY, merge_lists, pack, unpack
from annspark.core.sampling import slot_of
from annspark.errors import AnnsparkError
from annspark.flow.exclude import digests_of
from annspark.flow.merge import table_as_candidates
from annspark.flow.read import Users
from annspark.output.layout import Layout
from annspark.saved.kept import Gone, KeptRows, read_rows, write_rows
from annspark.saved.manifest import ROWS, Manifest, SavedFile
from annspark.saved.parts import read_part
from annspark.spark import files
from annspark.spark.arrow import (
    OUT_ROWS,
    Batches,
    Mapper,
    collect,
    elements,
    numbers,
    ranks_of_ids,
    to_binary,
    to_lists,
)
from annspark.spark.block import block_lengths, id_type
from annspark.spark.cluster import partition_keys
from annspark.tables import (
    CONTENTS,
    COUNTS,
    DIGESTS,
    DISTANCE,
    DISTANCES,
    HASHES,
    HOMES,
    IDS,
    NEIGHBOR_ID,
    NEIGHBOR_IDS,
    NEIGHBORS,
    PARTITION_KEY,
    USER_ID,
)
from annspark.tuned import Kept

CANNOT = "an executor cannot write there"  # begins the message of a task
_LISTS = Layout(USER_ID, long=False, value=DISTANCE)  # of merged lists
_TOLD = "slot int, file string, rows long, bytes long"


@dataclass(frozen=True)
class Before:
    """The lists of last night.

    paths : their files, slot by slot
    gone  : what is gone of them
    again : int64 (n,), ascending, hashes of the other rows whose lists are made anew
    """

    paths: list[str]
    gone: Gone
    again: np.ndarray


@contextmanager
def cannot_write() -> Iterator[None]:
    """Turn an error of writing into one that says so, without the path, which is of a folder nobody has heard of."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{CANNOT}: {os.strerror(error.errno) if error.errno else error}") from error


def write_lists(kept: Kept, manifest: Manifest, folder: str, n_slots: int) -> list[SavedFile]:
    """Write the lists of a join of all rows beside the parts of an index, and return the files."""
    assert kept.lists is not None
    assert kept.users is not None
    users, spark = kept.users, kept.users.table.sparkSession
    candidates = table_as_candidates(kept.lists, _LISTS, users, n_slots, manifest.settings["seed"])
    facts, digests = read_facts(spark, folder, manifest, users, n_slots), digests_of(users, partition_keys(n_slots))
    if manifest.settings["candidate_col"]:
        facts = facts.unionByName(facts_of_asking(users.table, users, n_slots))
    return write_slots(spark, candidates, facts, digests, folder, manifest, n_slots, manifest.settings["k"], None)


def read_facts(spark: SparkSession, folder: str, manifest: Manifest, users: Users, n_slots: int) -> DataFrame:
    """Return what is known of all rows of an index from its parts, in blocks, a row for each tree with a home of it.

    manifest : of the parts
    users    : the rows, of which the type of ids is taken
    returns  : partition_key (of the slot), ids, hashes, contents (0 in trees after the first), homes
    """
    n_joined = sum(manifest.forest.sizes[: len(manifest.join_reach)])
    names = manifest.parts[: int(manifest.part_of_leaf[n_joined - 1]) + 1]
    leaves = [np.flatnonzero(manifest.part_of_leaf == number) for number in range(len(names))]
    rows = [manifest.leaf_rows[some] for some in leaves]
    wire, first_tree, keys = users.wire, manifest.forest.sizes[0], partition_keys(n_slots)

    def read(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                ids, hashes, vectors = read_part(f"{folder}/{names[number]}", wire.dim, sparse=wire.sparse)
                leaf = np.repeat(leaves[number], rows[number]).astype(np.int32)
                contents = contents_of(vectors) if leaf[0] < first_tree else np.zeros(len(leaf), np.int64)
                yield block_facts(ids, hashes, contents, leaf, keys)

    return spark.range(0, len(names), 1, len(names)).mapInArrow(read, facts_schema(users))


def facts_of_asking(blocks: DataFrame, users: Users, n_slots: int) -> DataFrame:
    """Return what is known of rows that ask, as read_facts does, with -1 for the home of each.

    blocks : of the rows
    users  : whom they are of
    """
    wire, keys = users.wire, partition_keys(n_slots)

    def tell(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes, vectors = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            yield block_facts(ids, hashes, contents_of(vectors), np.full(len(ids), -1, np.int32), keys)

    return blocks.select(IDS, HASHES, *wire.names).mapInArrow(tell, facts_schema(users))


def facts_schema(users: Users) -> T.StructType:
    """Return the columns of read_facts."""
    return T.StructType(
        [
            T.StructField(PARTITION_KEY, T.IntegerType()),
            T.StructField(IDS, T.ArrayType(id_type(users.table))),
            *(T.StructField(name, T.BinaryType()) for name in (HASHES, CONTENTS, HOMES)),
        ]
    )


def block_facts(
    ids: pa.Array, hashes: np.ndarray, contents: np.ndarray, homes: np.ndarray, keys: np.ndarray
) -> pa.RecordBatch:
    """Return what is known of rows in blocks, in the columns of read_facts.

    keys : int32, the targets of the slots
    """
    slot = slot_of(hashes, len(keys))
    order = order_of(slot, len(keys))
    first, lengths = block_lengths(slot[order], 28)
    columns = [
        pa.array(keys[slot[order][first]]),
        to_lists(ids.take(pa.array(order)), lengths),
        *(to_binary(part[order], lengths) for part in (hashes, contents, homes)),
    ]
    return pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, IDS, HASHES, CONTENTS, HOMES])


def write_slots(
    spark: SparkSession,
    candidates: DataFrame,
    facts: DataFrame,
    digests: DataFrame | None,
    folder: str,
    manifest: Manifest,
    n_slots: int,
    k: int,
    before: Before | None,
) -> list[SavedFile]:
    """Merge last night's lists with candidates, write them, and return the files.

    candidates : lists of rows that were joined, and neighbors for the lists of others, as for merge_neighbors
    facts      : of rows that are new or changed
    digests    : of what all rows exclude, as digests_of returns them
    before     : last night's lists; None where there are none
    """
    keys = partition_keys(n_slots)
    first_leaf = np.cumsum([0, *manifest.forest.sizes])[: len(manifest.join_reach) + 1]
    width = manifest.join.width if manifest.join else k
    mapper = _slot_mapper(folder, keys, first_leaf, k, width, before)
    together = candidates.select(PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS)
    together = together.unionByName(facts, allowMissingColumns=True)
    if digests is not None:
        together = together.unionByName(digests, allowMissingColumns=True)
    together = together.unionByName(one_row_each(spark, keys), allowMissingColumns=True)
    told = collect(together.repartition(n_slots, PARTITION_KEY).mapInArrow(mapper, _TOLD)).sort_by("slot")
    return [SavedFile(name=one["file"], rows=one["rows"], bytes=one["bytes"]) for one in told.to_pylist()]


def one_row_each(spark: SparkSession, keys: np.ndarray) -> DataFrame:
    """Return a row with each key, so that every partition has a row, and a task."""

    def name(batches: Batches) -> Batches:
        for batch in batches:
            yield pa.RecordBatch.from_arrays([pa.array(keys[batch.column(0).to_numpy()])], [PARTITION_KEY])

    return spark.range(0, len(keys), 1, 1).mapInArrow(name, f"{PARTITION_KEY} int")


def _slot_mapper(
    folder: str,
    keys: np.ndarray,
    first_leaf: np.ndarray,
    k: int,
    width: int,
    before: Before | None,
) -> Mapper:
    number_of = {int(key): slot for slot, key in enumerate(keys)}

    def write(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        slot = number_of[shipped[PARTITION_KEY][0].as_py()]
        told = shipped.filter(shipped[CONTENTS].is_valid())
        lists = shipped.filter(shipped[COUNTS].is_valid())
        rows = _new_rows(told, first_leaf)
        if before is not None:
            rows = _with_old(read_rows(before.paths[slot]).without(before.gone), rows, before.again)
        rows = merged(rows, lists, width)
        if rows.are_short(k).any():
            raise AnnsparkError("update: a list of neighbors is not known to its end. This is a defect of annspark.")
        rows = rows.take(np.argsort(rows.hashes, kind="stable"))
        name = f"{ROWS}{slot:05d}-{files.new_mark()}.arrow"
        with cannot_write():
            write_rows(f"{folder}/{name}", rows, digests_in(shipped, rows.hashes))
            n_bytes = files.size_of(f"{folder}/{name}")
        columns = [pa.array([slot], pa.int32()), pa.array([name]), pa.array([len(rows.ids)]), pa.array([n_bytes])]
        yield pa.RecordBatch.from_arrays(columns, ["slot", "file", "rows", "bytes"])

    return write


def _new_rows(told: pa.Table, first_leaf: np.ndarray) -> KeptRows:
    """Return rows that have no list yet.

    told : as read_facts returns it; where only some rows may be neighbors, also as facts_of_asking does
    """
    ids, trees = elements(told[IDS]), len(first_leaf) - 1
    hashes, contents, leaf = (
        numbers(told[name], kind) for name, kind in ((HASHES, np.int64), (CONTENTS, np.int64), (HOMES, np.int32))
    )
    tree = np.searchsorted(first_leaf, leaf, side="right") - 1
    asks, at_home = tree < 0, tree == 0
    own = np.flatnonzero(asks if asks.any() else at_home)
    own_contents = contents[own]
    if asks.any():
        own_contents = contents_with(own_contents, hashes[own], hashes[at_home], contents[at_home])
    homes = np.full((len(own), trees), -1, np.int32)
    order = np.argsort(hashes[own], kind="stable")
    for number in range(trees):
        here = np.flatnonzero(tree == number)
        homes[order[np.searchsorted(hashes[own][order], hashes[here])], number] = leaf[here]
    n = len(own)
    return KeptRows(
        ids=ids.take(pa.array(own)),
        hashes=hashes[own],
        contents=own_contents,
        homes=homes,
        neighbor_ids=ids.slice(0, 0),
        distances=np.empty(0, np.float32),
        first=np.zeros(n, np.int64),
        counts=np.zeros(n, np.int64),
        whole=np.ones(n, bool),
    )


def contents_with(contents: np.ndarray, hashes: np.ndarray, named: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the contents of all rows, so that they also tell which of the rows may be neighbors: int64 (n,).

    Without that, nobody would notice a row that may be a neighbor tonight and might not before.

    contents, hashes : int64 (n,), of the vectors and ids of all rows
    named            : int64 (m,), hashes of the ids of rows that may be neighbors
    theirs           : int64 (m,), contents of these
    """
    return contents + looked_up(hashes, named, 2 * theirs + 1)  # what is added is odd, and so never 0


def digests_in(shipped: pa.Table, hashes: np.ndarray) -> np.ndarray | None:
    """Return the digests of what rows exclude: int64 (n,), 0 where they exclude nobody; None without excluded pairs.

    shipped : perhaps with what digests_of returns
    hashes  : int64 (n,), of the rows
    """
    if DIGESTS not in shipped.schema.names:
        return None
    told = shipped.filter(shipped[DIGESTS].is_valid())
    return looked_up(hashes, numbers(told[HASHES], np.int64), numbers(told[DIGESTS], np.int64))


def _with_old(old: KeptRows, new: KeptRows, again: np.ndarray) -> KeptRows:
    """Return both; an old row that is joined anew has an empty list.

    new   : rows without lists
    again : int64 (n,), ascending, hashes of the rows that are joined anew
    """
    anew = are_in(old.hashes, again)
    return KeptRows(
        ids=pa.concat_arrays([old.ids, new.ids.cast(old.ids.type)]),
        hashes=np.concatenate([old.hashes, new.hashes]),
        contents=np.concatenate([old.contents, new.contents]),
        homes=np.concatenate([old.homes, new.homes]),
        neighbor_ids=old.neighbor_ids,
        distances=old.distances,
        first=np.concatenate([old.first, new.first]),
        counts=np.concatenate([np.where(anew, 0, old.counts), new.counts]),
        whole=np.concatenate([old.whole | anew, new.whole]),
    )


def merged(rows: KeptRows, lists: pa.Table, width: int) -> KeptRows:
    """Return rows whose lists have taken in candidates.

    A list that is not whole takes none that is behind its last neighbor, since others there are not known.

    rows  : a row without a list yet has an empty one that is whole
    lists : ids, neighbor_ids, distances, counts
    width : neighbors that a list has room for
    """
    if len(lists) == 0:
        return rows
    id_kind = rows.ids.type
    found_ids, found = elements(lists[NEIGHBOR_IDS]).cast(id_kind), numbers(lists[DISTANCES], np.float32)
    counts = numbers(lists[COUNTS], np.int32).astype(np.int64)
    owner = pc.index_in(elements(lists[IDS]).cast(id_kind), rows.ids).to_numpy(zero_copy_only=False).astype(np.int64)
    touched = distinct(owner)
    own = rows.take(touched)
    n_found = len(counts)
    counts = np.concatenate([counts, own.counts])
    neighbors, (rank,) = ranks_of_ids(pa.concat_arrays([found_ids, own.neighbor_ids]))
    packed = np.full((len(counts), max(width, int(counts.max(initial=0)))), EMPTY)
    packed[np.arange(packed.shape[1]) < counts[:, None]] = pack(np.concatenate([found, own.distances]), rank)
    # Up to here the lists of the touched rows are known.
    last = np.where(own.whole, EMPTY, packed[n_found + np.arange(len(touched)), (own.counts - 1).clip(min=0)])
    place = np.concatenate([np.searchsorted(touched, owner), np.arange(len(touched))])
    packed = np.where(packed <= last[place][:, None], packed, EMPTY)
    _, best = merge_lists(place, packed, width)
    distances, ranks = unpack(best)
    exists = ranks >= 0
    new = exists.sum(axis=1).astype(np.int64)
    # A full list may have left some out, and so may those of the partitions that it is merged from.
    whole = own.whole & (new < width)
    all_whole = rows.whole.copy()
    all_whole[touched] = whole
    rows = rows.with_lists(touched, neighbors.take(pa.array(ranks[exists])), distances[exists], new)
    return replace(rows, whole=all_whole)


def read_lists(spark: SparkSession, folder: str, manifest: Manifest, kind: T.DataType, k: int) -> DataFrame:
    """Return user_id and the first k neighbors of every row of an index.

    kind : type of the ids
    """
    paths = [f"{folder}/{name}" for name in manifest.slots]

    def read(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                rows = read_rows(paths[number])
                for start in range(0, len(rows.ids), OUT_ROWS):
                    yield _first_of(rows, start, k)

    neighbor = T.StructType([T.StructField(NEIGHBOR_ID, kind), T.StructField(DISTANCE, T.FloatType())])
    schema = T.StructType([T.StructField(USER_ID, kind), T.StructField(NEIGHBORS, T.ArrayType(neighbor))])
    return spark.range(0, len(paths), 1, len(paths)).mapInArrow(read, schema)


def _first_of(rows: KeptRows, start: int, k: int) -> pa.RecordBatch:
    """Return the first k neighbors of some rows, from `start` on, as a batch of user_id and neighbors."""
    end = min(start + OUT_ROWS, len(rows.ids))
    kept = np.minimum(rows.counts[start:end], k)
    at = ranges(rows.first[start:end], kept)
    pairs = [rows.neighbor_ids.take(pa.array(at)), pa.array(rows.distances[at])]
    lists = to_lists(pa.StructArray.from_arrays(pairs, [NEIGHBOR_ID, DISTANCE]), kept)
    return pa.RecordBatch.from_arrays([rows.ids.slice(start, end - start), lists], [USER_ID, NEIGHBORS])
