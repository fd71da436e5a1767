"""Refine: the exact distances of candidates that were found among rounded vectors.

Candidates are merged where the neighbors of each other are at home together, so that the vectors that are wanted there
are few, and each travels there once.  Three shuffles: all vectors, and requests for them, to where a hash of the id
says; the vectors wanted, and the lists, to where the lists were merged; the refined lists to the last merge.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.draw import slot_of
from annspark.core.metric import METRICS
from annspark.core.plan import count_kept
from annspark.core.rows import take_rows
from annspark.core.score import measure_for
from annspark.core.topk import EMPTY, pack, unpack
from annspark.flow.arrow import OUT_ROWS, elements, numbers, to_binary, to_lists
from annspark.flow.block import block_lengths, block_lists, id_type, seeded_hash
from annspark.flow.cluster import partition_keys
from annspark.flow.merge import merge_candidates
from annspark.flow.meter import Meter, watch_answered, watch_asked
from annspark.flow.read import Users
from annspark.flow.stage import Stage
from annspark.flow.wire import Wire, row_bytes
from annspark.tables import COUNTS, DISTANCES, HASHES, IDS, NEIGHBOR_IDS, TARGET, WANTED_BY

_ID_BYTES = 16  # about what an id brings to a block
_SLICE_BYTES = 4 << 20  # vectors of one outgoing batch

_Step = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def refine_candidates(
    candidates: DataFrame, near_in: int, merge_in: int, users: Users, settings: Settings, stage: Stage, meter: Meter
) -> DataFrame:
    """Return every user's k nearest of the candidates, at exact distances, as candidates to be merged.

    candidates : target, ids, neighbor_ids, distances, counts; all lists of a user have one target
    near_in    : targets there are
    merge_in   : partitions the lists will be merged in
    returns    : target, ids, neighbor_ids, distances, counts; one list a user
    """
    user, wire = id_type(users.table), users.wire
    target, ids = T.StructField(TARGET, T.IntegerType()), T.StructField(IDS, T.ArrayType(user))
    hashes, counts = (T.StructField(name, T.BinaryType()) for name in (HASHES, COUNTS))
    neighbors, wanted_by = T.StructField(NEIGHBOR_IDS, T.ArrayType(user)), T.StructField(WANTED_BY, T.IntegerType())
    keys = partition_keys(near_in)

    together = candidates.select(TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS).repartition(near_in, TARGET)
    merged = together.mapInArrow(
        _merger(count_kept(settings.k, half=True)), T.StructType([target, ids, neighbors, counts])
    )
    # Read twice: for whom the lists want, and for the lists.
    merged = stage(merged)
    hashed = F.transform(IDS, lambda one: seeded_hash(one, settings.seed))
    wanted = merged.where(F.col(COUNTS).isNull()).select(TARGET, IDS, hashed.alias(HASHES))
    asked = wanted.mapInArrow(_asker(keys), T.StructType([target, ids, wanted_by]))
    held = users.table.select(IDS, HASHES, *wire.names)
    held = held.mapInArrow(_holder(keys, wire), T.StructType([target, ids, hashes, *wire.fields]))
    both = watch_asked(held.unionByName(asked, allowMissingColumns=True), wire, meter)
    told = both.repartition(near_in, TARGET).mapInArrow(
        _teller(wire), T.StructType([target, ids, hashes, *wire.fields])
    )
    lists = merged.where(F.col(COUNTS).isNotNull())
    both = watch_answered(told.unionByName(lists, allowMissingColumns=True), wire, meter)
    distances = T.StructField(DISTANCES, T.BinaryType())
    return both.repartition(near_in, TARGET).mapInArrow(
        _refiner(partition_keys(merge_in), wire, settings.k, settings.metric),
        T.StructType([target, ids, neighbors, distances, counts]),
    )


def _merger(k: int) -> _Step:
    """Merge candidates; their distances have served.  Rows without counts tell whose vectors a partition wants."""

    def merge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        target = received[0].column(0).to_numpy()[:1]
        lists = pa.Table.from_batches(received)
        counts, distances = numbers(lists[COUNTS], np.int32), numbers(lists[DISTANCES], np.float32)
        ids, owners, best = merge_candidates(elements(lists[IDS]), elements(lists[NEIGHBOR_IDS]), counts, distances, k)
        del received
        names, here = [TARGET, IDS, NEIGHBOR_IDS, COUNTS], np.zeros(OUT_ROWS, np.int64)
        wanted = [owners]
        for start in range(0, len(owners), OUT_ROWS):
            some = owners[start : start + OUT_ROWS]
            distances, near = unpack(best[start : start + OUT_ROWS])
            wanted.append(near[near >= 0])
            block, users, neighbors, _, counts = block_lists(here[: len(some)], target, ids, some, near, distances)
            yield pa.RecordBatch.from_arrays([block, users, neighbors, counts], names)
        rows = np.unique(np.concatenate(wanted))
        first, lengths = block_lengths(np.zeros(len(rows), np.int64), _ID_BYTES)
        users = to_lists(ids.take(pa.array(rows)), lengths)
        nothing = [pa.nulls(len(first), users.type), pa.nulls(len(first), pa.binary())]
        yield pa.RecordBatch.from_arrays([pa.array(target.repeat(len(first))), users, *nothing], names)

    return merge


def _asker(keys: np.ndarray) -> _Step:
    """Send the ids of wanted vectors to where these are."""

    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids, slot = elements(batch.column(1)), slot_of(elements(batch.column(2)).to_numpy(), len(keys))
            wanted_by = np.repeat(batch.column(0).to_numpy(), pc.list_value_length(batch.column(1)).to_numpy())
            order = np.lexsort((slot, wanted_by))
            slot, wanted_by = slot[order], wanted_by[order]
            first, lengths = block_lengths(wanted_by.astype(np.int64) * len(keys) + slot, _ID_BYTES)
            columns = [pa.array(keys[slot[first]]), to_lists(ids.take(pa.array(order)), lengths)]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(wanted_by[first])], [TARGET, IDS, WANTED_BY])

    return ask


def _holder(keys: np.ndarray, wire: Wire) -> _Step:
    """Send all vectors to where they will be asked for."""

    def hold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids, hashes, vectors = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            slot = slot_of(hashes, len(keys))
            order = np.argsort(slot, kind="stable")
            first, lengths = block_lengths(slot[order], row_bytes(vectors))
            columns = [
                pa.array(keys[slot[order[first]]]),
                to_lists(ids.take(pa.array(order)), lengths),
                to_binary(hashes[order], lengths),
                *wire.write(take_rows(vectors, order), lengths),
            ]
            yield pa.RecordBatch.from_arrays(columns, [TARGET, IDS, HASHES, *wire.names])

    return hold


def _teller(wire: Wire) -> _Step:
    """Send the vectors that are here to the partitions that want them."""

    def tell(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        both = pa.Table.from_batches(received)
        del received
        asked = both.filter(pc.is_valid(both[WANTED_BY]))
        if not asked.num_rows:
            return
        held = both.filter(pc.is_null(both[WANTED_BY]))
        del both
        ids, hashes, vectors = elements(held[IDS]), numbers(held[HASHES], np.int64), wire.read(held)
        del held
        row = _places(elements(asked[IDS]), ids)
        wanted_by = np.repeat(asked[WANTED_BY].to_numpy(), pc.list_value_length(asked[IDS]).to_numpy())
        order = np.argsort(wanted_by, kind="stable")
        each = row_bytes(vectors)
        step = max(1, _SLICE_BYTES // each)
        for start in range(0, len(order), step):
            some = order[start : start + step]
            first, lengths = block_lengths(wanted_by[some], each)
            columns = [
                pa.array(wanted_by[some[first]]),
                to_lists(ids.take(pa.array(row[some])), lengths),
                to_binary(hashes[row[some]], lengths),
                *wire.write(take_rows(vectors, row[some]), lengths),
            ]
            yield pa.RecordBatch.from_arrays(columns, [TARGET, IDS, HASHES, *wire.names])

    return tell


def _refiner(keys: np.ndarray, wire: Wire, k: int, metric: str) -> _Step:
    def refine(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        both = pa.Table.from_batches(received)
        del received
        lists = both.filter(pc.is_valid(both[COUNTS]))
        told = both.filter(pc.is_null(both[COUNTS]))
        del both
        ids = elements(told[IDS])
        order = pc.sort_indices(ids)
        by_id, ids = order.to_numpy(), ids.take(order)
        hashes, vectors = numbers(told[HASHES], np.int64)[by_id], take_rows(wire.read(told), by_id)
        del told
        counts = numbers(lists[COUNTS], np.int32)
        owners = _places(elements(lists[IDS]), ids)
        near = np.full((len(owners), max(1, counts.max(initial=0))), -1, np.int64)
        near[np.arange(near.shape[1]) < counts[:, None]] = _places(elements(lists[NEIGHBOR_IDS]), ids)
        kernel, from_raw = measure_for(metric, vectors), METRICS[metric].from_raw
        slot = slot_of(hashes[owners], len(keys))
        by_slot = np.argsort(slot, kind="stable")
        for start in range(0, len(owners), OUT_ROWS):
            rows = by_slot[start : start + OUT_ROWS]
            met = near[rows] >= 0
            others = near[rows][met]
            raw = kernel.exact(vectors, np.repeat(owners[rows], counts[rows]), vectors, others)
            best = np.full(met.shape, EMPTY)
            best[met] = pack(from_raw(raw), others)
            best.sort(axis=1)
            distances, ranks = unpack(best[:, :k])
            yield pa.RecordBatch.from_arrays(
                block_lists(slot[rows], keys, ids, owners[rows], ranks, distances),
                [TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS],
            )

    return refine


def _places(wanted: pa.Array, ids: pa.Array) -> np.ndarray:
    """Return where each wanted id stands among ids: int (n,)."""
    places = pc.index_in(wanted, ids)
    if places.null_count:
        raise ValueError(f"refine: {places.null_count:,} vectors did not arrive; the input changed while it was read")
    return places.to_numpy().astype(np.int64)
