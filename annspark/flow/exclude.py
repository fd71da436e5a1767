"""Exclude: give every user the hashes of the ids that it must not be given as neighbors.

The pairs travel with the vector of their first end, so that every step that compares a user knows what it excludes.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import are_in, order_of
from annspark.core.excluded import Excluded, excluded_by
from annspark.core.plan import count_staged_bytes
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, narrowed, take_rows
from annspark.errors import InputError
from annspark.flow.read import Users
from annspark.input.given import find_column, shown
from annspark.settings import Settings
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, collect, elements, gathered, numbers, to_binary, to_lists
from annspark.spark.block import (
    block_fields,
    block_in_order,
    block_lengths,
    block_numbers,
    id_type,
    read_excluded,
    seeded_hash,
)
from annspark.spark.cluster import partition_keys
from annspark.spark.partitions import count_partitions
from annspark.spark.staging import Store
from annspark.spark.types import is_collated, is_whole, widens
from annspark.spark.wire import Wire, row_bytes
from annspark.tables import (
    DIGESTS,
    EXCLUDED,
    EXCLUDING,
    HASHES,
    IDS,
    LOWEST,
    N_EXCLUDED,
    NEIGHBOR_ID,
    PARTITION_KEY,
    quoted,
)

_MOST, _SUM = "most", "sum"


def with_excluded(
    users: Users, pairs: DataFrame, neighbors: T.DataType, settings: Settings, stage: Store, cores: int
) -> Users:
    """Return users that know whom they must not be given.

    pairs     : a table with the column of ids and with neighbor_id.  A pair whose ids are not in the tables, or null,
                excludes nothing; a pair that comes twice counts once
    neighbors : type of the ids of those who may be neighbors
    stage     : computes and stores an intermediate table
    cores     : number of tasks that run at once
    Raises InputError where the table lacks a column, or its ids are of another type.
    """
    own = _ids_in(pairs, settings.id_col, users.id_kind, users.role)
    other = _ids_in(pairs, NEIGHBOR_ID, neighbors, "neighbors")
    hashed = pairs.where(other.isNotNull()).select(
        seeded_hash(own, settings.seed).alias(HASHES), seeded_hash(other, settings.seed).alias(EXCLUDED)
    )
    n_partitions = count_partitions(count_staged_bytes(users.rows, users.width), cores)
    keys, wire = partition_keys(n_partitions), users.wire
    user = id_type(users.table)
    keyed = T.StructType([T.StructField(PARTITION_KEY, T.IntegerType()), *block_fields(user, wire)[:-1]])
    named = T.StructType(
        [keyed[PARTITION_KEY], *(T.StructField(name, T.BinaryType()) for name in (EXCLUDING, EXCLUDED))]
    )
    both = users.table.mapInArrow(_by_hash_mapper(keys, wire), keyed).unionByName(
        hashed.mapInArrow(_pairs_mapper(keys), named), allowMissingColumns=True
    )
    schema = T.StructType([*block_fields(user, wire), named[EXCLUDED], T.StructField(N_EXCLUDED, T.BinaryType())])
    table = stage(both.repartition(n_partitions, PARTITION_KEY).mapInArrow(_attach_mapper(wire), schema))
    # Added up on the driver: an aggregation by Spark would be compiled, and take a shuffle.
    counted = collect(table.select(N_EXCLUDED).mapInArrow(_count, f"{_MOST} long, {_SUM} long"))
    most, total = max(counted[_MOST].to_pylist(), default=0), sum(counted[_SUM].to_pylist())
    return replace(users, table=table, excluded=total, most_excluded=most)


def digests_of(users: Users, keys: np.ndarray) -> DataFrame | None:
    """Return the digests of what users exclude, of those who exclude somebody, in blocks; None without excluded pairs.

    keys    : int32, the targets of the slots of hashes
    returns : partition_key (of the slot), hashes, digests
    """
    if users.excluded is None:
        return None

    def tell(batches: Batches) -> Batches:
        for batch in batches:
            excluded = read_excluded(batch)
            assert excluded is not None
            row = np.flatnonzero(excluded.counts)
            hashes, digests = numbers(batch.column(0), np.int64)[row], excluded.digests[row]
            columns = block_numbers(slot_of(hashes, len(keys)), keys, hashes, digests)
            yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, HASHES, DIGESTS])

    schema = f"{PARTITION_KEY} int, {HASHES} binary, {DIGESTS} binary"
    return users.table.select(HASHES, EXCLUDED, N_EXCLUDED).mapInArrow(tell, schema)


def pairs_with(users: Users, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the excluded pairs of which one end or both have some hashes, on the driver; None without excluded pairs.

    wanted  : int64 (n,), ascending
    returns : int64 (n_pairs,) each, the hashes of both ends
    """
    if users.excluded is None:
        return None

    def pick(batches: Batches) -> Batches:
        for batch in batches:
            excluded = read_excluded(batch)
            assert excluded is not None
            owner = np.repeat(numbers(batch.column(0), np.int64), excluded.counts)
            here = np.flatnonzero(are_in(owner, wanted) | are_in(excluded.hashes, wanted))
            once = np.array([len(here)])
            columns = [to_binary(part[here], once) for part in (owner, excluded.hashes)]
            yield pa.RecordBatch.from_arrays(columns, [HASHES, EXCLUDED])

    blocks = users.table.select(HASHES, EXCLUDED, N_EXCLUDED)
    found = collect(blocks.mapInArrow(pick, f"{HASHES} binary, {EXCLUDED} binary"))
    return numbers(found[HASHES], np.int64), numbers(found[EXCLUDED], np.int64)


def without_excluded(users: Users) -> Users:
    """Return users that do not know of excluded pairs any more."""
    if users.excluded is None:
        return users
    return replace(users, table=users.table.drop(EXCLUDED, N_EXCLUDED), excluded=None, most_excluded=0)


def _ids_in(pairs: DataFrame, name: str, wanted: T.DataType, whose: str) -> Column:
    """Return a column of ids as the given type; InputError where there is none, or it is of another type."""
    field = find_column(pairs, name, "exclude")
    if field is None:
        there = shown(pairs.columns)
        raise InputError(
            f"exclude: no column {shown([name])}; there are {there or 'none'}. Give a table of pairs with the column "
            f"of ids and with {NEIGHBOR_ID!r}."
        )
    kind, column = field.dataType, F.col(quoted(name))
    if isinstance(kind, T.NullType) or (kind == wanted and not is_collated(kind)):
        return column.cast(wanted)
    if widens(kind, wanted):
        return column.cast(wanted)
    if is_whole(kind) and is_whole(wanted):
        # A number that the type of the ids cannot hold is nobody's id; under ANSI rules a plain cast would fail.
        return F.expr(f"try_cast({quoted(name)} as {wanted.simpleString()})")
    raise InputError(
        f"exclude: column {name!r} is {kind.simpleString()}, and the ids of the {whose} are {wanted.simpleString()}: "
        "they cannot be compared byte by byte. Cast both to one type without a collation before."
    )


def _by_hash_mapper(keys: np.ndarray, wire: Wire) -> Mapper:
    """Return the function that sends users to the partitions of their hashes."""

    def send(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes, vectors = elements(batch.column(0)), numbers(batch.column(1), np.int64), wire.read(batch)
            slot = slot_of(hashes, len(keys))
            order = order_of(slot, len(keys))
            for start in range(0, len(order), OUT_ROWS):
                row = order[start : start + OUT_ROWS]
                some = take_rows(vectors, row)
                first, lengths = block_lengths(slot[row], row_bytes(some))
                columns = [
                    pa.array(keys[slot[row][first]]),
                    to_lists(ids.take(pa.array(row)), lengths),
                    to_binary(hashes[row], lengths),
                    *wire.write(some, lengths),
                ]
                yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, IDS, HASHES, *wire.names])

    return send


def _pairs_mapper(keys: np.ndarray) -> Mapper:
    """Return the function that sends pairs to the partitions of their first end's hash."""

    def send(batches: Batches) -> Batches:
        for batch in batches:
            user, other = (column.to_numpy() for column in batch.columns)
            columns = block_numbers(slot_of(user, len(keys)), keys, user, other)
            yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, EXCLUDING, EXCLUDED])

    return send


def _attach_mapper(wire: Wire) -> Mapper:
    def attach(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:
            return
        ids, hashes, vectors = elements(shipped[IDS]), numbers(shipped[HASHES], np.int64), wire.read(shipped)
        if len(ids) == 0:
            return
        named, others = (numbers(shipped[name], np.int64) for name in (EXCLUDING, EXCLUDED))
        del shipped
        excluded = excluded_by(hashes, named, others)
        # In the order of hashes, so that each block holds users of neighboring hashes.
        order = np.argsort(hashes, kind="stable")
        for start in range(0, len(order), OUT_ROWS):
            row = order[start : start + OUT_ROWS]
            yield _blocks_of(ids.take(pa.array(row)), hashes[row], take_rows(vectors, row), excluded.take(row), wire)

    return attach


def _blocks_of(ids: pa.Array, hashes: np.ndarray, vectors: Vectors, excluded: Excluded, wire: Wire) -> pa.RecordBatch:
    blocks = block_in_order(ids, hashes, narrowed(vectors), wire, excluded)
    return pa.RecordBatch.from_arrays(blocks, [IDS, HASHES, *wire.names, LOWEST, EXCLUDED, N_EXCLUDED])


def _count(batches: Batches) -> Batches:
    for batch in batches:
        counts = numbers(batch.column(0), np.int32)
        facts = {_MOST: int(counts.max(initial=0)), _SUM: int(counts.sum(dtype=np.int64))}
        yield pa.RecordBatch.from_pydict({name: pa.array([value]) for name, value in facts.items()})
