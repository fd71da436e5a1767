"""Read: check every row once, and stage its vector as bytes, which every later step reads."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.plan import count_staged_bytes
from annspark.core.weighted import most_index
from annspark.errors import InputError, Unlike
from annspark.input.check import MEANING
from annspark.input.duplicates import find_duplicates, without_duplicates
from annspark.input.given import shown
from annspark.input.source import open_source, type_of_ids
from annspark.input.survey import check_source, survey, usable
from annspark.settings import Settings
from annspark.spark.partitions import count_partitions, estimate_bytes, put_together
from annspark.spark.staging import Store
from annspark.spark.wire import Wire
from annspark.tables import quoted

_MOST_SPARE = 1_000
_SPREAD_BYTES = 32 << 20  # a smaller input is not shuffled to occupy every core


@dataclass(frozen=True)
class GroupSizes:
    """The sizes of groups.

    table        : group (bigint), rows (bigint), staged
    count        : number of groups
    rows_by_size : rows of all groups of one size together, by size
    large        : the rows of each large one, by group; large are those that get trees of their own
    too_small    : users who can have fewer neighbors than others, because their group is so small; 0 until the lists
                   are planned
    in_small     : users who can have fewer than k, because their group is so small; 0 until then, too
    """

    table: DataFrame
    count: int
    rows_by_size: dict[int, int]
    large: dict[int, int]
    too_small: int
    in_small: int

    @property
    def largest(self) -> int:
        """The rows of the largest group."""
        return max(self.rows_by_size)

    @property
    def small_rows(self) -> int:
        """The rows of all groups that are not large."""
        return sum(self.rows_by_size.values()) - sum(self.large.values())


@dataclass(frozen=True)
class Users:
    """The valid rows of a table.

    role        : what messages call the table: "input", "candidates", "queries" or "index"
    table       : blocks of users: ids (array), hashes (binary int64), the columns of wire (vectors as in the input,
                  float32 where that holds all numbers of a block exactly, else float64), lowest (the smallest hash);
                  contents (binary int64, hashes of the vectors) where they were asked for and no row was left out
                  or given pairs since
    rows        : number of users in table
    wire        : how their vectors are stored
    lengths     : how many numbers of a dense vector are from each vector column; () for sparse rows
    coordinates : how their numbers are transformed before vectors are compared
    largest     : the largest absolute value of their numbers
    rounded     : whether float32 cannot hold all their numbers exactly
    width       : mean size of a vector in the join, in units of 4 bytes
    id_kind     : type of the published ids; the staged ids of a collated type are plain strings
    read        : rows of the table
    id_bytes    : mean size of an id
    dropped     : number of rows left out, by reason
    examples    : the id of one such row per reason
    excluded    : number of excluded pairs; None where none were given.  The table then has the columns of
                  spark.block.excluded_fields
    most_excluded : the most pairs that one user excludes
    groups      : the sizes of the groups within which neighbors are looked for; None where there are none
    staged      : whether the table is stored, so that one of its columns is read without making the others
    """

    role: str
    table: DataFrame
    rows: int
    wire: Wire
    lengths: tuple[int, ...]
    coordinates: Coordinates
    largest: float
    rounded: bool
    width: float
    id_kind: T.DataType
    read: int
    id_bytes: float
    dropped: dict[str, int]
    examples: dict[str, object]
    excluded: int | None = None
    most_excluded: int = 0
    groups: GroupSizes | None = None
    staged: bool = True

    @property
    def spare(self) -> int:
        """How many first rows to have beyond those that lists need, because users exclude some of them.

        A user may exclude very many, and all sparse rows are compared with all first rows.  But few of those that one
        excludes are among the first: this is enough where no more than so many are.
        """
        return min(self.most_excluded, _MOST_SPARE)

    @property
    def shipped_width(self) -> float:
        """Mean size of a vector and of what its user excludes, in units of 4 bytes."""
        return self.width + 2 * (self.excluded or 0) / max(1, self.rows)


def read_vectors(
    vectors: DataFrame,
    settings: Settings,
    stage: Store,
    cores: int,
    *,
    role: str = "input",
    like: Users | None = None,
    keep: Store | None = None,
    contents: bool = False,
) -> Users:
    """Check and stage a table.

    vectors : any table with columns of ids and vectors, see open_source; read once
    stage   : computes and stores an intermediate table
    cores   : number of tasks that run at once
    role    : what messages call the table
    like    : the users that these are compared with, if they are others: vectors must be of the same kind and lengths
    keep    : stores the checked rows; None for stage
    contents : whether blocks get the hashes of their vectors, too
    Raises InputError for unusable columns and types, for bad rows unless on_bad_row is "drop", and when no valid row is
    left.
    """
    table = put_together(vectors, estimate_bytes(vectors), cores)
    source = open_source(table, settings, like.wire.sparse if like else None, role)
    kind = type_of_ids(vectors, settings, role)
    checked = (keep or stage)(check_source(source, settings.metric, contents=contents))
    # The lengths of sets that are given as arrays of all numbers are not known any more.
    wanted = like.lengths if like and source.even and not source.sparse else None
    seen = survey(checked, source, wanted)
    rows, dropped, examples = seen.rows, dict(seen.dropped), dict(seen.examples)
    wire = Wire(seen.dim if like is None else max(seen.dim, like.wire.dim), source.sparse, source.grouped)
    width = (2 if source.sparse else 1) * seen.numbers / max(rows, 1) + source.sparse + 2 * source.grouped
    table, n_bytes = usable(checked, source, wire, seen.lengths), count_staged_bytes(rows, width)
    if rows * width * 4 > _SPREAD_BYTES and seen.partitions < cores:
        table = stage(table.repartition(2 * cores))
    elif seen.partitions > count_partitions(n_bytes, cores):
        table = put_together(table, n_bytes, cores)
    if duplicates := find_duplicates(table, rows, kind):
        dropped["duplicate_id"], examples["duplicate_id"] = duplicates.rows, duplicates.example
        rows -= duplicates.rows
        table = put_together(stage(without_duplicates(table, wire, kind)), n_bytes, cores)
    users = Users(
        role=role,
        table=table,
        rows=rows,
        wire=wire,
        lengths=() if source.sparse else seen.lengths,
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
    meaning, told = _meaning_for(settings), "Vectors are sparse. "
    if source.even:
        numbers = _lengths_in_words(settings, seen.lengths)
        told = f"Most vectors have {numbers}. "
        if like and wanted:
            told = ""
            meaning["wrong_length"] = f"the vector does not have {numbers}, as those of the {like.role} have"
    _require_usable(users, vectors, settings, meaning, told, like)
    return users


def in_double(users: Users) -> Users:
    """Return the users, with vectors that are shipped to the join in float64."""
    width = (3 * (users.width - 1) / 2 + 1) if users.wire.sparse else 2 * users.width
    return replace(users, coordinates=users.coordinates.in_double(), width=width)


def _meaning_for(settings: Settings) -> dict[str, str]:
    """Return what each reason says of a row, which may have several vectors."""
    if settings.vector_cols is None:
        return dict(MEANING)
    most = most_index(len(settings.vector_cols))
    return {name: text.replace("the vector", "one of the vectors") for name, text in MEANING.items()} | {
        "bad_index": f"an index is null, negative or above {most:,}: pmod(xxhash64(item), {most + 1}) is not"
    }


def _lengths_in_words(settings: Settings, lengths: tuple[int, ...]) -> str:
    if settings.vector_cols is None:
        return f"{lengths[0]:,} numbers"
    each = (f"{length:,} numbers in {name!r}" for name, length in zip(settings.vector_cols, lengths, strict=True))
    return " and ".join(each)


def _require_usable(
    users: Users, vectors: DataFrame, settings: Settings, meaning: dict[str, str], lengths: str, like: Users | None
) -> None:
    """Raise InputError for rows that cannot be used, unless they are to be dropped, and when no row is left.

    It is Unlike where most vectors are of another length than those they are compared with.

    meaning : what each reason says
    lengths : a sentence on the vectors that can be used, "" where the meanings say it
    like    : those that they are compared with; None for themselves
    """
    bad = "; ".join(
        f"{reason} {n:,} ({meaning[reason]}; for example {settings.id_col} {users.examples[reason]!r})"
        for reason, n in users.dropped.items()
    )
    columns = [settings.id_col, *settings.vector_names]
    unlike = like and 2 * users.dropped.get("wrong_length", 0) > users.read
    error = Unlike if unlike else InputError
    if users.dropped and settings.on_bad_row == "fail":
        nulls = _file_of_nulls(vectors, settings) if {"null_id", "null_vector"} & set(users.dropped) else ""
        advice = f"{nulls}Repair the rows, or leave them out with --on-bad-row drop (on_bad_row='drop')."
        if like and unlike:
            advice = f"Give vectors that were made as those of the {like.role} were."
        raise error(
            f"{users.role}: {sum(users.dropped.values()):,} of {users.read:,} rows cannot be used, by columns "
            f"{shown(columns[:-1])} and {shown([columns[-1]])}: {bad}. {lengths}{advice}"
        )
    if users.rows == 0:
        why = f": {bad}" if bad else ""
        if users.read == 0 and settings.candidate_col and users.role == "candidates":
            why = f": none is true in column {settings.candidate_col!r} (candidate_col)"
        raise error(f"{users.role}: no valid row among {users.read:,}{why}. Nothing to do.")


def _file_of_nulls(vectors: DataFrame, settings: Settings) -> str:
    """Return a sentence that names a file with a null; "" for a table that is not read from files."""
    columns = (F.col(quoted(name)).isNull() for name in (settings.id_col, *settings.vector_names))
    file = ""
    with suppress(Exception):  # a hint only, and not every session can give it
        file = vectors.where(reduce(or_, columns)).select(F.input_file_name()).limit(1).collect()[0][0]
    return f"A null is in {file}: a column a file lacks, or a line that is no JSON, is read as null. " if file else ""
