"""MLlib's BucketedRandomProjectionLSH: pairs that share a bucket, of which each user keeps the nearest."""

from pyspark.ml.feature import BucketedRandomProjectionLSH, Normalizer
from pyspark.ml.functions import array_to_vector
from pyspark.ml.stat import Summarizer
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from bench.ladders import CORES, K, Setting

CONF = {"spark.master": f"local[{CORES}]", "spark.driver.memory": "8g"}


def search(vectors: DataFrame, output: str, metric: str, setting: Setting) -> None:
    """Hash into numHashTables tables whose buckets hold about bucket_rows users where they are densest."""
    users = vectors.select("user_id", array_to_vector("vector").alias("given"))
    if metric == "cosine":  # the same neighbors: MLlib has no hash for cosine
        users = Normalizer(inputCol="given", outputCol="point").transform(users).select("user_id", "point")
    else:
        users = users.withColumnRenamed("given", "point")
    count, variance = users.select(F.count("*"), Summarizer.variance(F.col("point"))).first()
    # A projection of the users is nearly normal: this is the width of that share of its peak.
    width = (2 * 3.14159 * variance.toArray().mean()) ** 0.5 * setting["bucket_rows"] / count
    hashing = BucketedRandomProjectionLSH(
        inputCol="point", bucketLength=float(width), numHashTables=setting["numHashTables"], seed=1
    )
    model = hashing.fit(users)
    pairs = model.approxSimilarityJoin(users, users, float("inf"), "far").selectExpr(
        "datasetA.user_id", "datasetB.user_id AS neighbor_id", "far"
    )
    nearest = F.row_number().over(Window.partitionBy("user_id").orderBy("far", "neighbor_id"))
    kept = pairs.where("user_id != neighbor_id").withColumn("rank", nearest).where(F.col("rank") <= K)
    distance = "far * far / 2" if metric == "cosine" else "far"
    each = f"collect_list(struct(CAST({distance} AS FLOAT) AS distance, neighbor_id))"
    turned = F.expr(f"transform(sort_array({each}), one -> struct(one.neighbor_id, one.distance))")
    kept.groupBy("user_id").agg(turned.alias("neighbors")).write.parquet(output)
