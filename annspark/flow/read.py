"""Read: check every row once and turn its vector into prepared bytes, which every later step reads."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.sampling import slot_of
from annspark.core.vectors import Vectors, is_sparse
from annspark.errors import InputError
from annspark.input.check import MEANING, REASONS, check_rows, check_sparse_rows, mllib_lists
from annspark.input.mllib import check_structs
from annspark.input.source import MLLIB, MLLIB_DENSE, VALUES, Source, open_source, type_of_ids
from annspark.settings import Settings
from annspark.spark.arrow import elements, numbers, to_binary
from annspark.spark.block import block_fields, block_users, blocked, unblocked
from annspark.spark.cluster import partition_keys
from annspark.spark.partitions import count_partitions, estimate_bytes, put_together
from annspark.spark.staging import Stage
from annspark.spark.types import is_collated
from annspark.spark.wire import Wire
from annspark.tables import COLUMNS, HASHES, IDS, LOWEST, TARGET, USER_ID, quoted

_REASON, _DIM, _PARTITION, _REPEATED = "reason", "dim", "partition", "repeated"
_EXAMPLE, _ROWS, _ID_BYTES, _NUMBERS = "example", "rows", "id_bytes", "numbers"
_LARGEST, _ROUNDED = "largest", "rounded"
_SPREAD_BYTES = 32 << 20  # fewer bytes than this are not worth a shuffle to keep every core busy
_HASHES_TOGETHER = 4_000_000  # hashes sorted by one task


@dataclass(frozen=True)
class Users:
    """The valid input, staged.

    table    : blocks of users: ids (array), hashes (binary int64), the columns of wire (vectors as they came, float32
               where that holds all numbers of a block, else float64), lowest (the smallest of the hashes)
    rows     : users in table
    wire     : how their vectors are stored
    coordinates : what becomes of their numbers before they are compared
    largest  : the largest of their numbers, without its sign
    rounded  : float32 does not hold all of them
    width    : numbers of 4 bytes that a vector brings to the join, on average
    read     : rows of the input
    id_bytes : mean size of an id
    dropped  : rows left out, by reason
    examples : one id per reason
    """

    table: DataFrame
    rows: int
    wire: Wire
    coordinates: Coordinates
    largest: float
    rounded: bool
    width: float
    read: int
    id_bytes: float
    dropped: dict[str, int]
    examples: dict[str, object]


def read_vectors(vectors: DataFrame, settings: Settings, stage: Stage, cores: int) -> Users:
    """Check and stage the input.

    vectors : any table with columns of ids and vectors, see open_source; read once
    cores   : how many tasks run at once
    Raises InputError for columns and types that do not fit, for bad rows unless on_bad_row is "drop", and when no
    valid row is left.
    """
    source = open_source(put_together(vectors, estimate_bytes(vectors), cores), settings)
    wire = Wire(0, source.sparse)
    user = source.table.schema[USER_ID].dataType
    marks = [
        T.StructField(_DIM, T.IntegerType()),
        T.StructField(_REASON, T.ByteType()),
        T.StructField(_LARGEST, T.DoubleType()),
        T.StructField(_ROUNDED, T.BooleanType()),
    ]
    schema = T.StructType(block_fields(user, wire) + marks)
    checked = stage(source.table.mapInArrow(_checker(source, settings.metric, wire), schema))
    seen = _survey(checked, user, wire, source.even)
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
    rows, bytes_of_ids, n_numbers, partitions = (
        sum(getattr(part, name) for part in good) for name in ("rows", "id_bytes", "numbers", "partitions")
    )
    wire = Wire(dim, source.sparse)
    width = (2 if source.sparse else 1) * n_numbers / max(rows, 1) + source.sparse
    usable = (F.col(_REASON) == 0) & (F.col(_DIM) == dim) if source.even else F.col(_REASON) == 0
    table = checked.where(usable).select(IDS, HASHES, *wire.names, LOWEST)
    n_bytes = rows * (width * 4 + 16)
    if rows * width * 4 > _SPREAD_BYTES and partitions < cores:
        table = stage(table.repartition(2 * cores))
    elif partitions > count_partitions(n_bytes, cores):
        table = put_together(table, n_bytes, cores)
    equal = F.col(USER_ID)
    kind = type_of_ids(vectors, settings)
    if is_collated(kind):
        equal = equal.cast(kind)  # ids that differ in their bytes may be equal
    if rows and (is_collated(kind) or _has_repeated_hashes(table, rows)):
        extra = (
            table.select(F.explode(IDS).alias(USER_ID))
            .groupBy(equal.alias("equal"))
            .agg(F.count("*").alias("count"), F.min(USER_ID).alias(USER_ID))
            .where("count > 1")
            .agg(F.sum(F.col("count") - 1).alias("rows"), _showable(F.min(USER_ID), user).alias("example"))
            .collect()[0]
        )
        if extra["rows"]:
            dropped["duplicate_id"], examples["duplicate_id"] = extra["rows"], _readable(extra["example"])
            rows -= extra["rows"]
            # Of rows that share an id the one with the smallest bytes stays: the same one at every run.
            place = F.row_number().over(Window.partitionBy(equal).orderBy(*wire.names, USER_ID))
            unique = unblocked(table, wire).withColumn("place", place).where("place = 1")
            table = put_together(stage(blocked(unique, wire)), n_bytes, cores)

    read = sum(part.rows for part in seen)
    largest, rounded = max((part.largest for part in good), default=0.0), any(part.rounded for part in good)
    plain = Coordinates(settings.metric)  # until some have been seen
    id_bytes = bytes_of_ids / max(rows, 1)
    found = Users(table, rows, wire, plain, largest, rounded, width, read, id_bytes, dropped, examples)
    usual = f"Most vectors have {dim} numbers" if source.even else "Vectors are sparse"
    if settings.on_bad_row == "fail" and {"null_id", "null_vector"} & set(dropped):
        _judge(found, settings, f"{usual}. {_file_of_nulls(vectors, settings)}")
    _judge(found, settings, f"{usual}. ")
    return found


def in_double(users: Users) -> Users:
    """Return the users with vectors that travel to the join in float64."""
    width = (3 * (users.width - 1) / 2 + 1) if users.wire.sparse else 2 * users.width
    return replace(users, coordinates=users.coordinates.in_double(), width=width)


def _file_of_nulls(vectors: DataFrame, settings: Settings) -> str:
    """Return a sentence on a file that nulls were read from; "" for tables that come from no files."""
    odd = F.col(quoted(settings.id_col)).isNull() | F.col(quoted(settings.vector_col)).isNull()
    file = ""
    with suppress(Exception):  # only to help: some sessions do not tell
        file = vectors.where(odd).select(F.input_file_name()).limit(1).collect()[0][0]
    return f"A null is in {file}: a column a file lacks, or a line that is no JSON, is read as null. " if file else ""


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


def _survey(checked: DataFrame, user: T.DataType, wire: Wire, even: bool) -> list[_Part]:
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
    counted = few.mapInArrow(_counter(user, even), schema)
    for row in counted.withColumn(_EXAMPLE, _showable(F.col(_EXAMPLE), user)).collect():
        found.setdefault((row[_REASON], row[_DIM] if even else 0), []).append(row)
    return [
        _Part(
            REASONS[reason],
            max(row[_DIM] for row in rows),
            sum(row[_ROWS] for row in rows),
            _readable(min((row[_EXAMPLE] for row in rows if row[_EXAMPLE] is not None), default=None)),
            sum(row[_ID_BYTES] for row in rows),
            sum(row[_NUMBERS] for row in rows),
            len({row[_PARTITION] for row in rows}),
            max(row[_LARGEST] for row in rows),
            any(row[_ROUNDED] for row in rows),
        )
        for (reason, _), rows in sorted(found.items())
    ]


def _counter(user: T.DataType, even: bool) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    lengthy = isinstance(user, T.StringType | T.BinaryType)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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


def _showable(user_id: Column, kind: T.DataType) -> Column:
    """Return an id as something Python can hold, which knows no days before the year 1 or after 9999."""
    return user_id.cast("string") if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType) else user_id


def _readable(user_id: object) -> object:
    """Return an id as a report may show it."""
    return user_id.hex() if isinstance(user_id, bytes | bytearray) else user_id


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


def _checker(source: Source, metric: str, wire: Wire) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    even, columns = source.even, source.table.columns

    def check(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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


def _usual_length(lengths: list[tuple[int, int]]) -> int:
    """Return the most frequent length of a vector, the shorter of two that are equally frequent; 0 for none."""
    return min(((-rows, length) for length, rows in lengths if length > 0), default=(0, 0))[1]


def _judge(found: Users, settings: Settings, more: str) -> None:
    bad = "; ".join(
        f"{reason} {n:,} ({MEANING[reason]}; for example {settings.id_col} {found.examples[reason]!r})"
        for reason, n in found.dropped.items()
    )
    if found.dropped and settings.on_bad_row == "fail":
        raise InputError(
            f"input columns {settings.id_col!r} and {settings.vector_col!r}: "
            f"{sum(found.dropped.values()):,} of {found.read:,} rows cannot be used: {bad}. "
            f"{more}"
            "Repair the rows, or leave them out with --on-bad-row drop (on_bad_row='drop')."
        )
    if found.rows == 0:
        raise InputError(f"input: no valid row among {found.read:,}{': ' + bad if bad else ''}. Nothing to do.")
