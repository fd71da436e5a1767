"""Staging: compute an intermediate table once and store it, however often it is read."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import DataFrame, DataFrameReader, SparkSession
from pyspark.storagelevel import StorageLevel

from annspark.errors import SettingsError, reason_of
from annspark.spark import files
from annspark.spark.leftovers import clear, working_in

logger = logging.getLogger("annspark")
Store = Callable[[DataFrame], DataFrame]  # stores a table, computed at most once, and returns a DataFrame that reads it
# A place.  Called with keep=True, it stores a table that may outlive the block: the last of these does.  Called with
# anew=True, the returned DataFrame does not know how the table was made: plans of loops would grow with each round.
Stage = Callable[..., DataFrame]
_RUN, _KEPT = "annspark-", "neighbors-"


def stage_table(table: DataFrame, folder: str | None) -> DataFrame:
    """Return the table, stored so that it is computed at most once.

    folder : the folder to write the table to; None caches it in the session.  A written table survives lost executors,
             and is the only way on sessions that cannot cache (Databricks serverless)
    """
    if folder is None:
        return table.persist(StorageLevel.MEMORY_AND_DISK)
    files.write_table(table, folder, "parquet")
    return read_staged(table.sparkSession.read.schema(table.schema), folder)


def read_staged(reader: DataFrameReader, folder: str) -> DataFrame:
    """Return the table that was written to a folder."""
    return reader.option(*files.LITERAL).parquet(folder)


@contextmanager
def staging(scratch: str | None, spark: SparkSession | None = None) -> Iterator[Stage]:
    """Yield a function that stores tables; when the block ends, all are deleted but the last one to keep.

    When the block raises, that one is deleted too.

    scratch : the folder in which every run makes a folder of its own to write to; None caches tables
    spark   : the session, which resolves the path scratch and must see that folder
    Raises SettingsError for a folder that the driver or Spark cannot reach.
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

    def stage(table: DataFrame, keep: bool = False, anew: bool = False) -> DataFrame:  # read from files, all are anew
        # A table to keep is written beside the run's folder, which is deleted; its name has that of the run.
        path = f"{_kept_of(folder)}{len(kept)}" if keep else f"{folder}/{len(written)}"
        (kept if keep else written).append(path)
        return stage_table(table, path)

    try:
        with working_in(folder, "scratch", scratch, spark):
            yield stage
            for path in kept[:-1]:
                _remove(path)
    except BaseException:  # the run's folder is deleted by now, and no task writes any more
        for path in kept:
            _remove(path)
        raise


def _caching() -> Iterator[Stage]:
    staged: list[DataFrame] = []
    kept: list[DataFrame] = []

    def stage(table: DataFrame, keep: bool = False, anew: bool = False) -> DataFrame:
        if anew:
            return _checkpointed(table)
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


def _checkpointed(table: DataFrame) -> DataFrame:
    """Store a table on the executors, which give its room back when nobody holds the returned DataFrame any more."""
    try:
        return table.localCheckpoint()
    except (AttributeError, NotImplementedError) as error:
        raise SettingsError(
            "'scratch' is left out, and this session (Spark Connect before 4.0) can store the tables of a loop only in "
            "files. Set 'scratch' to a folder."
        ) from error


def release(table: DataFrame) -> None:
    """Free the memory of a cached table; a failure is only logged."""
    try:
        table.unpersist()
    except Exception as error:  # the session may have ended; the error that matters is why the run failed
        logger.debug("stage: a table could not be given back (%s)", reason_of(error))


def _kept_of(folder: str) -> str:
    parent, _, name = folder.rpartition("/")
    return f"{parent}/{_KEPT}{name.removeprefix(_RUN)}-"


def _remove_kept(folder: str) -> bool:
    """Delete the tables to keep of a dead run, which never returned them; return True."""
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
