"""Read: check every row once, and stage its vector as bytes, which every later step reads."""

from contextlib import suppress
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.errors import InputError
from annspark.input.check import MEANING
from annspark.input.duplicates import find_duplicates, without_duplicates
from annspark.input.source import open_source, type_of_ids
from annspark.input.survey import check_source, survey, usable
from annspark.settings import Settings
from annspark.spark.partitions import count_partitions, estimate_bytes, put_together
from annspark.spark.staging import Store
from annspark.spark.wire import Wire
from annspark.tables import quoted

_SPREAD_BYTES = 32 << 20  # a smaller input is not shuffled to occupy every core


@dataclass(frozen=True)
class Users:
    """The valid input, staged.

    table       : blocks of users: ids (array), hashes (binary int64), the columns of wire (vectors as in the input,
                  float32 where that holds all numbers of a block exactly, else float64), lowest (the smallest hash)
    rows        : number of users in table
    wire        : how their vectors are stored
    coordinates : how their numbers are transformed before vectors are compared
    largest     : the largest absolute value of their numbers
    rounded     : whether float32 cannot hold all their numbers exactly
    width       : mean size of a vector in the join, in units of 4 bytes
    id_kind     : type of the published ids; the staged ids of a collated type are plain strings
    read        : rows of the input
    id_bytes    : mean size of an id
    dropped     : number of rows left out, by reason
    examples    : the id of one such row per reason
    """

    table: DataFrame
    rows: int
    wire: Wire
    coordinates: Coordinates
    largest: float
    rounded: bool
    width: float
    id_kind: T.DataType
    read: int
    id_bytes: float
    dropped: dict[str, int]
    examples: dict[str, object]


def read_vectors(
    vectors: DataFrame, settings: Settings, stage: Store, cores: int, *, like: Users | None = None
) -> Users:
    """Check and stage the input.

    vectors : any table with columns of ids and vectors, see open_source; read once
    stage   : computes and stores an intermediate table
    cores   : number of tasks that run at once
    like    : indexed users, if the input is of queries for them: vectors must be of the same kind and length
    Raises InputError for unusable columns and types, for bad rows unless on_bad_row is "drop", and when no valid row is
    left.
    """
    table = put_together(vectors, estimate_bytes(vectors), cores)
    source = open_source(table, settings, like.wire.sparse if like else None)
    kind = type_of_ids(vectors, settings)
    checked = stage(check_source(source, settings.metric))
    # The lengths of sets that are given as arrays of all numbers are not known any more.
    dim = like.wire.dim if like and source.even and not source.sparse else None
    seen = survey(checked, source, dim)
    rows, dropped, examples = seen.rows, dict(seen.dropped), dict(seen.examples)
    wire = Wire(seen.dim if like is None else max(seen.dim, like.wire.dim), source.sparse)
    width = (2 if source.sparse else 1) * seen.numbers / max(rows, 1) + source.sparse
    table, n_bytes = usable(checked, source, wire, seen.dim), rows * (width * 4 + 16)
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
        # The sample step replaces those of the input, when it has seen vectors.
        coordinates=like.coordinates if like else Coordinates(settings.metric),
        largest=seen.largest,
        rounded=seen.rounded,
        width=width,
        id_kind=kind,
        read=seen.read,
        id_bytes=seen.id_bytes / max(rows, 1),
        dropped=dropped,
        examples=examples,
    )
    _require_usable(users, vectors, settings, source.even, like)
    return users


def in_double(users: Users) -> Users:
    """Return the users, with vectors that are shipped to the join in float64."""
    width = (3 * (users.width - 1) / 2 + 1) if users.wire.sparse else 2 * users.width
    return replace(users, coordinates=users.coordinates.in_double(), width=width)


def _require_usable(users: Users, vectors: DataFrame, settings: Settings, even: bool, like: Users | None) -> None:
    """Raise InputError for rows that cannot be used, unless they are to be dropped, and when no row is left."""
    bad = "; ".join(
        f"{reason} {n:,} ({MEANING[reason]}; for example {settings.id_col} {users.examples[reason]!r})"
        for reason, n in users.dropped.items()
    )
    if users.dropped and settings.on_bad_row == "fail":
        whose = "The indexed" if like else "Most"
        usual = f"{whose} vectors have {users.wire.dim:,} numbers. " if even else "Vectors are sparse. "
        nulls = _file_of_nulls(vectors, settings) if {"null_id", "null_vector"} & set(users.dropped) else ""
        raise InputError(
            f"{'queries, ' if like else ''}input columns {settings.id_col!r} and {settings.vector_col!r}: "
            f"{sum(users.dropped.values()):,} of {users.read:,} rows cannot be used: {bad}. "
            f"{usual}{nulls}"
            "Repair the rows, or leave them out with --on-bad-row drop (on_bad_row='drop')."
        )
    if users.rows == 0:
        role, why = "queries" if like else "input", f": {bad}" if bad else ""
        raise InputError(f"{role}: no valid row among {users.read:,}{why}. Nothing to do.")


def _file_of_nulls(vectors: DataFrame, settings: Settings) -> str:
    """Return a sentence that names a file with a null; "" for a table that is not read from files."""
    is_null = F.col(quoted(settings.id_col)).isNull() | F.col(quoted(settings.vector_col)).isNull()
    file = ""
    with suppress(Exception):  # a hint only, and not every session can give it
        file = vectors.where(is_null).select(F.input_file_name()).limit(1).collect()[0][0]
    return f"A null is in {file}: a column a file lacks, or a line that is no JSON, is read as null. " if file else ""
