"""Changes: which rows are new, changed or gone since an index was made, and whose lists are to be made anew."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import are_in, distinct
from annspark.core.contents import contents_of
from annspark.core.sampling import slot_of
from annspark.core.vectors import take_rows
from annspark.flow.exclude import digests_of
from annspark.flow.read import Users
from annspark.index_rows import contents_with, digests_in, one_row_each
from annspark.saved.kept import Gone, read_digests, read_rows
from annspark.saved.manifest import Manifest
from annspark.spark.arrow import Batches, Mapper, collect, elements, numbers, to_binary, to_lists
from annspark.spark.block import block_numbers, block_users, blocks_holding, id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.staging import Store
from annspark.spark.wire import Wire
from annspark.tables import BARS, CONTENTS, HASHES, IDS, LOWEST, PARTITION_KEY

_ADDED, _AGAIN, _GONE, _SHORT = "added", "again", "gone", "short"
_CANDIDATES = "candidates"


@dataclass(frozen=True)
class Changes:
    """What has changed since an index was made.

    gone  : rows of the index that are not there any more, or are among those added
    added : int64 (n,), ascending, hashes of the ids of rows that are new, or have other vectors now, or may be
            neighbors now and might not before, or the other way round
    again : int64 (n,), ascending, hashes of other rows whose lists are made anew: of their neighbors so many are gone
            that the next are not known, or they do not exclude the same others any more
    bars  : up to which distance the lists of other rows are known, staged: partition_key (of the part of a home of
            theirs), hashes, bars (binary float32); no rows where only some rows may be neighbors
    """

    gone: Gone
    added: np.ndarray
    again: np.ndarray
    bars: DataFrame

    @property
    def asking(self) -> np.ndarray:
        """Hashes of the rows that are joined: int64 (n,), ascending."""
        return distinct(np.concatenate([self.added, self.again]))

    @property
    def replaced(self) -> np.ndarray:
        """Hashes of all rows that have no list of last night that is still used: int64 (n,), ascending."""
        return distinct(np.concatenate([self.gone.hashes, self.asking]))


@dataclass(frozen=True)
class Saved:
    """Where an index is, and what is there."""

    folder: str
    manifest: Manifest

    @property
    def slots(self) -> list[str]:
        """The files of its rows and their neighbors, slot by slot."""
        return [f"{self.folder}/{name}" for name in self.manifest.slots]


def find_changes(users: Users, old: Saved, stage: Store, candidates: Users | None = None) -> Changes:
    """Compare tonight's rows with those of an index, by hashes of their ids, of their vectors and of excluded pairs.

    stage      : computes and stores an intermediate table
    candidates : those of the users who may be neighbors, where these are not all; a row that is one of them tonight and
                 was not before, or the other way round, has changed
    """
    spark, paths, manifest = users.table.sparkSession, old.slots, old.manifest
    keys, kind = partition_keys(len(paths)), id_type(users.table)
    told = _contents_in(users, keys, CONTENTS).unionByName(one_row_each(spark, keys), allowMissingColumns=True)
    if candidates is not None:
        told = told.unionByName(_contents_in(candidates, keys, _CANDIDATES), allowMissingColumns=True)
    if (digests := digests_of(users, keys)) is not None:
        told = told.unionByName(digests, allowMissingColumns=True)
    schema = T.StructType(
        [
            T.StructField(IDS, T.ArrayType(kind)),
            *(T.StructField(name, T.BinaryType()) for name in (_GONE, _ADDED, _AGAIN)),
        ]
    )
    found = collect(told.repartition(len(paths), PARTITION_KEY).mapInArrow(_compare_mapper(paths, keys), schema))
    gone = Gone(elements(found[IDS]), np.sort(numbers(found[_GONE], np.int64)))
    added, again = (np.sort(numbers(found[name], np.int64)) for name in (_ADDED, _AGAIN))
    mapper = _left_mapper(paths, gone, manifest, tell_bars=candidates is None)
    columns = f"{PARTITION_KEY} int, {HASHES} binary, {BARS} binary, {_SHORT} binary"
    left = stage(spark.range(0, len(paths), 1, len(paths)).mapInArrow(mapper, columns))
    if len(gone.hashes):
        short = numbers(collect(left.where(F.col(_SHORT).isNotNull()).select(_SHORT))[_SHORT], np.int64)
        again = distinct(np.concatenate([again, short]))
    return Changes(gone=gone, added=added, again=again, bars=left.where(F.col(BARS).isNotNull()).drop(_SHORT))


def _contents_in(users: Users, keys: np.ndarray, name: str) -> DataFrame:
    """Return the hashes of all ids and vectors in blocks: partition_key (of the slot), hashes, and a column `name`."""
    mapper = _contents_mapper(keys, users.wire, name)
    schema = f"{PARTITION_KEY} int, {HASHES} binary, {name} binary"
    known = [CONTENTS] if CONTENTS in users.table.columns else users.wire.names
    return users.table.select(HASHES, *known).mapInArrow(mapper, schema)


def _contents_mapper(keys: np.ndarray, wire: Wire, name: str) -> Mapper:
    def tell(batches: Batches) -> Batches:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            known = CONTENTS in batch.schema.names
            contents = numbers(batch[CONTENTS], np.int64) if known else contents_of(wire.read(batch))
            columns = block_numbers(slot_of(hashes, len(keys)), keys, hashes, contents)
            yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, HASHES, name])

    return tell


def _compare_mapper(paths: list[str], keys: np.ndarray) -> Mapper:
    slot_of_key = {int(key): slot for slot, key in enumerate(keys)}

    def compare(batches: Batches) -> Batches:
        shipped = pa.Table.from_batches([batch for batch in batches if batch.num_rows])
        slot = slot_of_key[shipped[PARTITION_KEY][0].as_py()]
        told = shipped.filter(shipped[CONTENTS].is_valid())
        hashes, contents = numbers(told[HASHES], np.int64), numbers(told[CONTENTS], np.int64)
        if _CANDIDATES in shipped.schema.names:
            may = shipped.filter(shipped[_CANDIDATES].is_valid())
            theirs = numbers(may[HASHES], np.int64), numbers(may[_CANDIDATES], np.int64)
            contents = contents_with(contents, hashes, *theirs)
        rows = read_rows(paths[slot])
        changed = _changed(rows.hashes, rows.contents, hashes, contents)
        digests = digests_in(shipped, rows.hashes)
        exclude_others = read_digests(paths[slot]) != (0 if digests is None else digests)
        again = rows.hashes[exclude_others & ~are_in(rows.hashes, changed)]
        gone, added = np.flatnonzero(are_in(rows.hashes, changed)), hashes[are_in(hashes, changed)]
        columns = [to_lists(rows.ids.take(pa.array(gone)), np.array([len(gone)]))]
        columns += [to_binary(part, np.array([len(part)])) for part in (rows.hashes[gone], added, again)]
        yield pa.RecordBatch.from_arrays(columns, [IDS, _GONE, _ADDED, _AGAIN])

    return compare


def _changed(before: np.ndarray, contents: np.ndarray, tonight: np.ndarray, new_contents: np.ndarray) -> np.ndarray:
    """Return the hashes of ids that are on one side only, or have other contents there: int64 (n,), ascending.

    Rows whose ids have one hash are taken for one, which has changed.

    before, tonight : int64, hashes of ids, those of before ascending
    """
    twice = [some[1:][some[1:] == some[:-1]] for some in (before, np.sort(tonight))]
    at = np.searchsorted(before, tonight).clip(max=max(0, len(before) - 1))
    same = np.zeros(len(tonight), bool)
    if len(before):
        same = (before[at] == tonight) & (contents[at] == new_contents)
    lost = np.ones(len(before), bool)
    lost[at[same]] = False
    return distinct(np.concatenate([tonight[~same], before[lost], *twice]))


def _left_mapper(paths: list[str], gone: Gone, manifest: Manifest, *, tell_bars: bool) -> Mapper:
    """Return the function that yields what is left of the lists of a slot without the neighbors that are gone.

    tell_bars : whether it yields bars, and not only the rows whose lists have become too short
    """
    keys, part_of_leaf, k = partition_keys(len(manifest.parts)), manifest.part_of_leaf, manifest.settings["k"]
    names = [PARTITION_KEY, HASHES, BARS, _SHORT]

    def find(batches: Batches) -> Batches:
        for batch in batches:
            for slot in batch.column(0).to_pylist():
                rows = read_rows(paths[slot]).without(gone)
                are_short, bars = rows.are_short(k), rows.farthest()
                short = rows.hashes[are_short]
                none = pa.nulls(1, pa.int32()), pa.nulls(1, pa.binary()), pa.nulls(1, pa.binary())
                yield pa.RecordBatch.from_arrays([*none, to_binary(short, np.array([len(short)]))], names)
                for homes in rows.homes.T if tell_bars else ():
                    row = np.flatnonzero(~are_short & (homes >= 0))
                    columns = block_numbers(part_of_leaf[homes[row]], keys, rows.hashes[row], bars[row])
                    yield pa.RecordBatch.from_arrays([*columns, pa.nulls(len(columns[0]), pa.binary())], names)

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
    blocks = blocks_holding(users.table.select(*columns), wanted, users.rows)
    return blocks.mapInArrow(pick, blocks.schema)
