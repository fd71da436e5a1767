"""Types of ids, as far as Spark releases differ in them."""

from pyspark.sql import types as T


def is_collated(kind: T.DataType) -> bool:
    """Say whether strings of a type may be equal though their bytes are not (Spark 4)."""
    return isinstance(kind, T.StringType) and getattr(kind, "collation", "UTF8_BINARY") != "UTF8_BINARY"
