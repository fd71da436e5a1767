"""Open: read the table at a path or catalog name."""

import logging
from contextlib import suppress

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import InputError, known_failure, reason_of
from annspark.filesystem import is_on_store
from annspark.job import is_catalog_table
from annspark.listed import LIST, LOOK_INSIDE, is_in_run
from annspark.spark import files
from annspark.spark.places import DELTA, exists, format_of
from annspark.spark.steps import digest_of
from annspark.spark.versions import WITH_VERSIONS, versions_of

logger = logging.getLogger("annspark")
_PATTERN = frozenset("[]{}*?\\")


def open_input(
    spark: SparkSession, name: str, file_format: str | None, role: str = "input", version: int | None = None
) -> DataFrame:
    """Return the table at a path or catalog name; InputError, which names the role, when it cannot be read.

    A path is first taken literally.  If it does not exist and has *, ?, [ or {, it is taken as a pattern.

    file_format : of paths.  A Delta table is read as one whatever it says: read as Parquet, it has the rows of earlier
                  versions too.  With delta, which an output may need, anything else is read as Parquet
    version     : of a table that has versions; None for the newest
    """
    kind = "catalog table" if is_catalog_table(name) else "path"
    missing = f"{role} {name!r}: there is no such {kind}."
    there = format_of(spark, name)
    reader = spark.read if version is None else spark.read.option("versionAsOf", version)
    try:
        found = exists(spark, name)
        pattern = kind == "path" and not found and _matches(spark, name)
    except Exception as error:
        more = files.how_to_reach(name)
        raise InputError(f"{role} {name!r} is no {kind} that Spark can name ({reason_of(error)}).{more}") from error
    if not found and not pattern:
        raise InputError(missing + _why_missing(spark, name, role))
    if version is not None and there not in WITH_VERSIONS:
        raise InputError(
            f"{role} {name!r}: version {version} is asked for, and this is no Delta Lake or Iceberg table. Only these "
            "have versions. Leave the version out."
        )
    try:
        if kind == "catalog table":
            table = reader.table(name)
        else:
            reader = reader.format(there or (file_format if file_format not in (None, DELTA) else "parquet"))
            reader = reader if pattern else reader.option(*files.LITERAL)
            table = (reader.option(*LOOK_INSIDE) if not there and _is_listed(spark, name) else reader).load(name)
        _ = table.schema  # Connect reads nothing until the schema is needed
        logger.info("%-9s             %s", role, name)
        return table
    except Exception as error:  # a broken file and an unknown format raise different classes
        if known := known_failure(error):
            raise known from error
        if kind == "path" and "PATH_NOT_FOUND" in str(
            error
        ):  # it is here, and Spark looks elsewhere, in HDFS for example
            raise InputError(missing + _why_missing(spark, name, role)) from error
        if "UNABLE_TO_INFER_SCHEMA" in str(error):
            raise InputError(f"{role} {name!r}: no file in it holds data, so there are no columns to read.") from error
        raise InputError(f"{role} {name!r} cannot be read as a {kind}: {reason_of(error)}.") from error


def version_read(table: DataFrame, name: str, version: int | None) -> str | None:
    """Return which state of an input is read, for the report: a version, or a digest of its files; None if unknown.

    name    : of the input
    version : that was asked for; None for the newest
    """
    spark = table.sparkSession
    there = format_of(spark, name)
    if there in WITH_VERSIONS:
        number = versions_of(spark, name, there)[0].number if version is None else version
        return f"{there} {'version' if there == DELTA else 'snapshot'} {number}"
    digest = digest_of({}, [table])
    return f"files {digest[:16]}" if digest else None


def _matches(spark: SparkSession, name: str) -> bool:
    """Say whether a path is a pattern that something matches."""
    with suppress(Exception):  # a name with an unclosed [ is no pattern
        return not _PATTERN.isdisjoint(name) and files.look(spark, name, pattern=True)[1]
    return False


def _is_listed(spark: SparkSession, name: str) -> bool:
    """Say whether a path is on an object store, and has a list of the files that annspark has published there."""
    # PyArrow may not reach what is only read, so Spark is asked.
    if not is_on_store(name) or not files.is_seen(spark, f"{name.rstrip('/')}/{LIST}/0"):
        return False
    reader = spark.read.format("binaryFile").option(*files.LITERAL).option(*LOOK_INSIDE)
    return any(is_in_run(path) for path in reader.load(name).inputFiles())


def _why_missing(spark: SparkSession, name: str, role: str) -> str:
    if is_catalog_table(name):
        return f" If it is a path, write './{name}'."
    files.require_whole_name(spark, role, name, InputError)
    with suppress(Exception):  # a file system that only Spark can reach
        if files.exists(name):
            return f" It is here, but Spark does not see it, {files.why_unseen(spark, name)}"
    return ""
