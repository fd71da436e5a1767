"""Few: the first rows of all, picked and met by everybody, or by those who want them, in one pass over all vectors."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.first_rows import count_first_rows, nearest_first_rows, ordering_lengths
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, concatenate_rows, len_of, take_rows
from annspark.flow.read import Users
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, collect, elements, numbers, to_binary, to_lists
from annspark.spark.block import block_lists, id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import COUNTS, DISTANCES, HASHES, IDS, NEIGHBOR_IDS, TARGET


@dataclass(frozen=True)
class Few:
    """Some users on the driver, in the order of their ids: ids; int64 (n,) hashes; vectors as they came."""

    ids: pa.Array
    hashes: np.ndarray
    vectors: Vectors


def list_schema(users: Users) -> T.StructType:
    """Return the columns of lists to be merged: target, ids, neighbor_ids, distances, counts."""
    user = id_type(users.table)
    return T.StructType(
        [
            T.StructField(TARGET, T.IntegerType()),
            T.StructField(IDS, T.ArrayType(user)),
            T.StructField(NEIGHBOR_IDS, T.ArrayType(user)),
            *(T.StructField(name, T.BinaryType()) for name in (DISTANCES, COUNTS)),
        ]
    )


def pick_few(users: Users, k: int) -> Few:
    """Return the first users, the shortest where lengths tell, ties by id: what each partition has, and then of all."""
    names = [IDS, HASHES, *users.wire.names]
    blocks = users.table.select(*names)
    pick = _picker(count_first_rows(k), users.coordinates.metric, users.wire)
    found = collect(blocks.mapInArrow(pick, blocks.schema).repartition(1).mapInArrow(pick, blocks.schema))
    ids = elements(found[IDS])
    order = pc.sort_indices(ids).to_numpy()
    vectors = take_rows(users.wire.read(found), order)
    return Few(ids.take(pa.array(order)), numbers(found[HASHES], np.int64)[order], vectors)


def _picker(count: int, metric: str, wire: Wire) -> Mapper:
    def pick(batches: Batches) -> Batches:
        best: tuple[pa.Array, np.ndarray, Vectors] | None = None
        for batch in batches:
            some = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            if best is not None:
                pair = list(zip(best, some, strict=True))
                some = pa.concat_arrays(pair[0]), np.concatenate(pair[1]), concatenate_rows(list(pair[2]))
            ids, hashes, vectors = some
            sized = pa.table({"size": ordering_lengths(vectors, metric), "id": ids, "row": np.arange(len(ids))})
            row = sized.sort_by([("size", "ascending"), ("id", "ascending")])["row"].to_numpy()[:count]
            best = ids.take(pa.array(row)), hashes[row], take_rows(vectors, row)
        if best is not None and len(best[0]):
            once = np.array([len(best[0])])
            columns = [to_lists(best[0], once), to_binary(best[1], once), *wire.write(best[2], once)]
            yield pa.RecordBatch.from_arrays(columns, [IDS, HASHES, *wire.names])

    return pick


def meet_few(users: Users, few: Few, wanted: np.ndarray | None, merge_in: int, k: int) -> DataFrame:
    """Return the nearest of a few for all users or some, as candidates to be merged.

    wanted   : int64 (n,), hashes of those who want them, None for all
    merge_in : partitions the lists will be merged in
    """
    keys = partition_keys(merge_in)
    wanted = None if wanted is None else np.sort(wanted)
    blocks = users.table.select(IDS, HASHES, *users.wire.names)
    return blocks.mapInArrow(_meeter(few, wanted, keys, users.wire, users.coordinates, k), list_schema(users))


def _meeter(
    few: Few, wanted: np.ndarray | None, keys: np.ndarray, wire: Wire, coordinates: Coordinates, k: int
) -> Mapper:
    their_vectors = coordinates.joined(few.vectors)

    def meet(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes, vectors = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            if wanted is not None:
                at = np.searchsorted(wanted, hashes).clip(max=max(0, len(wanted) - 1))
                row = np.flatnonzero(wanted[at] == hashes) if len(wanted) else at[:0]
                ids, hashes, vectors = ids.take(pa.array(row)), hashes[row], take_rows(vectors, row)
            order = np.argsort(slot_of(hashes, len(keys)), kind="stable")
            for start in range(0, len_of(vectors), OUT_ROWS):
                row = order[start : start + OUT_ROWS]
                mine = ids.take(pa.array(row))
                theirs = few.ids.cast(mine.type)  # what the driver collected may be of a narrower type
                own = pc.fill_null(pc.index_in(mine, theirs), -1).to_numpy()
                my_vectors = coordinates.joined(take_rows(vectors, row))
                neighbors, distances = nearest_first_rows(my_vectors, their_vectors, own, k, coordinates.metric)
                neighbors = np.where(neighbors >= 0, neighbors + len(row), -1)
                everybody = pa.concat_arrays([mine, theirs])
                slot = slot_of(hashes[row], len(keys))
                lists = block_lists(
                    slot, keys, everybody, np.arange(len(row)), neighbors, coordinates.published(distances)
                )
                yield pa.RecordBatch.from_arrays(lists, [TARGET, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS])

    return meet
