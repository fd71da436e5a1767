"""Commits: publish to a Delta Lake or Iceberg table by one atomic commit of what was written aside.

The table keeps its history, grants, properties and layout.  A reader sees the last version until the commit is made.
"""

import json
import re

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.errors import SettingsError
from annspark.output.outputs import Pending, kept_error
from annspark.spark.places import DELTA, set_properties
from annspark.spark.versions import MARK, Version, named_in_sql, versions_of

_TRIES = 3  # of a commit that upkeep of the table, such as OPTIMIZE, got in the way of
_FIRST = "another job published to it at the same moment"
# What Delta and Iceberg say where another commit came first.
_CONFLICT = re.compile(
    "DELTA_CONCURRENT|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED|ValidationException|CommitFailedException"
)


def commit(pending: Pending) -> None:
    """Publish the rows of a pending table.

    Raises SettingsError when the table at the output may not be replaced, or when another commit to it came first; it
    stays, and the rows are kept in a table beside it.
    """
    output, before = pending.output, _newest(pending)
    if before and not (output.overwrite and (str(before.number) == output.found or before.run)):
        raise _keep(pending)
    for tried in range(1, _TRIES + 1):
        try:
            _write(pending, before)
            break
        except Exception as error:
            now = _newest(pending)
            if now and now.run == output.mark:  # only the answer was lost
                break
            if now != before:
                raise _keep(pending, _FIRST if now and now.run else "") from error
            if tried == _TRIES or not _CONFLICT.search(str(error)):
                raise
    if before and pending.format == DELTA:
        _require_next(pending, before)
    if before and output.is_table:  # a new table has had them from the start
        set_properties(pending.spark, output.place, _facts(pending))


def _newest(pending: Pending) -> Version | None:
    return next(iter(versions_of(pending.spark, pending.output.place, pending.format)), None)


def _facts(pending: Pending) -> dict[str, str]:
    """Return what the commit, or the table, says of itself."""
    return pending.properties | {MARK: pending.output.mark}


def _write(pending: Pending, before: Version | None) -> None:
    """Make the commit.

    before : the version of the table that it replaces; None where there is no table
    """
    table, output = pending.read(), pending.output
    if before is None:
        _create(pending, output.place)
    elif not _fits(table, _open(pending)):
        # New columns make a new table with the old one's history and properties, but without its layout.
        _save(pending, {"overwriteSchema": "true"})
    elif pending.format == DELTA:
        _save(pending, {"replaceWhere": "true"})  # a plain overwrite would lose the columns of CLUSTER BY
    else:
        options = _in_commit(pending) | {"isolation-level": "serializable"}
        if before.number:
            options["validate-from-snapshot-id"] = str(before.number)
        table.writeTo(output.place).options(**options).overwrite(F.lit(True))


def _create(pending: Pending, place: str) -> None:
    """Make a table of the rows, where none may be."""
    table, options = pending.read(), _in_commit(pending)
    if not pending.output.is_table:
        table.write.format(pending.format).options(**options).save(place)
        return
    writer = table.writeTo(place).using(pending.format).options(**options)
    for name, value in _facts(pending).items():
        writer = writer.tableProperty(name, value)
    writer.create()


def _save(pending: Pending, options: dict[str, str]) -> None:
    """Replace all rows of the table at the output."""
    output = pending.output
    writer = pending.read().write.format(pending.format).mode("overwrite").options(**options, **_in_commit(pending))
    writer.saveAsTable(output.place) if output.is_table else writer.save(output.place)


def _in_commit(pending: Pending) -> dict[str, str]:
    """Return the options that write the facts into the metadata of a commit."""
    facts = _facts(pending)
    if pending.format == DELTA:
        return {"userMetadata": json.dumps(facts)}
    return {f"snapshot-property.{name}": value for name, value in facts.items()}


def _open(pending: Pending) -> DataFrame:
    """Return the table at the output."""
    output, read = pending.output, pending.spark.read
    return read.table(output.place) if output.is_table else read.format(pending.format).load(output.place)


def _fits(table: DataFrame, there: DataFrame) -> bool:
    """Say whether another table has all columns of a table, of the same types.  It may have generated ones too."""
    types = {field.name: field.dataType.simpleString() for field in there.schema}
    return all(types.get(field.name) == field.dataType.simpleString() for field in table.schema)


def _require_next(pending: Pending, before: Version) -> None:
    """Restore what somebody else has committed between the look at the table and Delta's own look at it."""
    versions = versions_of(pending.spark, pending.output.place, DELTA)
    runs = [version.run for version in versions]
    replaced = versions[runs.index(pending.output.mark) + 1]
    if replaced.number != before.number and not replaced.run:
        place = named_in_sql(pending.output.place)
        pending.spark.sql(f"RESTORE TABLE {place} TO VERSION AS OF {replaced.number}").collect()
        raise _keep(pending)


def _keep(pending: Pending, why: str = "") -> SettingsError:
    """Copy the pending table to output.kept, and return the error that says so."""
    output = pending.output
    _create(pending, output.kept)
    command = f"INSERT OVERWRITE {named_in_sql(output.place)} SELECT * FROM {named_in_sql(output.kept)}"
    return kept_error(output, output.kept, f"run: {command}", why)
