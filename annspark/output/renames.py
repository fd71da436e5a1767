"""Renames: publish a folder, or a catalog table whose format has no commits, by renaming it to its place."""

import logging

from pyspark.sql import SparkSession

from annspark.errors import SettingsError
from annspark.output.outputs import REPLACED, Output, Pending
from annspark.spark import files
from annspark.spark.places import (
    FILES,
    drop,
    exists,
    identifier,
    identity_of,
    is_published,
    rename,
    set_property,
    shown,
    table_files,
)

logger = logging.getLogger("annspark")


def commit(pending: Pending) -> None:
    """Rename the pending table to its output, and then delete the table it replaces.

    Raises SettingsError when something is at the output that may not be replaced; it stays, and the pending table is
    kept beside it.
    """
    spark, output = pending.spark, pending.output
    replaced = f"{output.aside}_{REPLACED}" if output.is_table else f"{output.aside}/{REPLACED}"
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


def take_back(pending: Pending) -> None:
    """Undo the commit of a folder: what it has replaced is back, and it is pending again."""
    spark, output = pending.spark, pending.output
    rename(spark, output.place, pending.name)
    if files.exists(f"{output.aside}/{REPLACED}"):
        rename(spark, f"{output.aside}/{REPLACED}", output.place)


def _put_back(spark: SparkSession, output: Output, replaced: str, taken: bool) -> None:
    """Rename the replaced table back after a failed commit; where its place is taken, keep it beside its place.

    replaced : where the table is now
    taken    : the commit failed because another program has written to the output
    """
    if not (taken or (exists(spark, output.place) if output.is_table else files.exists(output.place))):
        rename(spark, replaced, output.place)
        return
    # Of the three tables, the replaced, the pending and the other program's, none is lost.
    rename(spark, replaced, output.kept + REPLACED)
    logger.warning("publish: what was at %s is now at %s", output.name, output.kept + REPLACED)


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
