"""Folders: a path as an output; check it, write tables beside it, and clear what dead runs have left there."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, reason_of
from annspark.output.outputs import REPLACED, Output, Pending, hidden
from annspark.saved.manifest import MANIFEST
from annspark.spark import files
from annspark.spark.leftovers import clear, working_in
from annspark.spark.places import identity_of, reader_of, shown

logger = logging.getLogger("annspark")


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
                clear(parent, hidden(place), lambda folder: _rescue_folder(folder, place))
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
        files.kind_of(output.kept + REPLACED)  # the longest name that may be needed
    except OSError as error:
        raise SettingsError(f"{role} {name!r} is too long a name ({reason_of(error)}). Choose another.") from error
    return output


@contextmanager
def aside(spark: SparkSession, output: Output) -> Iterator[None]:
    """Make the folder for tables written aside; when the block ends, delete it.

    Raises SettingsError when the folder cannot be made, or Spark does not see it.
    """
    made = files.missing_folders(output.parent)
    with working_in(output.aside, output.role, output.name, spark):
        yield
    files.remove_empty(made)  # they are empty when nothing was published


def write_pending(table: DataFrame, output: Output, file_format: str | None) -> Pending:
    """Write a table into the folder for tables written aside."""
    spark = table.sparkSession
    folder = f"{output.aside}/table{len(output.written) or ''}"
    output.written.append(folder)
    files.write_table(table, folder, file_format or "parquet")
    reader = reader_of(spark, file_format).option(*files.LITERAL)
    if file_format in (None, "parquet"):  # known, the schema takes no job to be read from a file
        reader = reader.schema(table.schema)
    return Pending(spark, folder, output, reader.load(folder))


def require_table_like(name: str, place: str) -> None:
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


def _rescue_folder(folder: str, place: str) -> bool:
    """Rename a table back that a dead run had moved aside; return whether the run's folder may be deleted.

    The folder must stay when it has the old table, and something else than a table of annspark is at the output now.
    """
    old = f"{folder}/{REPLACED}"
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
