"""The whole line in small: what has to hold on every supported Spark."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError, build_neighbors
from annspark.job import make_job
from annspark.nightly import publish_neighbors
from tests.helpers import clustered, configured, files_in, lists_of, make_table, read_report
from tests.oracle import all_distances

pytestmark = pytest.mark.spark35
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


def test_neither_the_table_nor_what_was_predicted_depends_on_partitions_batches_or_cores(spark, monkeypatch):
    # No structure to speak of: several leaves are needed for the recall.
    vectors, order = np.random.default_rng(8).normal(size=(ROWS, 12)), np.random.default_rng(1).permutation(ROWS)
    named, found = {"k": K, "leaf_rows": 50, "audit_users": 20, "recall": 0.9}, []
    for rows, ids, partitions, cores, records in ((vectors, None, 4, 2, 10_000), (vectors[order], order, 9, 1, 31)):
        monkeypatch.setattr("annspark.pipeline.count_cores", lambda _, cores=cores: cores)
        with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=records):
            table = make_table(spark, rows, None if ids is None else ids.tolist(), partitions=partitions)
            result = build_neighbors(table, **named)
            found.append((result.report.calibration, lists_of(result.table)))
            result.table.unpersist()
    assert found[0] == found[1]
    assert found[0][0].probes > 1


def test_a_job_publishes_the_long_table_and_its_report(spark, tmp_path):
    table = make_table(spark, clustered(ROWS)).withColumn("user_id", F.col("user_id").cast("string"))
    bad = table.limit(3).withColumn("vector", F.array(F.lit(1.0).cast("float")))
    table.union(bad.withColumn("user_id", F.concat(F.lit("bad "), "user_id"))).write.parquet(str(tmp_path / "in"))
    named = {"input": str(tmp_path / "in"), "output": str(tmp_path / "out"), "scratch": str(tmp_path / "scratch")}
    job = make_job(named | {"shape": "long", "k": K, "audit_users": 50, "on_bad_row": "drop"})
    publish_neighbors(spark, job)
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
