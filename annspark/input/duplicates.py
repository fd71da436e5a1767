"""Duplicates: of several rows with the same id one is kept, the same one in every run."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import order_of
from annspark.core.sampling import slot_of
from annspark.spark.arrow import Batches, collect, numbers, to_binary
from annspark.spark.block import blocked, id_type, unblocked
from annspark.spark.cluster import partition_keys
from annspark.spark.types import is_collated, readable, showable
from annspark.spark.wire import Wire
from annspark.tables import HASHES, IDS, PARTITION_KEY, USER_ID

_REPEATED = "repeated"
_HASHES_TOGETHER = 4_000_000  # hashes sorted by one task


@dataclass(frozen=True)
class Duplicates:
    """Rows left out because another row has their id: how many, and one of the ids."""

    rows: int
    example: object


def find_duplicates(blocks: DataFrame, rows: int, kind: T.DataType) -> Duplicates | None:
    """Return the number of duplicates and an example; None where no id is repeated.

    blocks : ids, hashes
    rows   : number of users in them
    kind   : type of the ids in the input
    """
    if rows == 0 or not (is_collated(kind) or _has_repeated_hashes(blocks, rows)):
        return None
    extra = (
        blocks.select(F.explode(IDS).alias(USER_ID))
        .groupBy(_equal(kind).alias("equal"))
        .agg(F.count("*").alias("count"), F.min(USER_ID).alias(USER_ID))
        .where("count > 1")
        .agg(F.sum(F.col("count") - 1).alias("rows"), showable(F.min(USER_ID), id_type(blocks)).alias("example"))
        .collect()[0]
    )
    return Duplicates(extra["rows"], readable(extra["example"])) if extra["rows"] else None


def without_duplicates(blocks: DataFrame, wire: Wire, kind: T.DataType) -> DataFrame:
    """Return blocks with every id once: of rows with the same id the one whose vector has the smallest bytes."""
    place = F.row_number().over(Window.partitionBy(_equal(kind)).orderBy(*wire.names, USER_ID))
    return blocked(unblocked(blocks, wire).withColumn("place", place).where("place = 1"), wire)


def _equal(kind: T.DataType) -> Column:
    """Return the id in the type in which equal ids compare as equal, though their bytes may differ (collations)."""
    return F.col(USER_ID).cast(kind) if is_collated(kind) else F.col(USER_ID)


def _has_repeated_hashes(blocks: DataFrame, rows: int) -> bool:
    """Say whether any two users have the same hash, as users with the same id have.

    Shuffling 8 bytes per user is cheaper than shuffling ids.  The driver compares those of few users: Spark then has no
    shuffle, and one job less.
    """
    n_partitions = -(-rows // _HASHES_TOGETHER)
    if n_partitions == 1:
        return _count_repeated(numbers(collect(blocks.select(HASHES))[HASHES], np.int64)) > 0
    keys = partition_keys(n_partitions)

    def split(batches: Batches) -> Batches:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            slot = slot_of(hashes, n_partitions)
            order = order_of(slot, n_partitions)
            counts = np.bincount(slot, minlength=n_partitions)
            yield pa.RecordBatch.from_arrays(
                [pa.array(keys), to_binary(hashes[order], counts)], [PARTITION_KEY, HASHES]
            )

    def count(batches: Batches) -> Batches:
        hashes = np.concatenate([np.empty(0, np.int64), *(numbers(b.column(1), np.int64) for b in batches)])
        yield pa.RecordBatch.from_arrays([pa.array([_count_repeated(hashes)])], [_REPEATED])

    parts = blocks.select(HASHES).mapInArrow(split, f"{PARTITION_KEY} int, {HASHES} binary")
    counted = parts.repartition(n_partitions, PARTITION_KEY).mapInArrow(count, f"{_REPEATED} long")
    return any(row[_REPEATED] for row in counted.collect())


def _count_repeated(hashes: np.ndarray) -> int:
    """Return how many hashes are the same as another one before them."""
    ascending = np.sort(hashes)
    return int((ascending[1:] == ascending[:-1]).sum())
