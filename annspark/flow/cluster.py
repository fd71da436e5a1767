"""What the session can tell of the cluster through the DataFrame API alone, so that Connect can tell it too."""

from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def count_cores(spark: SparkSession) -> int:
    """Return the session's default parallelism, which is the cores of its executors unless configured."""
    return spark.range(0, 100_000).select(F.spark_partition_id().alias("p")).agg(F.max("p")).collect()[0][0] + 1


def partition_keys(spark: SparkSession, n_partitions: int) -> list[int]:
    """Return one key per partition, so that repartition(n_partitions, key) sends key i's rows to a partition alone.

    Spark places a row by a hash of its key; keys 0, 1, 2, ... would leave a third of the partitions empty.
    """
    # Coupon collector: this many keys miss a partition for less than one n in 10^6.
    tried = 20 * n_partitions + n_partitions * n_partitions.bit_length()
    target = F.pmod(F.hash(F.col("id").cast("int")), F.lit(n_partitions))
    # One partition: grouping then needs no shuffle.
    keys = spark.range(0, tried, 1, 1)
    rows = keys.groupBy(target.alias("target")).agg(F.min("id").alias("key")).collect()
    key_of = {row["target"]: row["key"] for row in rows}
    return [key_of[target] for target in range(n_partitions)]
