"""Spark's own DataFrame.nearestByJoin (4.2 and newer): everybody with everybody, in both of its modes today."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bench.ladders import CORES, K, Setting

CONF = {"spark.master": f"local[{CORES}]", "spark.driver.memory": "8g"}
FAR = {
    "cosine": "1 - vector_cosine_similarity(vector, other)",
    "euclidean": "vector_l2_distance(vector, other)",
}


def search(vectors: DataFrame, output: str, metric: str, setting: Setting) -> None:
    """Join with the K nearest others, then gather them by user."""
    others = vectors.selectExpr("user_id AS neighbor_id", "vector AS other")
    far = FAR[metric]
    rank = F.expr(f"IF(user_id = neighbor_id, NULL, {far})")
    pairs = vectors.nearestByJoin(others, rank, K, mode=setting["mode"], direction="distance")
    each = f"sort_array(collect_list(struct(CAST({far} AS FLOAT) AS distance, neighbor_id)))"
    turned = F.expr(f"transform({each}, one -> struct(one.neighbor_id, one.distance))")
    pairs.groupBy("user_id").agg(turned.alias("neighbors")).write.parquet(output)
