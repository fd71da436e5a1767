"""Read: check every row once and turn its vector into prepared bytes, which every later step reads."""

from contextlib import suppress
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.core.coordinates import Coordinates
from annspark.errors import InputError
from annspark.input.check import MEANING
from annspark.input.duplicates import find_duplicates, without_duplicates
from annspark.input.source import open_source, type_of_ids
from annspark.input.survey import check_source, survey, usable
from annspark.settings import Settings
from annspark.spark.partitions import count_partitions, estimate_bytes, put_together
from annspark.spark.staging import Place
from annspark.spark.wire import Wire
from annspark.tables import quoted

_SPREAD_BYTES = 32 << 20  # fewer bytes than this are not worth a shuffle to keep every core busy


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


def read_vectors(vectors: DataFrame, settings: Settings, stage: Place, cores: int) -> Users:
    """Check and stage the input.

    vectors : any table with columns of ids and vectors, see open_source; read once
    stage   : the place of the staged table
    cores   : how many tasks run at once
    Raises InputError for columns and types that do not fit, for bad rows unless on_bad_row is "drop", and when no
    valid row is left.
    """
    source = open_source(put_together(vectors, estimate_bytes(vectors), cores), settings)
    kind = type_of_ids(vectors, settings)
    checked = stage(check_source(source, settings.metric))
    seen = survey(checked, source)
    rows, dropped, examples = seen.rows, dict(seen.dropped), dict(seen.examples)
    wire = Wire(seen.dim, source.sparse)
    width = (2 if source.sparse else 1) * seen.numbers / max(rows, 1) + source.sparse
    table, n_bytes = usable(checked, source, wire), rows * (width * 4 + 16)
    if rows * width * 4 > _SPREAD_BYTES and seen.partitions < cores:
        table = stage(table.repartition(2 * cores))
    elif seen.partitions > count_partitions(n_bytes, cores):
        table = put_together(table, n_bytes, cores)
    if duplicates := find_duplicates(table, rows, kind):
        dropped["duplicate_id"], examples["duplicate_id"] = duplicates.rows, duplicates.example
        rows -= duplicates.rows
        table = put_together(stage(without_duplicates(table, wire, kind)), n_bytes, cores)
    users = Users(
        table=table,
        rows=rows,
        wire=wire,
        coordinates=Coordinates(settings.metric),  # until some have been seen
        largest=seen.largest,
        rounded=seen.rounded,
        width=width,
        read=seen.read,
        id_bytes=seen.id_bytes / max(rows, 1),
        dropped=dropped,
        examples=examples,
    )
    _require_usable(users, vectors, settings, source.even)
    return users


def in_double(users: Users) -> Users:
    """Return the users with vectors that travel to the join in float64."""
    width = (3 * (users.width - 1) / 2 + 1) if users.wire.sparse else 2 * users.width
    return replace(users, coordinates=users.coordinates.in_double(), width=width)


def _require_usable(users: Users, vectors: DataFrame, settings: Settings, even: bool) -> None:
    """Raise InputError for rows that cannot be used, unless they are to be dropped, and where none is left."""
    bad = "; ".join(
        f"{reason} {n:,} ({MEANING[reason]}; for example {settings.id_col} {users.examples[reason]!r})"
        for reason, n in users.dropped.items()
    )
    if users.dropped and settings.on_bad_row == "fail":
        usual = f"Most vectors have {users.wire.dim} numbers. " if even else "Vectors are sparse. "
        nulls = _file_of_nulls(vectors, settings) if {"null_id", "null_vector"} & set(users.dropped) else ""
        raise InputError(
            f"input columns {settings.id_col!r} and {settings.vector_col!r}: "
            f"{sum(users.dropped.values()):,} of {users.read:,} rows cannot be used: {bad}. "
            f"{usual}{nulls}"
            "Repair the rows, or leave them out with --on-bad-row drop (on_bad_row='drop')."
        )
    if users.rows == 0:
        raise InputError(f"input: no valid row among {users.read:,}{': ' + bad if bad else ''}. Nothing to do.")


def _file_of_nulls(vectors: DataFrame, settings: Settings) -> str:
    """Return a sentence on a file that nulls were read from; "" for tables that come from no files."""
    odd = F.col(quoted(settings.id_col)).isNull() | F.col(quoted(settings.vector_col)).isNull()
    file = ""
    with suppress(Exception):  # only to help: some sessions do not tell
        file = vectors.where(odd).select(F.input_file_name()).limit(1).collect()[0][0]
    return f"A null is in {file}: a column a file lacks, or a line that is no JSON, is read as null. " if file else ""
