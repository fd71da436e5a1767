"""Survey: the executors check every row once and count what they saw."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.vectors import Grouped, Vectors, numbers_of
from annspark.input.check import REASONS, check_rows, check_sparse_rows, mllib_lists
from annspark.input.mllib import check_structs
from annspark.input.source import GROUP, MLLIB, MLLIB_DENSE, VALUES, Source
from annspark.spark.arrow import Batches, Mapper, elements
from annspark.spark.block import block_fields, block_users, id_type
from annspark.spark.types import readable, showable
from annspark.spark.wire import Wire
from annspark.tables import COLUMNS, HASHES, IDS, LOWEST, USER_ID

_REASON, _DIM, _PARTITION = "reason", "dim", "partition"
_EXAMPLE, _ROWS, _ID_BYTES, _NUMBERS = "example", "rows", "id_bytes", "numbers"
_LARGEST, _ROUNDED = "largest", "rounded"


@dataclass(frozen=True)
class Survey:
    """What was counted over all rows.

    read       : rows of the input
    rows       : usable rows; the next six are of these
    dim        : length of a dense vector; for sparse rows a number that is above all columns
    numbers    : total number of numbers in all vectors
    id_bytes   : total size of all ids
    partitions : number of partitions with usable rows
    largest    : the largest absolute value of a number
    rounded    : whether float32 cannot hold all numbers exactly
    dropped    : number of unusable rows, by reason
    examples   : the id of one unusable row per reason
    """

    read: int
    rows: int
    dim: int
    numbers: int
    id_bytes: int
    partitions: int
    largest: float
    rounded: bool
    dropped: dict[str, int]
    examples: dict[str, object]


def check_source(source: Source, metric: str) -> DataFrame:
    """Return all rows in blocks, each of one reason and one length, with extra columns that survey and usable read."""
    wire = Wire(0, source.sparse, source.grouped)
    marks = [
        T.StructField(_DIM, T.IntegerType()),
        T.StructField(_REASON, T.ByteType()),
        T.StructField(_LARGEST, T.DoubleType()),
        T.StructField(_ROUNDED, T.BooleanType()),
    ]
    schema = T.StructType(block_fields(source.table.schema[USER_ID].dataType, wire) + marks)
    return source.table.mapInArrow(_check_mapper(source, metric, wire), schema)


def usable(checked: DataFrame, source: Source, wire: Wire, dim: int) -> DataFrame:
    """Return the blocks of usable rows, without the extra columns.

    dim : the length that dense vectors must have
    """
    good = F.col(_REASON) == 0
    if source.even:
        good &= F.col(_DIM) == dim
    return checked.where(good).select(IDS, HASHES, *wire.names, LOWEST)


def survey(checked: DataFrame, source: Source, dim: int | None = None) -> Survey:
    """Return the counts of checked rows.

    checked : as check_source returns it
    dim     : the length that dense vectors must have; None for the most frequent one
    """
    seen = _count(checked, id_type(checked), Wire(0, source.sparse), source.even)
    # Sparse rows of different widths belong together; dense vectors must have the most frequent length.
    lengths = [(part.dim, part.rows) for part in seen if part.reason == ""]
    if not source.even:
        dim = max((length for length, _ in lengths), default=0)
    elif dim is None:
        dim = _usual_length(lengths)
    good = [part for part in seen if part.reason == "" and (not source.even or part.dim == dim > 0)]
    dropped: dict[str, int] = {}
    examples: dict[str, object] = {}
    for part in seen:
        if part not in good:
            reason = part.reason or "wrong_length"
            dropped[reason] = dropped.get(reason, 0) + part.rows
            examples.setdefault(reason, part.example)
    return Survey(
        read=sum(part.rows for part in seen),
        rows=sum(part.rows for part in good),
        dim=dim,
        numbers=sum(part.numbers for part in good),
        id_bytes=sum(part.id_bytes for part in good),
        partitions=sum(part.partitions for part in good),
        largest=max((part.largest for part in good), default=0.0),
        rounded=any(part.rounded for part in good),
        dropped=dropped,
        examples=examples,
    )


@dataclass(frozen=True)
class _Part:
    """Counts of the checked rows of one reason ("" for good ones) and one length."""

    reason: str
    dim: int
    rows: int
    example: object
    id_bytes: int
    numbers: int
    partitions: int
    largest: float
    rounded: bool


def _count(checked: DataFrame, user: T.DataType, wire: Wire, even: bool) -> list[_Part]:
    """Count checked rows by reason and, where all vectors must have the same length, by length, in that order.

    Counted in Python, whose workers have started: compiling an aggregation takes Spark a second.
    """
    # For dense vectors the number of numbers follows from the length, so that cached vectors are not read.
    n_numbers = F.octet_length(COLUMNS) / 4 if wire.sparse else F.size(IDS) * F.col(_DIM)
    narrow = checked.select(
        _REASON,
        _DIM,
        IDS,
        n_numbers.cast("long").alias(_NUMBERS),
        F.spark_partition_id().alias(_PARTITION),
        _LARGEST,
        _ROUNDED,
    )
    counts = (_REASON, _DIM, _ROWS, _ID_BYTES, _NUMBERS, _PARTITION)
    schema = T.StructType(
        [
            T.StructField(_EXAMPLE, user),
            *(T.StructField(name, T.LongType()) for name in counts),
            T.StructField(_LARGEST, T.DoubleType()),
            T.StructField(_ROUNDED, T.BooleanType()),
        ]
    )
    groups: dict[tuple[int, int], list[Row]] = {}
    counted = narrow.mapInArrow(_count_mapper(user, even), schema)
    for row in counted.withColumn(_EXAMPLE, showable(F.col(_EXAMPLE), user)).collect():
        groups.setdefault((row[_REASON], row[_DIM] if even else 0), []).append(row)
    return [_part_of(REASONS[reason], rows) for (reason, _), rows in sorted(groups.items())]


def _part_of(reason: str, rows: list[Row]) -> _Part:
    """Return the counts that batches returned, put together."""
    return _Part(
        reason=reason,
        dim=max(row[_DIM] for row in rows),
        rows=sum(row[_ROWS] for row in rows),
        example=readable(min((row[_EXAMPLE] for row in rows if row[_EXAMPLE] is not None), default=None)),
        id_bytes=sum(row[_ID_BYTES] for row in rows),
        numbers=sum(row[_NUMBERS] for row in rows),
        partitions=len({row[_PARTITION] for row in rows}),
        largest=max(row[_LARGEST] for row in rows),
        rounded=any(row[_ROUNDED] for row in rows),
    )


def _count_mapper(user: T.DataType, even: bool) -> Mapper:
    of_any_length = isinstance(user, T.StringType | T.BinaryType)

    def count(batches: Batches) -> Batches:
        for batch in batches:
            reason, dim = (batch.column(i).to_numpy() for i in range(2))
            groups = np.column_stack([reason, dim if even else np.zeros_like(dim)])
            for group in np.unique(groups, axis=0):
                rows = np.flatnonzero((groups == group).all(axis=1))
                part = batch.take(pa.array(rows))
                ids = elements(part.column(2))
                sums = {
                    _REASON: group[0],
                    _DIM: dim[rows].max(),
                    _ROWS: len(ids),
                    _ID_BYTES: (pc.sum(pc.binary_length(ids)).as_py() or 0) if of_any_length else 8 * len(ids),
                    _NUMBERS: pc.sum(part.column(3)).as_py(),
                    _PARTITION: part.column(4)[0].as_py(),
                }
                example = pa.repeat(pc.min(ids), 1)
                columns = [example, *(pa.array([int(number)]) for number in sums.values())]
                columns += [pa.repeat(pc.max(part.column(place)), 1) for place in (5, 6)]
                yield pa.RecordBatch.from_arrays(columns, [_EXAMPLE, *sums, _LARGEST, _ROUNDED])

    return count


def _usual_length(lengths: list[tuple[int, int]]) -> int:
    """Return the most frequent length of vectors, the shorter of two equally frequent ones; 0 where there are none.

    lengths : length and number of vectors
    """
    return min(((-rows, length) for length, rows in lengths if length > 0), default=(0, 0))[1]


def _check_mapper(source: Source, metric: str, wire: Wire) -> Mapper:
    even, columns = source.even, source.table.columns

    def check(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes = batch.column(0), batch.column(1).to_numpy()
            if MLLIB in columns:
                reason, good = check_sparse_rows(ids, *mllib_lists(batch.column(2)), metric)
            elif not even:
                values = batch.column(3) if VALUES in columns else None
                reason, good = check_sparse_rows(ids, batch.column(2), values, metric)
            elif MLLIB_DENSE in columns:
                reason, good = check_structs(ids, batch.column(2), metric)
            else:
                reason, good = check_rows(ids, batch.column(2), metric)
            if wire.grouped:
                group = batch.column(GROUP).to_numpy()
                good = {length: (rows, Grouped(vectors, group[rows])) for length, (rows, vectors) in good.items()}
            for length, (rows, vectors) in good.items():
                blocks = block_users(ids.take(pa.array(rows)), hashes[rows], vectors, wire)
                yield _checked(blocks, length, 0, wire, vectors)
            for code in np.unique(reason[reason > 0]):
                rows = np.flatnonzero(reason == code)
                empty = wire.no_numbers(len(rows))
                blocks = block_users(ids.take(pa.array(rows)), hashes[rows], empty, wire)
                yield _checked(blocks, 0, int(code), wire, empty)

    return check


def _checked(blocks: list[pa.Array], length: int, code: int, wire: Wire, vectors: Vectors) -> pa.RecordBatch:
    """Return blocks with the extra columns: length, reason, largest absolute value, whether float32 is too small."""
    n, values = len(blocks[0]), numbers_of(vectors)
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    marks = [
        pa.array(np.full(n, length, np.int32)),
        pa.array(np.full(n, code, np.int8)),
        pa.array(np.full(n, largest)),
        pa.array(np.full(n, values.dtype != np.float32)),
    ]
    names = [IDS, HASHES, *wire.names, LOWEST, _DIM, _REASON, _LARGEST, _ROUNDED]
    return pa.RecordBatch.from_arrays(blocks + marks, names)
