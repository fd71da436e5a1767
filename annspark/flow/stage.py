"""Staging: an intermediate table is computed once, whatever reads it later."""

from pyspark.sql import DataFrame
from pyspark.storagelevel import StorageLevel

from annspark.flow import files


def stage_table(table: DataFrame, folder: str | None) -> DataFrame:
    """Return the table so that it is computed at most once.

    folder : where to write it, which survives lost executors and is the only way on sessions that cannot cache
             (Databricks serverless); None caches the table in the session
    """
    if folder is None:
        return table.persist(StorageLevel.MEMORY_AND_DISK)
    table.write.parquet(folder, compression="lz4")
    return table.sparkSession.read.schema(table.schema).parquet(folder)


def release(table: DataFrame, folder: str | None) -> None:
    """Give back what stage_table holds."""
    if folder is None:
        table.unpersist()
    else:
        files.remove(files.folder_of(table))
