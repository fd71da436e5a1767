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
from annspark.core.metric import prepare
from annspark.errors import InputError
from annspark.flow.arrow import to_binary
from annspark.flow.stage import Stage
from annspark.tables import USER_ID, VECTOR, quoted

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
_REASON, _DIM = "reason", "dim"


@dataclass(frozen=True)
class Users:
    """The valid input, staged.

    table    : user_id, vector (binary, dim float32 in native order, prepared for the metric)
    rows     : rows of table
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


def read_vectors(vectors: DataFrame, settings: Settings, stage: Stage) -> Users:
    """Check and stage the input.

    vectors : any table with an id column (integers or strings) and a vector column (array<float>, array<double> or
              MLlib vectors); read once
    Raises InputError for columns and types that do not fit, for bad rows unless on_bad_row is "drop", and when no
    valid row is left.
    """
    source = _select_columns(vectors, settings.id_col, settings.vector_col)
    id_type = source.schema[USER_ID].dataType
    id_bytes = F.octet_length(USER_ID) if isinstance(id_type, T.StringType) else F.lit(8)
    schema = T.StructType(
        [
            T.StructField(USER_ID, id_type),
            T.StructField(VECTOR, T.BinaryType()),
            T.StructField(_DIM, T.IntegerType()),
            T.StructField(_REASON, T.ByteType()),
        ]
    )
    checked = stage(source.mapInArrow(_checker(settings.metric), schema))
    groups = (
        checked.groupBy(_REASON, _DIM)
        .agg(F.count("*").alias("rows"), F.min(USER_ID).alias("example"), F.sum(id_bytes).alias("id_bytes"))
        .collect()
    )
    dim = _usual_length([(row[_DIM], row["rows"]) for row in groups if row[_REASON] == 0])
    dropped: dict[str, int] = {}
    examples: dict[str, object] = {}
    rows = bytes_of_ids = 0
    for row in sorted(groups, key=lambda row: (row[_REASON], row[_DIM])):
        reason = REASONS[row[_REASON]] or ("" if row[_DIM] == dim > 0 else "wrong_length")
        if reason:
            dropped[reason] = dropped.get(reason, 0) + row["rows"]
            examples.setdefault(reason, row["example"])
        else:
            rows, bytes_of_ids = row["rows"], row["id_bytes"]

    table = checked.where((F.col(_REASON) == 0) & (F.col(_DIM) == dim)).select(USER_ID, VECTOR)
    again = table.groupBy(USER_ID).count().where("count > 1")
    extra = again.agg(F.sum(F.col("count") - 1).alias("rows"), F.min(USER_ID).alias("example")).collect()[0]
    if extra["rows"]:
        dropped["duplicate_id"], examples["duplicate_id"] = extra["rows"], extra["example"]
        rows -= extra["rows"]
        # Of rows that share an id the one with the smallest bytes stays: the same one at every run.
        place = F.row_number().over(Window.partitionBy(USER_ID).orderBy(VECTOR))
        unique = table.withColumn("place", place).where("place = 1").drop("place")
        table = stage(unique)

    read = sum(row["rows"] for row in groups)
    found = Users(table, rows, dim, read, bytes_of_ids / max(rows, 1), dropped, examples)
    _judge(found, settings)
    return found


def _select_columns(vectors: DataFrame, id_col: str, vector_col: str) -> DataFrame:
    """Return user_id and vector (as an array) under these names, or say what is wrong with the columns."""
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
    return vectors.select(F.col(quoted(id_col)).alias(USER_ID), vector.alias(VECTOR))


def _checker(metric: str) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids, lists = batch.column(0), batch.column(1)
            reason, length, flat = check_rows(ids, lists, metric)
            columns = [ids, to_binary(flat, np.where(reason == 0, length, 0)), pa.array(length), pa.array(reason)]
            yield pa.RecordBatch.from_arrays(columns, [USER_ID, VECTOR, _DIM, _REASON])

    return check


def check_rows(ids: pa.Array, lists: pa.Array, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge a batch of rows.

    ids     : any type, nulls allowed
    lists   : list<float> or list<double>, nulls allowed everywhere
    returns : reason int8 (n,), place in REASONS; length int32 (n,); the good rows' prepared vectors, float32, flat
    """
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int32)
    numbers = lists.flatten().to_numpy(zero_copy_only=False)  # null becomes NaN
    start = np.cumsum(length) - length
    largest = np.zeros(len(ids), numbers.dtype)
    filled = np.flatnonzero(length)
    if len(filled):
        largest[filled] = np.maximum.reduceat(np.abs(numbers), start[filled])  # NaN if any is
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

    kept = np.where(reason == 0, length, 0)
    place = np.cumsum(kept) - kept
    flat = np.empty(kept.sum(), np.float32)
    for dim in np.unique(kept[kept > 0]):
        rows = np.flatnonzero(kept == dim)
        if len(rows) == len(ids):  # nearly every batch: nothing to pick out
            return reason, length, prepare(numbers.reshape(len(ids), dim), metric).ravel()
        columns = np.arange(dim)
        flat[place[rows][:, None] + columns] = prepare(numbers[start[rows][:, None] + columns], metric)
    return reason, length, flat


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
