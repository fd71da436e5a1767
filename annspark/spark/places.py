"""Places: a table is at a path or in the catalog; find, compare, rename and drop it at either."""

import hashlib
import logging
from contextlib import suppress

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import SparkSession

from annspark.errors import reason_of
from annspark.filesystem import is_on_store, scheme_of
from annspark.job import is_catalog_table
from annspark.listed import current
from annspark.spark import files
from annspark.tables import quoted

logger = logging.getLogger("annspark")
DELTA, ICEBERG = "delta", "iceberg"
FILES = "annspark.files"  # property of a catalog table: a digest of its files when annspark published it


def exists(spark: SparkSession, name: str) -> bool:
    """Say whether anything exists at a path, or a catalog table has the name."""
    if not is_catalog_table(name):
        return files.is_seen(spark, name)
    try:
        return spark.catalog.tableExists(name)
    except ParseException:  # a file name, with a dash for example, is no table name
        return False


def kind_at(place: str) -> str:
    """Return what is at a path, as files.kind_of; "" where runs write that have not published."""
    kind = files.kind_of(place)
    return "" if kind == "folder" and is_on_store(place) and not files.own_names(place) else kind


def format_of(spark: SparkSession, place: str) -> str:
    """Return the format of the table at a place, in small letters; of paths only delta; else ""."""
    if not is_catalog_table(place):
        log = f"{place.rstrip('/')}/_delta_log"
        with suppress(Exception):  # a path that cannot be looked at
            # Spark takes half a second.  PyArrow tries for minutes to reach a store without the right keys.
            is_there = files.exists(log) if scheme_of(log) in ("", "file") else files.is_seen(spark, log)
            return DELTA if is_there else ""
        return ""
    with suppress(Exception):  # there is no such table, or it has no such details
        rows = spark.sql(f"DESCRIBE TABLE EXTENDED {identifier(place)}").collect()
        return str({row[0]: row[1] for row in rows}.get("Provider") or "").lower()
    return ""


def identity_of(spark: SparkSession, place: str) -> str:
    """Return a digest of the table at a place, which changes when the table changes; "" where there is nothing."""
    if not is_catalog_table(place):
        kind = kind_at(place)
        return files.fingerprint(place) if kind == "folder" else kind
    if not exists(spark, place):
        return ""
    with suppress(Exception):  # the session's cached metadata may be old
        spark.catalog.refreshTable(place)
    known = ["there", table_files(spark, place)]
    with suppress(Exception):  # a table without such details
        rows = spark.sql(f"DESCRIBE TABLE EXTENDED {identifier(place)}").collect()
        known += [str(tuple(row)) for row in rows if row[0] not in ("Last Access", "Statistics")]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def is_published(spark: SparkSession, place: str) -> bool:
    """Say whether annspark published the table at a place, and it has not been changed since."""
    if not is_catalog_table(place):
        return files.kind_of(place) == "folder" and files.is_published(place)
    digest = properties_of(spark, place).get(FILES)
    return digest is not None and digest == table_files(spark, place)


def table_files(spark: SparkSession, name: str) -> str:
    """Return a digest of the names of a table's files, without their folder; every change makes files of new names."""
    names: list[str] = []
    with suppress(Exception):  # a table without files
        names = sorted(path.rpartition("/")[2] for path in spark.read.table(name).inputFiles())
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def fingerprint_of(spark: SparkSession, place: str) -> str:
    """Return a digest of a table's files, which stays when it is renamed; "" where there is no table."""
    if is_catalog_table(place):
        return table_files(spark, place) if exists(spark, place) else ""
    return files.contents(current(place)) if files.kind_of(place) == "folder" else ""


def rename(spark: SparkSession, old: str, new: str) -> None:
    """Rename a table; FileExistsError when the new name is taken."""
    if not is_catalog_table(old):
        files.move(old, new)
        return
    try:
        try:  # most catalogs take the new name only without the catalog's name
            spark.sql(f"ALTER TABLE {identifier(old)} RENAME TO {identifier('.'.join(new.split('.')[-2:]))}")
        except AnalysisException as error:
            if new.count(".") < 2 or _is_taken(error):
                raise
            spark.sql(f"ALTER TABLE {identifier(old)} RENAME TO {identifier(new)}")
    except AnalysisException as error:
        if _is_taken(error):
            raise FileExistsError(reason_of(error)) from error
        raise


def _is_taken(error: AnalysisException) -> bool:
    return "ALREADY_EXISTS" in str(error)


def drop(spark: SparkSession, name: str) -> None:
    """Delete a table; a failure is only logged, so that it neither fails a good run nor hides why a run failed."""
    try:
        if is_catalog_table(name):
            purge = " PURGE" if format_of(spark, name) == ICEBERG else ""  # without it most catalogs leave the files
            spark.sql(f"DROP TABLE IF EXISTS {identifier(name)}{purge}")
        elif files.exists(name):
            files.remove(name)
    except Exception as error:
        logger.warning("publish: %s could not be deleted (%s); delete it by hand.", name, reason_of(error))


def set_properties(spark: SparkSession, name: str, properties: dict[str, str]) -> None:
    """Set properties of a catalog table; nothing happens where the catalog has no properties."""
    told = ", ".join(f"{_text(key)} = {_text(value)}" for key, value in properties.items())
    with suppress(Exception):
        spark.sql(f"ALTER TABLE {identifier(name)} SET TBLPROPERTIES ({told})")


def _text(value: str) -> str:
    """Return a text in quotes, for SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def properties_of(spark: SparkSession, name: str) -> dict[str, str]:
    """Return a catalog table's properties; {} when there is no such table."""
    with suppress(Exception):
        return {row[0]: row[1] for row in spark.sql(f"SHOW TBLPROPERTIES {identifier(name)}").collect()}
    return {}


def shown(place: str) -> str:
    """Return a place as messages show it: a local path without its scheme."""
    return place.removeprefix("file:") if place.startswith("file:/") else place


def identifier(name: str) -> str:
    """Return a catalog table's name with every part quoted, for SQL."""
    return ".".join(quoted(part) for part in name.split("."))
