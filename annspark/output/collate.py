"""Collate: strings that Spark compares by a collation travel as plain ones, and become what they were at the end."""

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.output.layout import listed, shaped
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID


def uncollated(settings: Settings) -> Settings:
    """Return the settings of the table that collated() takes."""
    return replace(settings, shape="nested")


def collated(table: DataFrame, kind: T.DataType, settings: Settings) -> DataFrame:
    """Return the table to publish: ids of their own type, and neighbors as far as each other in that type's order.

    table    : as uncollated(settings) shapes it
    settings : how to shape it
    """
    lists = listed(table, uncollated(settings))
    ids = F.col(NEIGHBOR_ID).cast(T.ArrayType(kind))
    pairs = F.arrays_zip(F.col(DISTANCE), ids.alias(NEIGHBOR_ID))
    ordered = F.transform(F.sort_array(pairs), lambda one: F.struct(one[NEIGHBOR_ID], one[DISTANCE]))
    return shaped(lists.select(F.col(USER_ID).cast(kind).alias(USER_ID), ordered.alias(NEIGHBORS)), settings)
