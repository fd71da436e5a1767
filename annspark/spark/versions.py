"""Versions: Delta Lake and Iceberg tables change by atomic commits, which have numbers and say who made them."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from annspark.job import is_catalog_table
from annspark.spark.places import DELTA, ICEBERG, exists, format_of, identifier, properties_of
from annspark.tables import quoted

WITH_VERSIONS = (DELTA, ICEBERG)
MARK = "annspark.run"  # in the metadata of a commit of annspark: the mark of the run
_CREATED = "CREATE TABLE AS SELECT"
# Commits to a Delta table that leave its rows as they are.  Iceberg has one such kind.
_UPKEEP = (
    *("OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "CLUSTER BY"),
    *("COMPUTE STATS", "UPGRADE PROTOCOL"),
)
_REWRITTEN = "replace"
_READ = 100  # commits of a Delta table that are looked at: there are not so many of upkeep between two nights


@dataclass(frozen=True)
class Version:
    """A commit that changed the rows of a table.

    number : Delta's version, or Iceberg's snapshot id; 0 for an Iceberg table without snapshots
    run    : mark of the run of annspark that made it; "" where somebody else did
    """

    number: int
    run: str = ""


def named_in_sql(place: str) -> str:
    """Return what SQL calls a Delta table at a path, or a catalog table."""
    return identifier(place) if is_catalog_table(place) else f"{DELTA}.{quoted(place)}"


def versions_of(spark: SparkSession, place: str, file_format: str) -> list[Version]:
    """Return the commits that changed a table's rows, the newest first; [] where there is no table."""
    if file_format == DELTA:
        return _of_delta(spark, place) if format_of(spark, place) == DELTA else []
    return _of_iceberg(spark, place) if exists(spark, place) else []


def _of_delta(spark: SparkSession, place: str) -> list[Version]:
    rows = spark.sql(f"DESCRIBE HISTORY {named_in_sql(place)} LIMIT {_READ}").collect()
    changed = [row for row in rows if row["operation"] not in _UPKEEP]
    return [Version(row["version"], _run_in(row)) for row in changed or rows[-1:]]


def _run_in(row: Any) -> str:
    """Return the mark in a commit to a Delta table, which a new catalog table has among its properties."""
    told = row["userMetadata"]
    if row["operation"] == _CREATED and told is None:
        told = (row["operationParameters"] or {}).get("properties")
    with suppress(ValueError, AttributeError, TypeError):  # metadata of others may be any text, or none
        return str(json.loads(told).get(MARK, ""))
    return ""


def _of_iceberg(spark: SparkSession, place: str) -> list[Version]:
    with suppress(Exception):  # the session's cached metadata may be old
        spark.catalog.refreshTable(place)
    rows = spark.read.table(f"{place}.snapshots").select("snapshot_id", "parent_id", "operation", "summary").collect()
    snapshots = {row["snapshot_id"]: row for row in rows}
    current = properties_of(spark, place).get("current-snapshot-id", "")
    found, number = [], int(current) if current.isdigit() else None
    while row := snapshots.get(number):
        if row["operation"] != _REWRITTEN:
            found.append(Version(row["snapshot_id"], (row["summary"] or {}).get(MARK, "")))
        number = row["parent_id"]
    return found or [Version(0)]
