"""Staging: an intermediate table is computed once, whatever reads it later."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import DataFrame, SparkSession
from pyspark.storagelevel import StorageLevel

from annspark.errors import reason_of
from annspark.spark import files
from annspark.spark.leftovers import clear, working_in

logger = logging.getLogger("annspark")
Place = Callable[[DataFrame], DataFrame]  # computes a table once, puts it somewhere, and returns what reads it there
# A place; with keep=True for a table that the caller may take along: the last of these stays.
Stage = Callable[..., DataFrame]
_RUN, _KEPT = "annspark-", "neighbors-"


def stage_table(table: DataFrame, folder: str | None) -> DataFrame:
    """Return the table so that it is computed at most once.

    folder : the folder to write it to, which survives lost executors and is the only way on sessions that cannot cache
             (Databricks serverless); None caches it in the session
    """
    if folder is None:
        return table.persist(StorageLevel.MEMORY_AND_DISK)
    files.write_table(table, folder, "parquet")
    return table.sparkSession.read.schema(table.schema).option(*files.LITERAL).parquet(folder)


@contextmanager
def staging(scratch: str | None, spark: SparkSession | None = None) -> Iterator[Stage]:
    """Yield stage_table for tables that are wanted within the block only; SettingsError for a folder out of reach.

    scratch : the folder of folders to write to, in which each run has one of its own; None caches tables
    spark   : is asked what folder it takes scratch for, and whether it sees it
    """
    if scratch is None:
        yield from _caching()
        return
    files.require_reach("scratch", scratch)
    place = scratch
    if spark is not None:
        files.require_whole_name(spark, "scratch", scratch)
        place = files.resolve(spark, "scratch", scratch)
    place = place.rstrip("/")
    clear(place, _RUN, _remove_kept)
    folder = f"{place}/{_RUN}{files.new_mark()}"
    written: list[str] = []
    kept: list[str] = []

    def stage(table: DataFrame, keep: bool = False) -> DataFrame:
        # What the caller keeps lies outside of the run's folder, which is deleted; its name says whose it is.
        path = f"{_kept_of(folder)}{len(kept)}" if keep else f"{folder}/{len(written)}"
        (kept if keep else written).append(path)
        return stage_table(table, path)

    try:
        with working_in(folder, "scratch", scratch, spark):
            yield stage
            for path in kept[:-1]:
                _remove(path)
    except BaseException:  # after the run's folder: by then nothing writes any more
        for path in kept:
            _remove(path)
        raise


def _caching() -> Iterator[Stage]:
    staged: list[DataFrame] = []
    kept: list[DataFrame] = []

    def stage(table: DataFrame, keep: bool = False) -> DataFrame:
        cached = stage_table(table, None)
        (kept if keep else staged).append(cached)
        return cached

    try:
        yield stage
    except BaseException:
        for table in [*staged, *kept]:
            release(table)
        raise
    for table in [*staged, *kept[:-1]]:
        release(table)


def release(table: DataFrame) -> None:
    """Give back what a cached table holds."""
    try:
        table.unpersist()
    except Exception as error:  # of a session that has ended, perhaps; why the run failed is the news
        logger.debug("stage: a table could not be given back (%s)", reason_of(error))


def _kept_of(folder: str) -> str:
    parent, _, name = folder.rpartition("/")
    return f"{parent}/{_KEPT}{name.removeprefix(_RUN)}-"


def _remove_kept(folder: str) -> bool:
    """Delete what a dead run had written to be kept, and had not given to anybody yet."""
    begin = _kept_of(folder)
    for name in files.names_in(begin.rpartition("/")[0]):
        if name.startswith(begin.rpartition("/")[2]):
            _remove(f"{begin.rpartition('/')[0]}/{name}")
    return True


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        try:
            files.remove(path)
        except OSError as error:
            logger.warning("scratch: %s could not be deleted (%s); delete it by hand.", path, reason_of(error))
