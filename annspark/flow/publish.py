"""Publish: the table is written aside, and takes its place by a rename once it is complete and audited."""

import logging
from dataclasses import dataclass
from uuid import uuid4

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import DataFrame, DataFrameReader, SparkSession

from annspark.config import is_catalog_table
from annspark.errors import InputError, SettingsError, known_failure, reason_of
from annspark.flow import files
from annspark.tables import quoted

logger = logging.getLogger("annspark")


@dataclass(frozen=True)
class Pending:
    """A table written aside.

    table  : reads what was written
    name   : where it lies now: a folder with its scheme, or a catalog table
    target : where it belongs
    """

    table: DataFrame
    name: str
    target: str


def open_input(spark: SparkSession, name: str, file_format: str | None, role: str = "input") -> DataFrame:
    """Return the input table; raises InputError, which names its role, when there is none."""
    kind = "catalog table" if is_catalog_table(name) else "path"
    if not _exists(spark, name):
        hint = f" If it is a path, write './{name}'." if is_catalog_table(name) else ""
        raise InputError(f"{role} {name!r}: there is no such {kind}.{hint}")
    try:
        found = spark.read.table(name) if kind == "catalog table" else _reader(spark, file_format).load(name)
        _ = found.schema  # Connect looks only when asked
        return found
    except Exception as error:  # a broken file, an unknown format: each has a class of its own
        if known := known_failure(error):
            raise known from error
        if "UNABLE_TO_INFER_SCHEMA" in str(error):
            raise InputError(f"{role} {name!r}: no file in it holds data, so there are no columns to read.") from error
        raise InputError(f"{role} {name!r} cannot be read as a {kind}: {reason_of(error)}.") from error


def check_target(spark: SparkSession, name: str, overwrite: bool) -> None:
    """Raise SettingsError when the output is there and may not be replaced, or could not be published whole."""
    if is_catalog_table(name):
        database = name.rpartition(".")[0]
        if not spark.catalog.databaseExists(database):
            raise SettingsError(
                f"output {name!r}: there is no database {database!r}. "
                f"Create it; or if a path is meant, write './{name}'."
            )
        there = spark.catalog.tableExists(name)
    else:
        files.require_rename(name)
        resolved, there = _resolve(spark, name)
        files.require_rename(resolved)
        files.require_reach("output", resolved)
    if there and not overwrite:
        raise SettingsError(f"output {name!r} exists. Choose another, or replace it with --overwrite.")


def write_pending(table: DataFrame, target: str, file_format: str | None) -> Pending:
    """Write the table beside its target, where no reader looks."""
    spark = table.sparkSession
    mark = uuid4().hex[:12]
    if is_catalog_table(target):
        name = f"{target}__pending_{mark}"
        writer = table.write if file_format is None else table.write.format(file_format)
        writer.saveAsTable(name)
        return Pending(spark.read.table(name), name, target)
    parent, _, last = target.rstrip("/").rpartition("/")
    # The leading dot hides the folder from jobs that read the parent folder, as a partitioned table's readers do.
    hidden = f"{parent + '/' if parent or target.startswith('/') else ''}.{last}.pending-{mark}/table"
    files.write_table(table, hidden, file_format or "parquet", made=hidden.rpartition("/")[0])
    written = _reader(spark, file_format).load(hidden)
    folder = files.folder_of(written)
    return Pending(written, folder, f"{folder.rsplit('/', 2)[0]}/{last}")


def commit(pending: Pending) -> None:
    """Let the pending table take its target's place; what stood there goes once the new one is in place."""
    spark = pending.table.sparkSession
    aside = f"{pending.name}_replaced"
    replaces = _exists(spark, pending.target)
    if replaces:
        _rename(spark, pending.target, aside)
    try:
        _rename(spark, pending.name, pending.target)
    except BaseException:
        if replaces:
            _rename(spark, aside, pending.target)
        raise
    if replaces and is_catalog_table(aside):
        _drop(spark, aside)
    if not is_catalog_table(pending.name):
        discard(pending)  # the folder, and in it what was replaced


def discard(pending: Pending) -> None:
    """Delete what was written aside."""
    table = is_catalog_table(pending.name)
    _drop(pending.table.sparkSession, pending.name if table else pending.name.rpartition("/")[0])


def _exists(spark: SparkSession, name: str) -> bool:
    if not is_catalog_table(name):
        return _resolve(spark, name)[1]
    try:
        return spark.catalog.tableExists(name)
    except ParseException:  # a file's name, with a dash perhaps, is no table's
        return False


def _resolve(spark: SparkSession, path: str) -> tuple[str, bool]:
    """Return a path as Spark resolves it, with its scheme (that of a file below it will do), and whether it exists."""
    try:
        # Given twice, because for a single path that is not there Spark logs a stack trace.
        found = spark.read.format("binaryFile").load([path, path]).inputFiles()
    except AnalysisException as error:
        named = error.getMessageParameters() or {}
        return named.get("path", path), "PATH_NOT_FOUND" not in str(error)
    return (found[0] if found else path), True


def _reader(spark: SparkSession, file_format: str | None) -> DataFrameReader:
    return spark.read.format(file_format or "parquet")


def _rename(spark: SparkSession, old: str, new: str) -> None:
    if not is_catalog_table(old):
        files.move(old, new)
        return
    try:  # most catalogs want the new name without theirs
        spark.sql(f"ALTER TABLE {_identifier(old)} RENAME TO {_identifier('.'.join(new.split('.')[-2:]))}")
    except AnalysisException:
        if new.count(".") < 2:
            raise
        spark.sql(f"ALTER TABLE {_identifier(old)} RENAME TO {_identifier(new)}")


def _drop(spark: SparkSession, name: str) -> None:
    """Clean up; what cannot be deleted must not turn a good night into a failed one, nor hide why a night failed."""
    try:
        if is_catalog_table(name):
            spark.sql(f"DROP TABLE IF EXISTS {_identifier(name)}")
        else:
            files.remove(name)
    except Exception as error:
        logger.warning("publish: %s could not be deleted (%s); delete it by hand.", name, error)


def _identifier(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))
