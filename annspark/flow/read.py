"""Read: check every row once and turn its vector into prepared bytes, which every later step reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.draw import slot_of
from annspark.core.metric import prepare
from annspark.errors import InputError
from annspark.flow.arrow import numbers, to_binary
from annspark.flow.block import block_fields, block_users, blocked, seeded_hash, unblocked
from annspark.flow.cluster import partition_keys
from annspark.flow.stage import Stage
from annspark.tables import HASHES, IDS, LOWEST, TARGET, USER_ID, VECTOR, VECTORS, quoted

# In the order in which a row is judged; its place is the code a checked row carries, 0 is a good row.
REASONS = ("", "null_id", "null_vector", "nan", "infinite", "zero_vector", "wrong_length", "duplicate_id")
_MEANING = {
    "null_id": "the id is null",
    "null_vector": "the vector is null",
    "nan": "the vector holds NaN or null",
    "infinite": "the vector holds infinite numbers, or such large ones that float32 cannot hold its squared length",
    "zero_vector": "the vector is all zeros, which has no direction and so no cosine",
    "wrong_length": "the vector is not as long as most are",
    "duplicate_id": "the id was met before",
}
_ID_TYPES = (T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.StringType)
_REASON, _DIM, _HASH, _PARTITION, _REPEATED = "reason", "dim", "hash", "partition", "repeated"
_SPREAD_BYTES = 32 << 20  # fewer bytes than this are not worth a shuffle to keep every core busy
_HASHES_TOGETHER = 4_000_000  # hashes sorted by one task


@dataclass(frozen=True)
class Users:
    """The valid input, staged.

    table    : blocks of users: ids (array), hashes (binary int64), vectors (binary, dim float32 each in native order,
               prepared for the metric), lowest (the smallest of the hashes)
    rows     : users in table
    read     : rows of the input
    id_bytes : mean size of an id
    dropped  : rows left out, by reason
    examples : one id per reason
    """

    table: DataFrame
    rows: int
    dim: int
    read: int
    id_bytes: float
    dropped: dict[str, int]
    examples: dict[str, object]


def read_vectors(vectors: DataFrame, settings: Settings, stage: Stage, cores: int) -> Users:
    """Check and stage the input.

    vectors : any table with an id column (integers or strings) and a vector column (array<float>, array<double> or
              MLlib vectors); read once
    cores   : tasks that run at once
    Raises InputError for columns and types that do not fit, for bad rows unless on_bad_row is "drop", and when no
    valid row is left.
    """
    source = _select_columns(vectors, settings)
    user = source.schema[USER_ID].dataType
    marks = [T.StructField(_DIM, T.IntegerType()), T.StructField(_REASON, T.ByteType())]
    schema = T.StructType(block_fields(user) + marks)
    checked = stage(source.mapInArrow(_checker(settings.metric), schema))
    is_text = isinstance(user, T.StringType)
    id_bytes = F.octet_length(F.array_join(IDS, "")) if is_text else 8 * F.size(IDS)
    groups = (
        checked.withColumn(_PARTITION, F.spark_partition_id())
        .groupBy(_REASON, _DIM)
        .agg(
            F.sum(F.size(IDS)).alias("rows"),
            F.min(F.array_min(IDS)).alias("example"),
            F.sum(id_bytes).alias("id_bytes"),
            F.size(F.collect_set(_PARTITION)).alias("partitions"),
        )
        .collect()
    )
    dim = _usual_length([(row[_DIM], row["rows"]) for row in groups if row[_REASON] == 0])
    dropped: dict[str, int] = {}
    examples: dict[str, object] = {}
    rows = bytes_of_ids = partitions = 0
    for row in sorted(groups, key=lambda row: (row[_REASON], row[_DIM])):
        reason = REASONS[row[_REASON]] or ("" if row[_DIM] == dim > 0 else "wrong_length")
        if reason:
            dropped[reason] = dropped.get(reason, 0) + row["rows"]
            examples.setdefault(reason, row["example"])
        else:
            rows, bytes_of_ids, partitions = row["rows"], row["id_bytes"], row["partitions"]

    table = checked.where((F.col(_REASON) == 0) & (F.col(_DIM) == dim)).select(IDS, HASHES, VECTORS, LOWEST)
    if partitions < cores and rows * dim * 4 > _SPREAD_BYTES:
        table = stage(table.repartition(2 * cores))
    if rows and _has_repeated_hashes(table, rows):
        extra = (
            table.select(F.explode(IDS).alias(USER_ID))
            .groupBy(USER_ID)
            .count()
            .where("count > 1")
            .agg(F.sum(F.col("count") - 1).alias("rows"), F.min(USER_ID).alias("example"))
            .collect()[0]
        )
        if extra["rows"]:
            dropped["duplicate_id"], examples["duplicate_id"] = extra["rows"], extra["example"]
            rows -= extra["rows"]
            # Of rows that share an id the one with the smallest bytes stays: the same one at every run.
            place = F.row_number().over(Window.partitionBy(USER_ID).orderBy(VECTOR))
            unique = unblocked(table, dim).withColumn("place", place).where("place = 1")
            table = stage(blocked(unique, dim))

    read = sum(row["rows"] for row in groups)
    found = Users(table, rows, dim, read, bytes_of_ids / max(rows, 1), dropped, examples)
    _judge(found, settings)
    return found


def _has_repeated_hashes(blocks: DataFrame, rows: int) -> bool:
    """Say whether two users have the same hash, as users of the same id do: 8 bytes a user are cheaper than ids."""
    n_partitions = -(-rows // _HASHES_TOGETHER)
    keys = partition_keys(n_partitions)

    def split(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            slot = slot_of(hashes, n_partitions)
            order = np.argsort(slot, kind="stable")
            counts = np.bincount(slot, minlength=n_partitions)
            yield pa.RecordBatch.from_arrays([pa.array(keys), to_binary(hashes[order], counts)], [TARGET, HASHES])

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        hashes = np.sort(np.concatenate([np.empty(0, np.int64), *(numbers(b.column(1), np.int64) for b in batches)]))
        repeated = int((hashes[1:] == hashes[:-1]).sum())
        yield pa.RecordBatch.from_arrays([pa.array([repeated])], [_REPEATED])

    parts = blocks.select(HASHES).mapInArrow(split, f"{TARGET} int, {HASHES} binary")
    counted = parts.repartition(n_partitions, TARGET).mapInArrow(count, f"{_REPEATED} long")
    return any(row[_REPEATED] for row in counted.collect())


def _select_columns(vectors: DataFrame, settings: Settings) -> DataFrame:
    """Return user_id, its hash and vector (as an array) under these names, or say what is wrong with the columns."""
    id_col, vector_col = settings.id_col, settings.vector_col
    types = {field.name: field.dataType for field in vectors.schema.fields}
    for name in (id_col, vector_col):
        if name not in types:
            raise InputError(f"input: no column {name!r}; there are {', '.join(map(repr, types))}. Name the right one.")
    if not isinstance(types[id_col], _ID_TYPES):
        raise InputError(
            f"input column {id_col!r} is {types[id_col].simpleString()}; ids may be integers or strings. Cast it."
        )
    kind, vector = types[vector_col], F.col(quoted(vector_col))
    if type(kind).__name__ == "VectorUDT":
        from pyspark.ml.functions import vector_to_array

        vector = F.when(vector.isNotNull(), vector_to_array(vector))  # vector_to_array refuses null
    elif not (isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.FloatType | T.DoubleType)):
        raise InputError(
            f"input column {vector_col!r} is {kind.simpleString()}; vectors may be array<float>, array<double> or "
            "MLlib vectors. Cast it."
        )
    user_id = F.col(quoted(id_col))
    hashed = seeded_hash(user_id, settings.seed)
    return vectors.select(user_id.alias(USER_ID), hashed.alias(_HASH), vector.alias(VECTOR))


def _checker(metric: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids, hashes = batch.column(0), batch.column(1).to_numpy()
            reason, good = check_rows(ids, batch.column(2), metric)
            for length, (rows, vectors) in good.items():
                columns = block_users(ids.take(pa.array(rows)), hashes[rows], vectors)
                yield _checked(columns, length, 0)
            for code in np.unique(reason[reason > 0]):
                rows = np.flatnonzero(reason == code)
                nothing = np.empty((len(rows), 0), np.float32)
                yield _checked(block_users(ids.take(pa.array(rows)), hashes[rows], nothing), 0, int(code))

    return check


def _checked(columns: list[pa.Array], length: int, code: int) -> pa.RecordBatch:
    n = len(columns[0])
    marks = [pa.array(np.full(n, length, np.int32)), pa.array(np.full(n, code, np.int8))]
    return pa.RecordBatch.from_arrays(columns + marks, [IDS, HASHES, VECTORS, LOWEST, _DIM, _REASON])


def check_rows(
    ids: pa.Array, lists: pa.Array, metric: str
) -> tuple[np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """Judge a batch of rows.

    ids     : any type, nulls allowed
    lists   : list<float> or list<double>, nulls allowed everywhere
    returns : reason int8 (n,), place in REASONS; by length, the good rows of that length and their prepared vectors,
              float32 (n_rows, length)
    """
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    flat = lists.flatten().to_numpy(zero_copy_only=False)  # null becomes NaN
    start = np.cumsum(length) - length
    largest = np.zeros(len(ids), flat.dtype)
    filled = np.flatnonzero(length)
    if len(filled):
        # NaN if any number is.  Two reductions instead of one of np.abs(flat): no copy of everything.
        largest[filled] = np.maximum(
            np.maximum.reduceat(flat, start[filled]), -np.minimum.reduceat(flat, start[filled])
        )
    # Beyond this a squared length is too much for float32; under cosine vectors get unit length first.
    limit = 1e18 / np.sqrt(np.maximum(length, 1)) if metric == "euclidean" else np.finfo(np.float64).max
    judged = {
        "null_id": ids.is_null().to_numpy(zero_copy_only=False),
        "null_vector": lists.is_null().to_numpy(zero_copy_only=False),
        "nan": np.isnan(largest),
        "infinite": largest > limit,
        "zero_vector": (largest == 0) & (length > 0) & (metric == "cosine"),
    }
    reason = np.select(list(judged.values()), [REASONS.index(name) for name in judged]).astype(np.int8)
    good = {}
    for dim in np.unique(length[reason == 0]).tolist():
        rows = np.flatnonzero((reason == 0) & (length == dim))
        # In nearly every batch there is nothing to pick out.
        whole = len(rows) == len(ids)
        vectors = flat.reshape(len(ids), dim) if whole else flat[start[rows][:, None] + np.arange(dim)]
        good[dim] = (rows, prepare(vectors, metric))
    return reason, good


def _usual_length(lengths: list[tuple[int, int]]) -> int:
    """Return the most frequent length of a vector, the shorter of two that are equally frequent; 0 for none."""
    return min(((-rows, length) for length, rows in lengths if length > 0), default=(0, 0))[1]


def _judge(found: Users, settings: Settings) -> None:
    bad = "; ".join(
        f"{reason} {n:,} ({_MEANING[reason]}; for example {settings.id_col} {found.examples[reason]!r})"
        for reason, n in found.dropped.items()
    )
    if found.dropped and settings.on_bad_row == "fail":
        raise InputError(
            f"input columns {settings.id_col!r} and {settings.vector_col!r}: "
            f"{sum(found.dropped.values()):,} of {found.read:,} rows cannot be used: {bad}. "
            f"Most vectors have {found.dim} numbers. "
            "Repair the rows, or leave them out with --on-bad-row drop (on_bad_row='drop')."
        )
    if found.rows == 0:
        raise InputError(f"input: no valid row among {found.read:,}{': ' + bad if bad else ''}. Nothing to do.")
