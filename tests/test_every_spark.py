"""The whole line in small: what has to hold on every supported Spark."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError, build_neighbors
from annspark.config import make_job
from annspark.pipeline import run
from tests.helpers import all_distances, clustered, configured, files_in, lists_of, make_table, read_report

ROWS, K = 600, 5


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_every_user_gets_k_neighbors_in_order_with_true_distances(spark, metric):
    vectors = clustered(ROWS)
    result = build_neighbors(make_table(spark, vectors), k=K, metric=metric, leaf_rows=50, audit_users=100)
    distances, lists = all_distances(vectors, metric), lists_of(result.table)
    assert sorted(lists) == list(range(ROWS))
    found = 0
    for user, neighbors in lists.items():
        assert len({other for other, _ in neighbors} - {user}) == len(neighbors) == K
        assert neighbors == sorted(neighbors, key=lambda pair: pair[::-1])
        np.testing.assert_allclose([d for _, d in neighbors], distances[user, [j for j, _ in neighbors]],
                                   rtol=1e-4, atol=1e-6)  # fmt: skip
        limit = np.sort(np.delete(distances[user], user))[K - 1] * (1 + 1e-5) + 1e-6
        found += sum(d <= limit for _, d in neighbors)
    assert found / (ROWS * K) > 0.95
    assert result.report.recall.low <= found / (ROWS * K) <= result.report.recall.high


def test_the_table_depends_neither_on_partitions_nor_on_batches(spark):
    vectors = clustered(ROWS)
    first = lists_of(build_neighbors(make_table(spark, vectors), leaf_rows=50, audit_users=20).table)
    order = np.random.default_rng(1).permutation(ROWS)
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=31):
        shuffled = make_table(spark, vectors[order], order.tolist(), partitions=9)
        assert lists_of(build_neighbors(shuffled, leaf_rows=50, audit_users=20).table) == first


def test_a_job_publishes_the_long_table_and_its_report(spark, tmp_path):
    table = make_table(spark, clustered(ROWS)).withColumn("user_id", F.col("user_id").cast("string"))
    bad = table.limit(3).withColumn("vector", F.array(F.lit(1.0).cast("float")))
    table.union(bad.withColumn("user_id", F.concat(F.lit("bad "), "user_id"))).write.parquet(str(tmp_path / "in"))
    named = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "scratch": str(tmp_path / "scratch")}
    job = make_job(named | {"shape": "long", "k": K, "audit_users": 50, "on_bad_row": "drop"})
    run(spark, job)
    published = spark.read.parquet(str(tmp_path / "out"))
    assert published.dtypes == [
        ("user_id", "string"), ("rank", "int"), ("neighbor_id", "string"), ("distance", "float"),
    ]  # fmt: skip
    assert published.count() == ROWS * K
    report = read_report(tmp_path / "out.report")
    assert report["rows"]["dropped"] == {"wrong_length": 3}
    assert files_in(tmp_path) == ["in", "out", "out.report", "scratch"]


def test_bad_rows_fail_the_build(spark):
    with pytest.raises(InputError, match="zero_vector 1"):
        build_neighbors(make_table(spark, np.concatenate([clustered(20), np.zeros((1, 16), np.float32)])))
