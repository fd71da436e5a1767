"""One small table to the bit, under every odd session that people have; tests/matrix.py has the Sparks to run it on."""

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import build_neighbors
from tests.helpers import clustered, configured, make_table

ODD = {
    "ansi": {"spark__sql__ansi__enabled": True},
    "no_ansi": {"spark__sql__ansi__enabled": False},
    "half_an_hour_off": {"spark__sql__session__timeZone": "Australia/Lord_Howe"},
    "no_adaptive_plans": {"spark__sql__adaptive__enabled": False},
    "one_shuffle_partition": {"spark__sql__shuffle__partitions": 1},
    "batches_of_3": {"spark__sql__execution__arrow__maxRecordsPerBatch": 3},
    "case_sensitive": {"spark__sql__caseSensitive": True},
}
ALL = {name: value for odd, confs in ODD.items() if odd != "no_ansi" for name, value in confs.items()}


def neighbors_in(spark, folder, twin: bool = False):
    """Return the rows of a table whose ids are times, sorted; intermediate tables lie in a folder.

    twin : the input has another column that differs from the vectors' only in the case of its name
    """
    times = F.expr("timestamp_micros(user_id * 1800000000)")  # half an hour apart, over the changes of clocks
    vectors = make_table(spark, clustered(400, seed=3)).withColumn("user_id", times)
    if twin:
        vectors = vectors.withColumn("VECTOR", F.lit("no vector"))
    pairs = vectors.select("user_id", (F.col("user_id") + F.expr("interval 30 minutes")).alias("neighbor_id"))
    named = {"k": 4, "probes": 3, "leaf_rows": 50, "audit_users": 30, "links": "mutual"}
    result = build_neighbors(vectors, exclude=pairs, scratch=str(folder), **named)
    others = "transform(neighbors, n -> struct(unix_micros(n.neighbor_id), n.distance))"
    return sorted(result.table.selectExpr("unix_micros(user_id)", others).collect())


@pytest.fixture(scope="module")
def usual(spark, tmp_path_factory):
    rows = neighbors_in(spark, tmp_path_factory.mktemp("usual"))
    assert len(rows) == 400
    assert np.mean([len(others) for _, others in rows]) > 2
    return rows


@pytest.mark.parametrize(
    "confs",
    [
        pytest.param(ALL, id="all_at_once", marks=pytest.mark.spark35),
        *(pytest.param(confs, id=name, marks=pytest.mark.slow) for name, confs in ODD.items()),
    ],
)
def test_no_setting_of_the_session_changes_a_bit(spark, usual, tmp_path, confs):
    with configured(spark, **confs):
        assert neighbors_in(spark, tmp_path, twin="spark__sql__caseSensitive" in confs) == usual


@pytest.mark.spark35
def test_sessions_that_forbid_caching_and_settings_give_the_same_table(spark, usual, tmp_path, monkeypatch):
    """With scratch, as on Databricks serverless."""

    def forbidden(*_, **__):
        raise RuntimeError("NOT_SUPPORTED_WITH_SERVERLESS")

    asked = {
        type(spark.range(1)): ("persist", "cache", "checkpoint", "localCheckpoint"),
        type(spark.catalog): ("cacheTable",),
        type(spark.conf): ("set", "unset"),
    }
    for kind, names in asked.items():
        for name in names:
            monkeypatch.setattr(kind, name, forbidden, raising=False)  # Connect of Spark 3.5 has no checkpoints
    assert neighbors_in(spark, tmp_path) == usual
