"""Tables: a name in the catalog as an output; check it, write tables beside it, and drop what dead runs have left."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyspark.errors import ParseException
from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError
from annspark.output.outputs import REPLACED, Output, Pending, format_to_write, found_at
from annspark.spark import files
from annspark.spark.leftovers import is_dead, this_owner
from annspark.spark.places import (
    drop,
    exists,
    format_of,
    identifier,
    identity_of,
    is_published,
    properties_of,
    rename,
    set_properties,
)
from annspark.spark.versions import WITH_VERSIONS

logger = logging.getLogger("annspark")
_OWNER = "annspark.owner"  # property of a catalog table: the process that writes the table


def check_table(spark: SparkSession, name: str, overwrite: bool, file_format: str | None) -> Output:
    """Return the output of the name of a catalog table, and drop what dead runs to it have left."""
    database = name.rpartition(".")[0]
    try:
        spark.catalog.tableExists(f"{name}__pending_")  # the beginning of the names of tables written aside
    except ParseException as error:
        raise SettingsError(
            f"output {name!r} is no name that can be given to a catalog table: between dots letters, digits and _, "
            f"without quotes. Choose such a name; or if a path is meant, write './{name}'."
        ) from error
    if not spark.catalog.databaseExists(database):
        raise SettingsError(
            f"output {name!r}: there is no database {database!r}. Create it; or if a path is meant, write './{name}'."
        )
    _clear_tables(spark, name)
    is_taken = spark.catalog.tableExists(name)
    kind = spark.catalog.getTable(name).tableType if is_taken else ""
    if "VIEW" in kind.upper() or kind.upper() == "TEMPORARY":
        raise SettingsError(f"output {name!r} is a view, which is never replaced. Choose another name, or drop it.")
    if is_taken and not overwrite:
        raise SettingsError(f"output {name!r} exists. Choose another, or replace it with --overwrite.")
    there = format_of(spark, name) if is_taken else ""
    return Output(
        name=name,
        place=name,
        mark=files.new_mark(),
        overwrite=overwrite,
        found=found_at(spark, "output", name, name, there) if there in WITH_VERSIONS else identity_of(spark, name),
        format=format_to_write(f"output {name!r}", there, file_format),
    )


@contextmanager
def aside(spark: SparkSession, output: Output) -> Iterator[None]:
    """When the block ends, drop all tables written aside that are still there."""
    try:
        yield
    finally:
        for name in output.written:
            drop(spark, name)


def write_pending(table: DataFrame, output: Output) -> Pending:
    """Write a table under a name that is not the output's."""
    spark = table.sparkSession
    name = f"{output.aside}_{len(output.written)}" if output.written else output.aside
    output.written.append(name)
    # In two steps, because Spark loses what observes the rows of a Delta table that is made with them.
    empty = spark.createDataFrame([], table.schema).write
    (empty if output.format is None else empty.format(output.format)).saveAsTable(name)
    set_properties(spark, name, {_OWNER: json.dumps(this_owner())})
    table.write.insertInto(name)
    return Pending(spark, name, output, spark.read.table(name), format_of(spark, name))


def _clear_tables(spark: SparkSession, name: str) -> None:
    """Drop tables that dead runs to the same output wrote aside; rename back one that was moved and not replaced."""
    database, _, last = name.rpartition(".")
    begin = f"{last}__pending_".lower()
    try:
        rows = spark.sql(f"SHOW TABLES IN {identifier(database)} LIKE '{begin}*'").collect()
    except Exception:  # a catalog that cannot list tables
        return
    names = [f"{database}.{row['tableName']}" for row in rows if row["tableName"].lower().startswith(begin)]
    unknown = []
    # Replaced tables first, while the tables with the property of their owner still exist.
    for left in sorted(names, key=lambda left: not left.endswith(f"_{REPLACED}")):
        is_replaced = left.endswith(f"_{REPLACED}")
        dead = is_dead(_owner_of(spark, left, name))
        if not dead:
            unknown += [left] if dead is None else []
        elif is_replaced and not exists(spark, name):
            rename(spark, left, name)
            logger.info("left over: %s, which a run had moved aside when it ended, is back in its place", name)
        elif is_replaced and not is_published(spark, name):
            unknown.append(left)
        else:
            drop(spark, left)
            logger.info("left over: %s, of a run that ended before its time, is dropped", left)
    if unknown:
        logger.info("left over: %s; drop by hand what belongs to no running job", ", ".join(unknown))


def _owner_of(spark: SparkSession, left: str, name: str) -> Any:
    """Return the owner of a table that a run left: a property of the run's pending table, else of the published one."""
    properties = properties_of(spark, left.removesuffix(f"_{REPLACED}")) or properties_of(spark, name)
    with suppress(ValueError):
        return json.loads(properties.get(_OWNER, "null"))
    return None
