"""First rows: the rows that every user, or every user of a given set, is compared with, in one pass over all vectors.

They are the shortest vectors where length decides among unrelated sparse rows, as it does under euclidean, and else the
users with the smallest ids.  annspark.core.first_rows gives the reason.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.arrays import order_of, places_in_groups
from annspark.core.coordinates import Coordinates
from annspark.core.first_rows import count_first_rows, nearest_first_rows, ordering_lengths
from annspark.core.forest import Forest
from annspark.core.metric import METRICS
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, concatenate_rows, groups_of, len_of, take_rows
from annspark.flow.read import Users
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, collect, elements, numbers, to_binary, to_lists
from annspark.spark.block import block_lists, candidate_schema, id_type, read_excluded
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import COUNTS, DISTANCES, HASHES, IDS, LOWEST, NEIGHBOR_IDS, PARTITION_KEY


@dataclass(frozen=True)
class FirstRows:
    """The first rows, on the driver, in the order of their ids.

    hashes  : int64 (n,)
    vectors : as in the input, dense or sparse
    """

    ids: pa.Array
    hashes: np.ndarray
    vectors: Vectors


def pick_first_rows(users: Users, k: int) -> FirstRows | None:
    """Return the first rows: the shortest where length decides, else those with the smallest ids; ties go by id.

    Each partition picks its own first rows; one task then picks the first of those.  Of groups, each large one has its
    own.  None where all groups are small.
    """
    large = None if users.groups is None else np.array(sorted(users.groups.large), np.int64)
    if large is not None and len(large) == 0:
        return None
    names = [IDS, HASHES, *users.wire.names]
    blocks = users.table.select(*names)
    first_rows_of = _first_rows_mapper(count_first_rows(k), users.coordinates.metric, users.wire, large)
    found = collect(
        blocks.mapInArrow(first_rows_of, blocks.schema).repartition(1).mapInArrow(first_rows_of, blocks.schema)
    )
    return _first_rows_of(found, users.wire)


def pick_for_queries(users: Users, forest: Forest, k: int) -> FirstRows | None:
    """Return the users that every query is compared with, or None where there are none.

    They are the hubs, which are near to many whatever their leaf, and for sparse rows the first rows.
    """
    found = []
    if METRICS[users.coordinates.metric].largest:
        names = [IDS, HASHES, *users.wire.names]
        blocks = users.table.select(*names)
        found.append(collect(blocks.mapInArrow(_hubs_mapper(forest, users.wire, users.coordinates), blocks.schema)))
    picked = [_first_rows_of(blocks, users.wire) for blocks in found if len(blocks)]
    if users.wire.sparse and (first := pick_first_rows(users, k)) is not None:
        picked.append(first)
    if not picked:
        return None
    ids, hashes = pa.concat_arrays([one.ids for one in picked]), np.concatenate([one.hashes for one in picked])
    ordered = pa.table({"id": ids, "row": np.arange(len(ids))}).sort_by([("id", "ascending"), ("row", "ascending")])
    row = ordered["row"].to_numpy()
    row = row[np.diff(hashes[row], prepend=hashes[row][:1] - 1) != 0]  # a hub may be one of the first rows
    vectors = concatenate_rows([one.vectors for one in picked])
    return FirstRows(ids.take(pa.array(row)), hashes[row], take_rows(vectors, row))


def _hubs_mapper(forest: Forest, wire: Wire, coordinates: Coordinates) -> Mapper:
    """Return the function that yields the hubs of a partition, a block for each batch that has some."""

    def pick(batches: Batches) -> Batches:
        for batch in batches:
            vectors = wire.read(batch)
            row = np.flatnonzero(forest.are_hubs(coordinates.for_routing(vectors)))
            if len(row):
                ids, hashes = elements(batch.column(0)), numbers(batch.column(1), np.int64)
                once = np.array([len(row)])
                columns = [to_lists(ids.take(pa.array(row)), once), to_binary(hashes[row], once)]
                columns += wire.write(take_rows(vectors, row), once)
                yield pa.RecordBatch.from_arrays(columns, [IDS, HASHES, *wire.names])

    return pick


def _first_rows_of(blocks: pa.Table, wire: Wire) -> FirstRows:
    """Return collected blocks of users as FirstRows, in the order of their ids."""
    ids = elements(blocks[IDS])
    order = pc.sort_indices(ids).to_numpy()
    vectors = take_rows(wire.read(blocks), order)
    return FirstRows(ids.take(pa.array(order)), numbers(blocks[HASHES], np.int64)[order], vectors)


def _first_rows_mapper(count: int, metric: str, wire: Wire, large: np.ndarray | None) -> Mapper:
    """Return the function that yields the first rows of a partition as one block.

    large : int64 (n_large,), the large groups, each of which has first rows; None where there are no groups
    """

    def pick(batches: Batches) -> Batches:
        best: tuple[pa.Array, np.ndarray, Vectors] | None = None
        for batch in batches:
            rows = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            if best is not None:
                pairs = list(zip(best, rows, strict=True))
                rows = pa.concat_arrays(pairs[0]), np.concatenate(pairs[1]), concatenate_rows(list(pairs[2]))
            ids, hashes, vectors = rows
            of_groups = groups_of(vectors)
            group = np.zeros(len(ids), np.int64) if of_groups is None else of_groups
            sized = pa.table({"size": ordering_lengths(vectors, metric), "id": ids, "group": group})
            order = [("group", "ascending"), ("size", "ascending"), ("id", "ascending")]
            row = pc.sort_indices(sized, sort_keys=order).to_numpy()
            names, sizes = np.unique(group, return_counts=True)
            some = np.repeat(np.isin(names, large) if large is not None else True, sizes)
            row = row[some & (places_in_groups(sizes) < count)]
            best = ids.take(pa.array(row)), hashes[row], take_rows(vectors, row)
        if best is not None and len(best[0]):
            once = np.array([len(best[0])])
            columns = [to_lists(best[0], once), to_binary(best[1], once), *wire.write(best[2], once)]
            yield pa.RecordBatch.from_arrays(columns, [IDS, HASHES, *wire.names])

    return pick


def compare_with_first_rows(
    users: Users,
    first_rows: FirstRows,
    queries: np.ndarray | None,
    n_merge_partitions: int,
    k: int,
    *,
    neighbor: T.DataType | None = None,
    own: bool = True,
) -> DataFrame:
    """Return the k nearest of the first rows for every user of a set, as candidates for the merge.

    queries            : int64 (n,), hashes of the users to compare; None for every user
    n_merge_partitions : number of partitions of the merge
    neighbor           : type of the first rows' ids, where they are of another table
    own                : leave out the first row that has the user's id
    returns            : the columns of candidate_schema
    """
    keys = partition_keys(n_merge_partitions)
    queries = None if queries is None else np.sort(queries)
    blocks = users.table.drop(LOWEST)
    mapper = _nearest_first_rows_mapper(first_rows, queries, keys, users.wire, users.coordinates, k, own)
    return blocks.mapInArrow(mapper, candidate_schema(id_type(users.table), neighbor))


def _nearest_first_rows_mapper(
    first_rows: FirstRows,
    queries: np.ndarray | None,
    keys: np.ndarray,
    wire: Wire,
    coordinates: Coordinates,
    k: int,
    own: bool,
) -> Mapper:
    first_vectors = coordinates.for_join(first_rows.vectors)

    def compare(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes, vectors = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            excluded = read_excluded(batch)
            if queries is not None:
                place = np.searchsorted(queries, hashes).clip(max=max(0, len(queries) - 1))
                row = np.flatnonzero(queries[place] == hashes) if len(queries) else place[:0]
                ids, hashes, vectors = ids.take(pa.array(row)), hashes[row], take_rows(vectors, row)
                excluded = excluded.take(row) if excluded else None
            order = order_of(slot_of(hashes, len(keys)), len(keys))
            for start in range(0, len_of(vectors), OUT_ROWS):
                row = order[start : start + OUT_ROWS]
                query_ids, first_ids, place = ids.take(pa.array(row)), first_rows.ids, np.full(len(row), -1)
                if own:
                    first_ids = first_ids.cast(query_ids.type)  # Arrow may have given the driver a narrower type
                    place = pc.fill_null(pc.index_in(query_ids, first_ids), -1).to_numpy()
                query_vectors = coordinates.for_join(take_rows(vectors, row))
                pairs = excluded.take(row).among(first_rows.hashes) if excluded else None
                neighbors, distances = nearest_first_rows(
                    query_vectors, first_vectors, place, k, coordinates.metric, pairs
                )
                slot, distances = slot_of(hashes[row], len(keys)), coordinates.in_input_units(distances)
                lists = block_lists(slot, keys, query_ids, np.arange(len(row)), neighbors, distances, first_ids)
                yield pa.RecordBatch.from_arrays(lists, [PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS])

    return compare
