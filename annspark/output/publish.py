"""Publish: write the table or the index aside, and rename it to its place once it is complete and audited.

With --overwrite a run may replace the table that was at the output when the run began, or one that annspark has
published there since.  Anything else at the output stays, and the finished table is kept beside it.
"""

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from pyspark.errors import ParseException
from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.job import is_catalog_table
from annspark.saved.manifest import MANIFEST
from annspark.spark import files
from annspark.spark.leftovers import clear, is_dead, this_owner, working_in
from annspark.spark.places import (
    FILES,
    drop,
    exists,
    identifier,
    identity_of,
    is_published,
    properties_of,
    reader_of,
    rename,
    set_property,
    shown,
    table_files,
)

logger = logging.getLogger("annspark")
_REPLACED = "replaced"
_OWNER = "annspark.owner"  # property of a catalog table: the process that writes the table


@dataclass(frozen=True)
class Output:
    """Where a table is to be published.

    name      : as the user gave it
    place     : the folder with its scheme, or the catalog table
    mark      : the end of this run's names
    overwrite : whether a table there may be replaced
    found     : identity_of the table that was there when the run began; "" when there was none
    role      : the setting that names it: "output", or "index" for the folder of an index
    link      : the path that was given, when it is a link to place; else ""
    written   : names of the tables written aside so far
    """

    name: str
    place: str
    mark: str
    overwrite: bool
    found: str
    role: str = "output"
    link: str = ""
    written: list[str] = field(default_factory=list)

    @property
    def is_table(self) -> bool:
        """Whether the output is a catalog table."""
        return self.role == "output" and is_catalog_table(self.name)

    @property
    def aside(self) -> str:
        """The folder for tables written aside; for catalog tables the beginning of their names."""
        if self.is_table:
            return f"{self.place}__pending_{self.mark}"
        return f"{self.parent}/{_hidden(self.place)}{self.mark}"

    @property
    def kept(self) -> str:
        """Where the finished table is kept when it cannot be published."""
        return f"{self.place}__kept_{self.mark}" if self.is_table else f"{self.place}.kept-{self.mark}"

    @property
    def report(self) -> str:
        """The folder of the report, when none is given."""
        return f"{self.link or self.place}.report"

    @property
    def parent(self) -> str:
        """The folder or database that contains it."""
        return self.place.rpartition("." if self.is_table else "/")[0]


@dataclass(frozen=True)
class Pending:
    """A table or an index written aside.

    spark  : the session
    name   : where it is now: a folder with its scheme, or a catalog table
    output : where it is to be published
    table  : reads the written table; None for an index
    """

    spark: SparkSession
    name: str
    output: Output
    table: DataFrame | None = None

    def read(self) -> DataFrame:
        """Return the table; an index has none."""
        assert self.table is not None
        return self.table


def require_apart(spark: SparkSession, output: Output, vectors: DataFrame, given: str, role: str = "input") -> None:
    """Raise SettingsError when a table is read from files that would be replaced, under whatever name.

    given : the name of the table
    role  : what the message calls it
    """
    if not output.found:
        return
    read: set[str] = set()
    replaced: set[str] = set()
    with suppress(Exception):  # tables without files
        read = {files.plain(unquote(path)) for path in vectors.inputFiles()}
        if output.is_table:
            replaced = {files.plain(unquote(path)) for path in spark.read.table(output.place).inputFiles()}
        else:
            replaced = {path for path in read if path.startswith(files.plain(output.place) + "/")}
    if read & replaced:
        raise SettingsError(
            f"output {output.name!r} holds files that the {role} {given!r} is read from ({min(read & replaced)!r}), "
            "and they would be replaced. Give another output."
        )


def check_output(spark: SparkSession, name: str, overwrite: bool) -> Output:
    """Return the output of a name, and clear what dead runs to it have left.

    Raises SettingsError when something there may not be replaced, or when no table can be published there whole.
    """
    if is_catalog_table(name):
        return _check_table(spark, name, overwrite)
    return check_folder(spark, name, overwrite, "output", _require_table_like)


def check_folder(
    spark: SparkSession, name: str, overwrite: bool, role: str, require_like: Callable[[str, str], None]
) -> Output:
    """Return the output of the name of a folder, and clear what dead runs to it have left.

    role         : the setting that gives the name
    require_like : called with the name and the place of a folder that may be replaced; raises SettingsError where it
                   holds what must not be deleted
    """
    files.require_rename(name, role)
    files.require_whole_name(spark, role, name)
    named = files.resolve(spark, role, name)
    files.require_rename(named, role)
    place = files.behind_link(named)  # the link stays, and will lead to the new table
    files.require_reach(role, place)
    parent = place.rpartition("/")[0]
    try:
        if files.exists(parent):
            with files.alone(parent):
                clear(parent, _hidden(place), lambda folder: _rescue_folder(folder, place))
        kind = files.kind_of(place)
    except OSError as error:
        raise SettingsError(f"{role} {name!r} cannot be looked at ({reason_of(error)}). Choose another.") from error
    _require_replaceable(f"{role} {name!r}", place, kind, overwrite)
    if kind:
        require_like(name, place)
    files.require_writable(role, name, parent)
    output = Output(
        name=name,
        place=place,
        mark=files.new_mark(),
        overwrite=overwrite,
        found=identity_of(spark, place),
        role=role,
        link=named if place != named else "",
    )
    try:
        files.kind_of(output.kept + _REPLACED)  # the longest name that may be needed
    except OSError as error:
        raise SettingsError(f"{role} {name!r} is too long a name ({reason_of(error)}). Choose another.") from error
    return output


def _require_replaceable(named: str, place: str, kind: str, overwrite: bool) -> None:
    """Raise SettingsError when what is at an output may not be replaced.

    named : role and name, for messages
    kind  : "folder", "file", or "" for nothing
    """
    if kind == "file":
        raise SettingsError(f"{named} is a file, and it must be a folder. Choose another name, or remove it.")
    if kind and not overwrite:
        raise SettingsError(f"{named} exists. Choose another, or replace it with --overwrite.")
    if kind and files.is_mount(place):
        raise SettingsError(
            f"{named} is where a file system is mounted, which cannot be replaced. Choose a folder in it."
        )


def _require_table_like(name: str, place: str) -> None:
    """Raise SettingsError for a folder that is no table: a mistyped name must not delete everything in it."""
    if MANIFEST in files.names_in(place):
        raise SettingsError(
            f"output {name!r} holds an index, which a table must not replace. Give a folder of its own."
        )
    if files.is_published(place):
        return
    if files.is_around_here(place):
        raise SettingsError(f"output {name!r} is or holds the folder this job runs in. Give a folder of its own.")
    others = [folder for folder in files.folders_in(place) if "=" not in folder and not folder.startswith(("_", "."))]
    if others:
        raise SettingsError(
            f"output {name!r} holds folders that no table has ({', '.join(map(repr, others[:3]))}), and they would be "
            "deleted. Give a folder of its own, or empty this one."
        )


def require_format(spark: SparkSession, output: Output, file_format: str | None, shape: str) -> None:
    """Raise SettingsError when a neighbor table cannot be written in a format, or not be read again.

    A table of one row is written aside to find out, except in formats that are known to work.
    """
    if file_format is None or file_format.lower() in ("parquet", "orc", "json"):
        return
    neighbor = ["id AS neighbor_id", "0F AS distance"]
    columns = [f"array(struct({', '.join(neighbor)})) AS neighbors"] if shape == "nested" else ["1 AS rank", *neighbor]
    table = spark.range(1).selectExpr("id", *columns)
    try:
        pending = write_pending(table, output, file_format)
        why = "" if pending.table and pending.table.columns == table.columns else "names of columns are lost"
        discard(pending)
    except Exception as error:
        why = reason_of(error)
    if why:
        raise SettingsError(
            f"'format' is {file_format!r}, which tables of the {shape} shape cannot be published in ({why}). Give "
            "parquet, orc or json."
        )


def _check_table(spark: SparkSession, name: str, overwrite: bool) -> Output:
    database = name.rpartition(".")[0]
    try:
        spark.catalog.tableExists(f"{name}__pending_")  # the beginning of the names of tables written aside
    except ParseException as error:
        raise SettingsError(
            f"output {name!r} is no name that can be given to a catalog table: between dots letters, digits and _, "
            f"without quotes. Choose such a name; or if a path is meant, write './{name}'."
        ) from error
    if not spark.catalog.databaseExists(database):
        raise SettingsError(
            f"output {name!r}: there is no database {database!r}. Create it; or if a path is meant, write './{name}'."
        )
    _clear_tables(spark, name)
    is_taken = spark.catalog.tableExists(name)
    kind = spark.catalog.getTable(name).tableType if is_taken else ""
    if "VIEW" in kind.upper() or kind.upper() == "TEMPORARY":
        raise SettingsError(f"output {name!r} is a view, which is never replaced. Choose another name, or drop it.")
    if is_taken and not overwrite:
        raise SettingsError(f"output {name!r} exists. Choose another, or replace it with --overwrite.")
    return Output(name=name, place=name, mark=files.new_mark(), overwrite=overwrite, found=identity_of(spark, name))


@contextmanager
def aside(spark: SparkSession, output: Output) -> Iterator[None]:
    """Make the folder for tables written aside; when the block ends, delete all tables still there.

    Raises SettingsError when the folder cannot be made, or Spark does not see it.
    """
    if output.is_table:
        try:
            yield
        finally:
            for name in output.written:
                drop(spark, name)
        return
    made = files.missing_folders(output.parent)
    with working_in(output.aside, output.role, output.name, spark):
        yield
    files.remove_empty(made)  # they are empty when nothing was published


def write_pending(table: DataFrame, output: Output, file_format: str | None) -> Pending:
    """Write a table beside its output, under a name that readers skip."""
    spark = table.sparkSession
    if output.is_table:
        name = f"{output.aside}_{len(output.written)}" if output.written else output.aside
        output.written.append(name)
        writer = table.write if file_format is None else table.write.format(file_format)
        writer.saveAsTable(name)
        set_property(spark, name, _OWNER, json.dumps(this_owner()))
        return Pending(spark, name, output, spark.read.table(name))
    folder = f"{output.aside}/table{len(output.written) or ''}"
    output.written.append(folder)
    files.write_table(table, folder, file_format or "parquet")
    reader = reader_of(spark, file_format).option(*files.LITERAL)
    if file_format in (None, "parquet"):  # known, the schema takes no job to be read from a file
        reader = reader.schema(table.schema)
    return Pending(spark, folder, output, reader.load(folder))


def discard(pending: Pending) -> None:
    """Delete a table written aside that is not needed any more."""
    drop(pending.spark, pending.name)


def commit(pending: Pending) -> None:
    """Rename the pending table to its output, and then delete the table it replaces.

    Raises SettingsError when something is at the output that may not be replaced; it stays, and the pending table is
    kept beside it.
    """
    spark, output = pending.spark, pending.output
    replaced = f"{output.aside}_{_REPLACED}" if output.is_table else f"{output.aside}/{_REPLACED}"
    if output.is_table:
        set_property(spark, pending.name, FILES, table_files(spark, pending.name))
    else:
        files.mark_published(pending.name)
    now = identity_of(spark, output.place)
    if now and not (output.overwrite and (now == output.found or is_published(spark, output.place))):
        raise _keep(spark, pending)
    if now:
        rename(spark, output.place, replaced)
    try:
        rename(spark, pending.name, output.place)
    except BaseException as error:
        taken = isinstance(error, FileExistsError)
        if now:
            _put_back(spark, output, replaced, taken)
        if taken:
            raise _keep(spark, pending) from error
        raise
    if now and output.is_table:
        drop(spark, replaced)


def _put_back(spark: SparkSession, output: Output, replaced: str, taken: bool) -> None:
    """Rename the replaced table back after a failed commit; where its place is taken, keep it beside its place.

    replaced : where the table is now
    taken    : the commit failed because another program has written to the output
    """
    if not (taken or (exists(spark, output.place) if output.is_table else files.exists(output.place))):
        rename(spark, replaced, output.place)
        return
    # Of the three tables, the replaced, the pending and the other program's, none is lost.
    rename(spark, replaced, output.kept + _REPLACED)
    logger.warning("publish: what was at %s is now at %s", output.name, output.kept + _REPLACED)


@contextmanager
def undisturbed(*outputs: Output) -> Iterator[None]:
    """Make other runs to the same outputs, and signals to this process, wait until the block ends.

    Between two renames there is no table at the output; between the renames of table and report these are of different
    runs.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for stopping in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(stopping) is not None:  # None: a handler not set from Python, which cannot be restored
                before[stopping] = signal.signal(stopping, lambda received, _: came.append(received))
    try:
        with ExitStack() as locked:
            for parent in sorted({output.parent for output in outputs if not output.is_table}):
                locked.enter_context(files.alone(parent))
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _keep(spark: SparkSession, pending: Pending) -> SettingsError:
    """Rename the pending table to output.kept, because its place is taken, and return the error that says so."""
    output = pending.output
    rename(spark, pending.name, output.kept)
    if output.is_table:
        command = (
            f"ALTER TABLE {identifier(output.kept)} RENAME TO {identifier('.'.join(output.place.split('.')[-2:]))}"
        )
    else:
        command = f"mv '{shown(output.kept)}' '{shown(output.place)}'"
    why = (
        "what was there when the job began was changed or replaced meanwhile, and not by annspark"
        if output.found
        else "something appeared there while the job ran"
    )
    return SettingsError(
        f"{output.role} {output.name!r}: {why}; it was left as it is. What was made is kept at {shown(output.kept)!r}. "
        f"To publish it, move away what is at the output, and run: {command}"
    )


def _hidden(place: str) -> str:
    """Return the beginning of the names of folders written aside.

    The leading dot hides them from jobs that read the parent folder, as readers of partitioned tables do.
    """
    return f".{place.rpartition('/')[2]}.pending-"


def _rescue_folder(folder: str, place: str) -> bool:
    """Rename a table back that a dead run had moved aside; return whether the run's folder may be deleted.

    The folder must stay when it has the old table, and something else than a table of annspark is at the output now.
    """
    old = f"{folder}/{_REPLACED}"
    if not files.exists(old):
        return True
    if not files.exists(place):
        files.move(old, place)
        logger.info("left over: %s, which a run had moved aside when it ended, is back in its place", shown(place))
        return True
    if files.kind_of(place) == "folder" and files.is_published(place):
        return True
    logger.warning("left over: %s was at %s before what is there now; delete it by hand.", shown(old), shown(place))
    return False


def _clear_tables(spark: SparkSession, name: str) -> None:
    """Drop tables that dead runs to the same output wrote aside; rename back one that was moved and not replaced."""
    database, _, last = name.rpartition(".")
    begin = f"{last}__pending_".lower()
    try:
        rows = spark.sql(f"SHOW TABLES IN {identifier(database)} LIKE '{begin}*'").collect()
    except Exception:  # a catalog that cannot list tables
        return
    names = [f"{database}.{row['tableName']}" for row in rows if row["tableName"].lower().startswith(begin)]
    unknown = []
    # Replaced tables first, while the tables with the property of their owner still exist.
    for left in sorted(names, key=lambda left: not left.endswith(f"_{_REPLACED}")):
        is_replaced = left.endswith(f"_{_REPLACED}")
        dead = is_dead(_owner_of(spark, left, name))
        if not dead:
            unknown += [left] if dead is None else []
        elif is_replaced and not exists(spark, name):
            rename(spark, left, name)
            logger.info("left over: %s, which a run had moved aside when it ended, is back in its place", name)
        elif is_replaced and not is_published(spark, name):
            unknown.append(left)
        else:
            drop(spark, left)
            logger.info("left over: %s, of a run that ended before its time, is dropped", left)
    if unknown:
        logger.info("left over: %s; drop by hand what belongs to no running job", ", ".join(unknown))


def _owner_of(spark: SparkSession, left: str, name: str) -> Any:
    """Return the owner of a table that a run left: a property of the run's pending table, else of the published one."""
    properties = properties_of(spark, left.removesuffix(f"_{_REPLACED}")) or properties_of(spark, name)
    with suppress(ValueError):
        return json.loads(properties.get(_OWNER, "null"))
    return None
