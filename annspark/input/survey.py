"""Survey: every row is checked once, on the executors, and what was seen is counted."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.vectors import Vectors, is_sparse
from annspark.input.check import REASONS, check_rows, check_sparse_rows, mllib_lists
from annspark.input.mllib import check_structs
from annspark.input.source import MLLIB, MLLIB_DENSE, VALUES, Source
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
    """What was seen of all rows.

    read       : rows of the input
    rows       : those that can be used; what follows is of these, but for the last two
    dim        : numbers of a dense vector; of sparse rows a bound that all columns are below
    numbers    : of all vectors
    id_bytes   : of all ids
    partitions : that hold some of them
    largest    : the largest number, without its sign
    rounded    : float32 does not hold all numbers
    dropped    : rows that cannot be used, by reason
    examples   : one id per reason
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
    """Return all rows in blocks, those of one reason and length together, with marks for survey and usable."""
    wire = Wire(0, source.sparse)
    marks = [
        T.StructField(_DIM, T.IntegerType()),
        T.StructField(_REASON, T.ByteType()),
        T.StructField(_LARGEST, T.DoubleType()),
        T.StructField(_ROUNDED, T.BooleanType()),
    ]
    schema = T.StructType(block_fields(source.table.schema[USER_ID].dataType, wire) + marks)
    return source.table.mapInArrow(_check_mapper(source, metric, wire), schema)


def usable(checked: DataFrame, source: Source, wire: Wire) -> DataFrame:
    """Return the blocks of rows that can be used, without marks."""
    good = F.col(_REASON) == 0
    if source.even:
        good &= F.col(_DIM) == wire.dim
    return checked.where(good).select(IDS, HASHES, *wire.names, LOWEST)


def survey(checked: DataFrame, source: Source) -> Survey:
    """Return what was seen of checked rows."""
    seen = _count(checked, id_type(checked), Wire(0, source.sparse), source.even)
    # Sparse rows of any width are rows of the widest, unless they came with all their zeros.
    lengths = [(part.dim, part.rows) for part in seen if part.reason == ""]
    dim = _usual_length(lengths) if source.even else max((length for length, _ in lengths), default=0)
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
    """Checked rows that share a reason ("" for good ones) and a length."""

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
    """Count what was checked, in the order of reasons and, where all are to be equally long, of lengths.

    In Python, whose workers are there: what Spark would have to compile for it costs a second of a job's minute.
    """
    # How many numbers dense vectors have follows from their length: the vectors themselves stay where they are cached.
    n_numbers = F.octet_length(COLUMNS) / 4 if wire.sparse else F.size(IDS) * F.col(_DIM)
    few = checked.select(
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
    found: dict[tuple[int, int], list[Row]] = {}
    counted = few.mapInArrow(_count_mapper(user, even), schema)
    for row in counted.withColumn(_EXAMPLE, showable(F.col(_EXAMPLE), user)).collect():
        found.setdefault((row[_REASON], row[_DIM] if even else 0), []).append(row)
    return [
        _Part(
            REASONS[reason],
            max(row[_DIM] for row in rows),
            sum(row[_ROWS] for row in rows),
            readable(min((row[_EXAMPLE] for row in rows if row[_EXAMPLE] is not None), default=None)),
            sum(row[_ID_BYTES] for row in rows),
            sum(row[_NUMBERS] for row in rows),
            len({row[_PARTITION] for row in rows}),
            max(row[_LARGEST] for row in rows),
            any(row[_ROUNDED] for row in rows),
        )
        for (reason, _), rows in sorted(found.items())
    ]


def _count_mapper(user: T.DataType, even: bool) -> Mapper:
    lengthy = isinstance(user, T.StringType | T.BinaryType)

    def count(batches: Batches) -> Batches:
        for batch in batches:
            reason, dim = (batch.column(i).to_numpy() for i in range(2))
            groups = np.column_stack([reason, dim if even else np.zeros_like(dim)])
            for group in np.unique(groups, axis=0):
                rows = np.flatnonzero((groups == group).all(axis=1))
                some = batch.take(pa.array(rows))
                ids = elements(some.column(2))
                sums = {
                    _REASON: group[0],
                    _DIM: dim[rows].max(),
                    _ROWS: len(ids),
                    _ID_BYTES: (pc.sum(pc.binary_length(ids)).as_py() or 0) if lengthy else 8 * len(ids),
                    _NUMBERS: pc.sum(some.column(3)).as_py(),
                    _PARTITION: some.column(4)[0].as_py(),
                }
                example = pa.repeat(pc.min(ids), 1)
                columns = [example, *(pa.array([int(number)]) for number in sums.values())]
                columns += [pa.repeat(pc.max(some.column(place)), 1) for place in (5, 6)]
                yield pa.RecordBatch.from_arrays(columns, [_EXAMPLE, *sums, _LARGEST, _ROUNDED])

    return count


def _usual_length(lengths: list[tuple[int, int]]) -> int:
    """Return the most frequent length of a vector, the shorter of two that are equally frequent; 0 for none."""
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
            for length, (rows, vectors) in good.items():
                blocks = block_users(ids.take(pa.array(rows)), hashes[rows], vectors, wire)
                yield _checked(blocks, length, 0, wire, vectors)
            for code in np.unique(reason[reason > 0]):
                rows = np.flatnonzero(reason == code)
                nothing = wire.no_numbers(len(rows))
                blocks = block_users(ids.take(pa.array(rows)), hashes[rows], nothing, wire)
                yield _checked(blocks, 0, int(code), wire, nothing)

    return check


def _checked(blocks: list[pa.Array], length: int, code: int, wire: Wire, vectors: Vectors) -> pa.RecordBatch:
    """Mark the blocks of vectors with what was seen of them."""
    n, values = len(blocks[0]), vectors.data if is_sparse(vectors) else vectors
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    marks = [
        pa.array(np.full(n, length, np.int32)),
        pa.array(np.full(n, code, np.int8)),
        pa.array(np.full(n, largest)),
        pa.array(np.full(n, values.dtype != np.float32)),
    ]
    names = [IDS, HASHES, *wire.names, LOWEST, _DIM, _REASON, _LARGEST, _ROUNDED]
    return pa.RecordBatch.from_arrays(blocks + marks, names)
