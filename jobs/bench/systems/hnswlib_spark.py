"""hnswlib-spark: an HNSW graph in the memory of a running task, which answers for every user."""

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bench.ladders import CORES, K, Setting

CONF = {
    # It asks for cores by stage, which local[N] refuses.  The task that holds the graph keeps its CORES slots while
    # other tasks ask it; all are bound to the same two cores as every system.
    "spark.master": f"local-cluster[1,{2 * CORES},8192]",
    "spark.executor.memory": "8g",
    "spark.executor.extraJavaOptions": "--add-modules jdk.incubator.vector",
    "spark.jars.packages": "com.github.jelmerk:hnswlib-spark_4_0_2.13:2.0.0-beta.2",
    "spark.jars.ivy": f"{sys.prefix}/ivy",
}


def search(vectors: DataFrame, output: str, metric: str, setting: Setting) -> None:
    """Build with m and efConstruction, ask with ef."""
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
