"""Types of ids: whole numbers, collations, and how a report shows an id."""

from pyspark.sql import Column
from pyspark.sql import types as T

WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)  # the narrowest first


def is_whole(kind: T.DataType) -> bool:
    """Say whether a type is of whole numbers."""
    return isinstance(kind, WHOLE)


def widens(kind: T.DataType, wanted: T.DataType) -> bool:
    """Say whether both types are of whole numbers, and the second holds all of the first and more."""
    return is_whole(kind) and is_whole(wanted) and WHOLE.index(type(kind)) < WHOLE.index(type(wanted))


def is_collated(kind: T.DataType) -> bool:
    """Say whether two strings of a type may be equal although their bytes differ (Spark 4)."""
    return isinstance(kind, T.StringType) and getattr(kind, "collation", "UTF8_BINARY") != "UTF8_BINARY"


def showable(user_id: Column, kind: T.DataType) -> Column:
    """Return an id in a type that Python can hold: dates as strings, because Python has only the years 1 to 9999."""
    return user_id.cast("string") if isinstance(kind, T.DateType | T.TimestampType | T.TimestampNTZType) else user_id


def readable(user_id: object) -> object:
    """Return an id as a report shows it: bytes in hexadecimal."""
    return user_id.hex() if isinstance(user_id, bytes | bytearray) else user_id
