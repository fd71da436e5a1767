"""Publish: write the table or the index aside, and rename it to its place once it is complete and audited.

With --overwrite a run may replace the table that was at the output when the run began, or one that annspark has
published there since.  Anything else at the output stays, and the finished table is kept beside it.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.job import is_catalog_table
from annspark.output import folders, renames, tables
from annspark.output.outputs import Output, Pending
from annspark.spark import files
from annspark.spark.places import drop


def check_output(spark: SparkSession, name: str, overwrite: bool) -> Output:
    """Return the output of a name, and clear what dead runs to it have left.

    Raises SettingsError when something there may not be replaced, or when no table can be published there whole.
    """
    if is_catalog_table(name):
        return tables.check_table(spark, name, overwrite)
    return folders.check_folder(spark, name, overwrite, "output", folders.require_table_like)


def aside(spark: SparkSession, output: Output) -> AbstractContextManager[None]:
    """Return a context in which tables are written aside; at its end all that are still there are deleted.

    Entering it raises SettingsError when there is no place for them.
    """
    return tables.aside(spark, output) if output.is_table else folders.aside(spark, output)


def write_pending(table: DataFrame, output: Output, file_format: str | None) -> Pending:
    """Write a table beside its output, under a name that readers skip."""
    return (tables if output.is_table else folders).write_pending(table, output, file_format)


def commit(pending: Pending) -> None:
    """Publish what was written aside, all of it at once.

    Raises SettingsError when something is at the output that may not be replaced; it stays, and what was written aside
    is kept beside it.
    """
    renames.commit(pending)


def discard(pending: Pending) -> None:
    """Delete a table written aside that is not needed any more."""
    drop(pending.spark, pending.name)


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
