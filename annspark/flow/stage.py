"""Staging: an intermediate table is computed once, whatever reads it later."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from pyspark.sql import DataFrame
from pyspark.storagelevel import StorageLevel

from annspark.flow import files

logger = logging.getLogger("annspark")
Stage = Callable[[DataFrame], DataFrame]


def stage_table(table: DataFrame, scratch: str | None) -> DataFrame:
    """Return the table so that it is computed at most once.

    scratch : folder under which to write it, which survives lost executors and is the only way on sessions that
              cannot cache (Databricks serverless); None caches it in the session
    """
    if scratch is None:
        return table.persist(StorageLevel.MEMORY_AND_DISK)
    path = f"{scratch.rstrip('/')}/annspark-{uuid4().hex[:12]}"
    files.write_table(table, path, "parquet", made=path)
    return table.sparkSession.read.schema(table.schema).parquet(path)


@contextmanager
def staging(scratch: str | None) -> Iterator[Stage]:
    """Yield stage_table for tables that are wanted within the block only; SettingsError for a folder out of reach."""
    if scratch is not None:
        files.require_reach("scratch", scratch)
    staged = []

    def stage(table: DataFrame) -> DataFrame:
        staged.append(stage_table(table, scratch))
        return staged[-1]

    try:
        yield stage
    finally:
        for table in staged:
            release(table, scratch)


def release(table: DataFrame, scratch: str | None) -> None:
    """Give back what stage_table holds."""
    if scratch is None:
        table.unpersist()
        return
    try:
        files.remove(files.folder_of(table))
    except Exception as error:  # a left-over must not turn a good night into a failed one
        logger.warning("scratch: %s could not be deleted (%s); delete it by hand.", table.inputFiles()[:1], error)
