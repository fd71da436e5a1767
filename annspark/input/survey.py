"""Survey: the executors check every row once and count what they saw."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.contents import contents_of
from annspark.core.vectors import Grouped, Vectors, numbers_of, take_rows
from annspark.core.weighted import most_index
from annspark.input.check import REASONS, Judged, check_rows, check_sparse_rows, mllib_lists
from annspark.input.mllib import check_structs
from annspark.input.source import GROUP, INDICES, MLLIB, MLLIB_DENSE, Form, Source
from annspark.input.weighted import JudgedTogether, judge_together
from annspark.spark.arrow import Batches, Mapper, elements, to_binary, to_lists
from annspark.spark.block import block_fields, block_in_order, id_type, rows_of
from annspark.spark.types import readable, showable
from annspark.spark.wire import Wire
from annspark.tables import COLUMNS, CONTENTS, HASHES, IDS, LOWEST, USER_ID

_REASON, _LENGTHS, _PARTITION = "reason", "lengths", "partition"
_EXAMPLE, _ROWS, _ID_BYTES, _NUMBERS = "example", "rows", "id_bytes", "numbers"
_LARGEST, _ROUNDED = "largest", "rounded"


@dataclass(frozen=True)
class Survey:
    """What was counted over all rows.

    read       : rows of the input
    rows       : usable rows; the next six are of these
    lengths    : numbers that each vector column has for a row; for sparse rows one number that is above all columns
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
    lengths: tuple[int, ...]
    numbers: int
    id_bytes: int
    partitions: int
    largest: float
    rounded: bool
    dropped: dict[str, int]
    examples: dict[str, object]

    @property
    def dim(self) -> int:
        """The length of a dense vector, put together of all columns; for sparse rows as in lengths."""
        return sum(self.lengths)


def check_source(source: Source, metric: str, *, contents: bool = False) -> DataFrame:
    """Return all rows in blocks, each of one reason and lengths, with extra columns that survey and usable read.

    contents : whether they get the hashes of their vectors
    """
    wire = Wire(0, source.sparse, source.grouped)
    marks = [
        T.StructField(_LENGTHS, T.ArrayType(T.IntegerType())),
        T.StructField(_REASON, T.ByteType()),
        T.StructField(_LARGEST, T.DoubleType()),
        T.StructField(_ROUNDED, T.BooleanType()),
        *([T.StructField(CONTENTS, T.BinaryType())] if contents else []),
    ]
    schema = T.StructType(block_fields(source.table.schema[USER_ID].dataType, wire) + marks)
    return source.table.mapInArrow(_check_mapper(source, metric, wire, contents), schema)


def usable(checked: DataFrame, source: Source, wire: Wire, lengths: tuple[int, ...]) -> DataFrame:
    """Return the blocks of usable rows, without the extra columns.

    lengths : those that dense vectors must have
    """
    good = F.col(_REASON) == 0
    if source.even:
        good &= F.col(_LENGTHS) == F.array(*map(F.lit, lengths))
    more = [CONTENTS] if CONTENTS in checked.columns else []
    return checked.where(good).select(IDS, HASHES, *wire.names, LOWEST, *more)


def survey(checked: DataFrame, source: Source, lengths: tuple[int, ...] | None = None) -> Survey:
    """Return the counts of checked rows.

    checked : as check_source returns it
    lengths : those that dense vectors must have; None for the most frequent ones
    """
    seen = _count(checked, id_type(checked), source)
    # Sparse rows of different widths belong together; dense vectors must have the most frequent lengths.
    found = [(part.lengths, part.rows) for part in seen if part.reason == ""]
    none = (0,) * source.n_lengths
    if not source.even:
        lengths = max((given for given, _ in found), default=none)
    elif lengths is None:
        lengths = _usual_lengths(found, none)
    good = [
        part for part in seen if part.reason == "" and (not source.even or (part.lengths == lengths and all(lengths)))
    ]
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
        lengths=lengths,
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
    """Counts of the checked rows of one reason ("" for good ones) and the same lengths."""

    reason: str
    lengths: tuple[int, ...]
    rows: int
    example: object
    id_bytes: int
    numbers: int
    partitions: int
    largest: float
    rounded: bool


def _count(checked: DataFrame, user: T.DataType, source: Source) -> list[_Part]:
    """Count checked rows by reason and, where all rows must have the same lengths, by lengths, in that order.

    Counted in Python, whose workers have started: compiling an aggregation takes Spark a second.
    """
    # For dense vectors the number of numbers follows from the lengths, so that cached vectors are not read.
    dim = sum((F.col(_LENGTHS)[i] for i in range(source.n_lengths)), F.lit(0))
    n_numbers = F.octet_length(COLUMNS) / 4 if source.sparse else F.size(IDS) * dim
    narrow = checked.select(
        _REASON,
        _LENGTHS,
        IDS,
        n_numbers.cast("long").alias(_NUMBERS),
        F.spark_partition_id().alias(_PARTITION),
        _LARGEST,
        _ROUNDED,
    )
    counts = (_REASON, _ROWS, _ID_BYTES, _NUMBERS, _PARTITION)
    schema = T.StructType(
        [
            T.StructField(_EXAMPLE, user),
            T.StructField(_LENGTHS, T.ArrayType(T.IntegerType())),
            *(T.StructField(name, T.LongType()) for name in counts),
            T.StructField(_LARGEST, T.DoubleType()),
            T.StructField(_ROUNDED, T.BooleanType()),
        ]
    )
    groups: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
    counted = narrow.mapInArrow(_count_mapper(user, source.even, source.n_lengths), schema)
    for row in counted.withColumn(_EXAMPLE, showable(F.col(_EXAMPLE), user)).collect():
        groups.setdefault((row[_REASON], tuple(row[_LENGTHS]) if source.even else ()), []).append(row)
    return [_part_of(REASONS[reason], rows) for (reason, _), rows in sorted(groups.items())]


def _part_of(reason: str, rows: list[Row]) -> _Part:
    """Return the counts that batches returned, put together."""
    return _Part(
        reason=reason,
        lengths=tuple(map(max, zip(*(row[_LENGTHS] for row in rows), strict=True))),
        rows=sum(row[_ROWS] for row in rows),
        example=readable(min((row[_EXAMPLE] for row in rows if row[_EXAMPLE] is not None), default=None)),
        id_bytes=sum(row[_ID_BYTES] for row in rows),
        numbers=sum(row[_NUMBERS] for row in rows),
        partitions=len({row[_PARTITION] for row in rows}),
        largest=max(row[_LARGEST] for row in rows),
        rounded=any(row[_ROUNDED] for row in rows),
    )


def _count_mapper(user: T.DataType, even: bool, n_lengths: int) -> Mapper:
    of_any_length = isinstance(user, T.StringType | T.BinaryType)

    def count(batches: Batches) -> Batches:
        for batch in batches:
            reason, lengths = batch.column(0).to_numpy(), elements(batch.column(1)).to_numpy()
            lengths = lengths.reshape(batch.num_rows, n_lengths)
            groups = np.column_stack([reason, lengths if even else np.zeros_like(lengths)])
            for group in np.unique(groups, axis=0):
                rows = np.flatnonzero((groups == group).all(axis=1))
                part = batch.take(pa.array(rows))
                ids = elements(part.column(2))
                sums = {
                    _REASON: group[0],
                    _ROWS: len(ids),
                    _ID_BYTES: (pc.sum(pc.binary_length(ids)).as_py() or 0) if of_any_length else 8 * len(ids),
                    _NUMBERS: pc.sum(part.column(3)).as_py(),
                    _PARTITION: part.column(4)[0].as_py(),
                }
                columns = [pa.repeat(pc.min(ids), 1), pa.array([lengths[rows].max(axis=0)], pa.list_(pa.int32()))]
                columns += [pa.array([int(number)]) for number in sums.values()]
                columns += [pa.repeat(pc.max(part.column(place)), 1) for place in (5, 6)]
                yield pa.RecordBatch.from_arrays(columns, [_EXAMPLE, _LENGTHS, *sums, _LARGEST, _ROUNDED])

    return count


def _usual_lengths(found: list[tuple[tuple[int, ...], int]], none: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths that most rows have together, the shorter of equally frequent ones; none where there are none.

    found : lengths, and the number of rows that have them
    """
    return min(((-rows, lengths) for lengths, rows in found if all(lengths)), default=(0, none))[1]


def _check_mapper(source: Source, metric: str, wire: Wire, contents: bool) -> Mapper:
    forms, weights, no_lengths = source.forms, source.weights, (0,) * source.n_lengths

    def check(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes = batch.column(0), batch.column(1).to_numpy()
            reason, good = _judge(ids, batch.columns[2:], forms, weights, metric)
            if wire.grouped:
                group = batch.column(GROUP).to_numpy()
                good = {lengths: (rows, Grouped(vectors, group[rows])) for lengths, (rows, vectors) in good.items()}
            for lengths, (rows, vectors) in good.items():
                order = np.argsort(hashes[rows], kind="stable")
                row, ordered = rows[order], take_rows(vectors, order)
                yield _checked(ids.take(pa.array(row)), hashes[row], ordered, lengths, 0, wire, contents)
            for code in np.unique(reason[reason > 0]):
                rows = np.flatnonzero(reason == code)
                empty = wire.no_numbers(len(rows))
                yield _checked(ids.take(pa.array(rows)), hashes[rows], empty, no_lengths, int(code), wire, contents)

    return check


def _judge(
    ids: pa.Array, columns: list[pa.Array], forms: tuple[Form, ...], weights: tuple[float, ...], metric: str
) -> JudgedTogether:
    """Judge a batch, whose columns are those of the forms, one form after the other."""
    ends = np.cumsum([len(form) for form in forms]).tolist()
    judged = [
        _judge_vectors(ids, form, columns[end - len(form) : end], metric, most_index(len(forms)))
        for form, end in zip(forms, ends, strict=True)
    ]
    if weights:
        return judge_together(judged, weights, metric)
    reason, good = judged[0]
    return reason, {(length,): found for length, found in good.items()}


def _judge_vectors(ids: pa.Array, form: Form, columns: list[pa.Array], metric: str, most: int) -> Judged:
    if MLLIB in form:
        return check_sparse_rows(ids, *mllib_lists(columns[0]), metric, most)
    if INDICES in form:
        return check_sparse_rows(ids, columns[0], columns[1] if len(columns) > 1 else None, metric, most)
    return (check_structs if MLLIB_DENSE in form else check_rows)(ids, columns[0], metric)


def _checked(
    ids: pa.Array,
    hashes: np.ndarray,
    vectors: Vectors,
    lengths: tuple[int, ...],
    code: int,
    wire: Wire,
    contents: bool,
) -> pa.RecordBatch:
    """Return rows of one reason in blocks with the extra columns of check_source."""
    blocks = block_in_order(ids, hashes, vectors, wire)
    n, values = len(blocks[0]), numbers_of(vectors)
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    marks = [
        to_lists(pa.array(np.tile(np.array(lengths, np.int32), n)), np.full(n, len(lengths))),
        pa.array(np.full(n, code, np.int8)),
        pa.array(np.full(n, largest)),
        pa.array(np.full(n, values.dtype != np.float32)),
    ]
    names = [IDS, HASHES, *wire.names, LOWEST, _LENGTHS, _REASON, _LARGEST, _ROUNDED]
    if contents:
        marks.append(to_binary(contents_of(vectors), rows_of(blocks[1])))
        names.append(CONTENTS)
    return pa.RecordBatch.from_arrays(blocks + marks, names)
