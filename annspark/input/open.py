"""Open: read the table at a path or catalog name."""

import logging
from contextlib import suppress

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import InputError, known_failure, reason_of
from annspark.job import is_catalog_table
from annspark.spark import files
from annspark.spark.places import exists, reader_of

logger = logging.getLogger("annspark")
_PATTERN = frozenset("[]{}*?\\")


def open_input(spark: SparkSession, name: str, file_format: str | None, role: str = "input") -> DataFrame:
    """Return the table at a path or catalog name; InputError, which names the role, when it cannot be read.

    A path is first taken literally.  If it does not exist and has *, ?, [ or {, it is taken as a pattern.
    """
    kind = "catalog table" if is_catalog_table(name) else "path"
    missing = f"{role} {name!r}: there is no such {kind}."
    reader = reader_of(spark, file_format)
    try:
        found = exists(spark, name)
        pattern = kind == "path" and not found and _matches(spark, name)
    except Exception as error:
        raise InputError(f"{role} {name!r} is no {kind} that Spark can name ({reason_of(error)}).") from error
    if not found and not pattern:
        raise InputError(missing + _why_missing(spark, name, role))
    try:
        if kind == "catalog table":
            table = spark.read.table(name)
        else:
            table = (reader if pattern else reader.option(*files.LITERAL)).load(name)
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


def _matches(spark: SparkSession, name: str) -> bool:
    """Say whether a path is a pattern that something matches."""
    with suppress(Exception):  # a name with an unclosed [ is no pattern
        return not _PATTERN.isdisjoint(name) and files.look(spark, name, pattern=True)[1]
    return False


def _why_missing(spark: SparkSession, name: str, role: str) -> str:
    if is_catalog_table(name):
        return f" If it is a path, write './{name}'."
    files.require_whole_name(spark, role, name, InputError)
    with suppress(Exception):  # a file system that only Spark can reach
        if files.exists(name):
            return f" It is here, but Spark does not see it, {files.why_unseen(spark, name)}"
    return ""
