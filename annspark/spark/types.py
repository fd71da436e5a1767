"""Types of ids: collations, and what of them a report can show."""

from pyspark.sql import Column
from pyspark.sql import types as T


def is_collated(kind: T.DataType) -> bool:
    """Say whether strings of a type may be equal though their bytes are not (Spark 4)."""
    return isinstance(kind, T.StringType) and getattr(kind, "collation", "UTF8_BINARY") != "UTF8_BINARY"


def showable(user_id: Column, kind: T.DataType) -> Column:
    """Return an id as something Python can hold, which knows no days before the year 1 or after 9999."""
    return user_id.cast("string") if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType) else user_id


def readable(user_id: object) -> object:
    """Return an id as a report may show it."""
    return user_id.hex() if isinstance(user_id, bytes | bytearray) else user_id
