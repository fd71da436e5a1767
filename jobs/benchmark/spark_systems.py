"""Systems on Spark, each in a process: NAME INPUT OUTPUT METRIC SETTING; prints the seconds by phase as JSON.

With NAME alone it only starts Spark, which fetches the jars that the system needs. Spark reads, computes and writes in
one go, so all of that is its phase compute. A search writes the K neighbors of everybody.
"""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.benchmark.systems import CORES, K, Setting, timed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Imports of PySpark stand in functions: they are a part of starting Spark, which is timed.
LOCAL = {"spark.master": f"local[{CORES}]", "spark.driver.memory": "8g"}
CONF = {
    "nearest_by": LOCAL,
    "mllib_lsh": LOCAL,
    "hnswlib_spark": {
        # It asks for cores by stage, which local[N] refuses.  The task that holds the graph keeps its CORES slots while
        # other tasks ask it; all are bound to the same two cores as every system.
        "spark.master": f"local-cluster[1,{2 * CORES},8192]",
        "spark.executor.memory": "8g",
        "spark.executor.extraJavaOptions": "--add-modules jdk.incubator.vector",
        "spark.jars.packages": "com.github.jelmerk:hnswlib-spark_4_0_2.13:2.0.0-beta.2",
        "spark.jars.ivy": f"{sys.prefix}/ivy",
    },
}


def nearest_by(vectors: "DataFrame", output: str, metric: str, setting: Setting) -> None:
    """Spark's own DataFrame.nearestByJoin (4.2 and newer): everybody with everybody, in both of its modes today."""
    from pyspark.sql import functions as F

    far = {
        "cosine": "1 - vector_cosine_similarity(vector, other)",
        "euclidean": "vector_l2_distance(vector, other)",
    }[metric]
    others = vectors.selectExpr("user_id AS neighbor_id", "vector AS other")
    rank = F.expr(f"IF(user_id = neighbor_id, NULL, {far})")
    pairs = vectors.nearestByJoin(others, rank, K, mode=setting["mode"], direction="distance")
    each = f"sort_array(collect_list(struct(CAST({far} AS FLOAT) AS distance, neighbor_id)))"
    turned = F.expr(f"transform({each}, one -> struct(one.neighbor_id, one.distance))")
    pairs.groupBy("user_id").agg(turned.alias("neighbors")).write.parquet(output)


def mllib_lsh(vectors: "DataFrame", output: str, metric: str, setting: Setting) -> None:
    """MLlib's BucketedRandomProjectionLSH: pairs that share a bucket, of which each user keeps the nearest.

    It hashes into numHashTables tables whose buckets hold about bucket_rows users where they are densest.
    """
    from pyspark.ml.feature import BucketedRandomProjectionLSH, Normalizer
    from pyspark.ml.functions import array_to_vector
    from pyspark.ml.stat import Summarizer
    from pyspark.sql import Window
    from pyspark.sql import functions as F

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


def hnswlib_spark(vectors: "DataFrame", output: str, metric: str, setting: Setting) -> None:
    """An HNSW graph in the memory of a running task, which answers for every user: m, efConstruction, ef."""
    from pyspark.sql import functions as F
    from pyspark_hnsw.knn import HnswSimilarity

    index = HnswSimilarity(
        identifierCol="user_id",
        featuresCol="vector",
        predictionCol="near",
        numPartitions=1,
        numThreads=CORES,
        k=K + 1,
        distanceFunction=metric,
        **setting,
    )
    model = index.fit(vectors)
    others = f"slice(filter(near, one -> one.neighbor != user_id), 1, {K})"
    named = "transform({}, one -> struct(one.neighbor AS neighbor_id, CAST(one.distance AS FLOAT) AS distance))"
    try:
        found = model.transform(vectors)
        found.select("user_id", F.expr(named.format(others)).alias("neighbors")).write.parquet(output)
    finally:
        model.dispose()


SEARCHES: dict[str, Callable[..., None]] = {
    search.__name__: search for search in (nearest_by, mllib_lsh, hnswlib_spark)
}


def main(code: str, *job: str) -> None:
    """Start Spark, then let the system search and write."""
    seconds: dict[str, float] = {}
    with timed(seconds, "session"):
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.appName(f"benchmark {code}")
        for name, value in CONF[code].items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
    if job:
        source, output, metric, words = job
        with timed(seconds, "compute"):
            SEARCHES[code](spark.read.parquet(source), output, metric, json.loads(words))
    spark.stop()
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
