import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark.core.metric import prepare
from annspark.core.nearest_lists import empty_lists
from annspark.flow.audit import audit_neighbors
from annspark.flow.exact import find_exact
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from annspark.output.layout import layout_of
from annspark.settings import Settings
from tests.core.worlds import exact_neighbors
from tests.helpers import clustered, make_table

ROWS, K = 300, 6
LONG = "user_id bigint, rank int, neighbor_id bigint, distance float"
LAID_OUT = layout_of(Settings(shape="long"))


def read(spark, stage, vectors, metric="cosine", partitions=4):
    return read_vectors(make_table(spark, vectors, partitions=partitions), Settings(metric=metric), stage, 2)


def exact_table(spark, vectors, metric="cosine", k=K):
    """Return the exact neighbor table, long."""
    neighbors, distances = exact_neighbors(prepare(vectors, metric), np.arange(len(vectors)), k, metric)
    rows = [(i, rank + 1, int(j), float(d)) for i in range(len(vectors))
            for rank, (j, d) in enumerate(zip(neighbors[i], distances[i], strict=True)) if j >= 0]  # fmt: skip
    return spark.createDataFrame(rows, LONG).repartition(3)


def audited(table, users, settings):
    """Audit as the pipeline does, with the users its sample draws."""
    users, (sample,) = sample_vectors(users, [settings.audit_users])
    (nearest,) = find_exact(users, [sample], min(settings.k, users.rows - 1))
    return audit_neighbors(table, LAID_OUT, sample, nearest, users, settings).recall


@pytest.fixture(scope="module")
def everybody(spark, stage):
    """Return vectors, users, a sample of all of them, and their exact neighbors."""
    vectors = clustered(ROWS)
    users, (sample,) = sample_vectors(read(spark, stage, vectors), [ROWS])
    (nearest,) = find_exact(users, [sample], K)
    return vectors, users, sample, nearest


def audit_of_everybody(table, everybody):
    _, users, sample, nearest = everybody
    return audit_neighbors(table, LAID_OUT, sample, nearest, users, Settings(k=K))


@pytest.mark.parametrize("metric", [pytest.param("cosine", marks=pytest.mark.slow), "euclidean"])
def test_the_exact_table_has_recall_one(spark, stage, metric):
    vectors = clustered(ROWS)
    settings = Settings(metric=metric, k=K, audit_users=50)
    recall = audited(exact_table(spark, vectors, metric), read(spark, stage, vectors, metric), settings)
    assert (recall.k, recall.mean, recall.users) == (K, 1.0, 50)
    assert recall.high == pytest.approx(1.0)
    assert 0.9 < recall.low < 1.0


def test_recall_is_that_of_brute_force(spark, everybody):
    # Half the users lose their nearest neighbor, so each list that is left has one less of the true ones.
    table = exact_table(spark, everybody[0]).where((F.col("rank") > 1) | (F.col("user_id") % 2 == 0))
    recall = audit_of_everybody(table, everybody).recall
    assert recall.mean == pytest.approx(1 - 0.5 / K)
    assert recall.low < recall.mean < recall.high
    assert recall.users == ROWS


def test_users_without_any_neighbor_count_as_missed(spark, everybody):
    table = exact_table(spark, everybody[0]).where(F.col("user_id") < ROWS // 4)
    recall = audit_of_everybody(table, everybody).recall
    assert recall.mean == pytest.approx(0.25)


def test_an_interval_from_a_sample_covers_the_whole(spark, everybody):
    vectors, users, _, _ = everybody
    table = exact_table(spark, vectors).where((F.col("rank") > 2) | (F.col("user_id") % 3 > 0))
    whole = audit_of_everybody(table, everybody).recall
    part = audited(table, users, Settings(k=K, audit_users=80))
    assert part.users == 80
    assert part.low <= whole.mean <= part.high


def test_a_neighbor_as_far_as_the_kth_counts_whoever_it_is(spark, stage):
    # Three points, each thirty times: every list of twins is right, whichever twins are in it.
    vectors = np.repeat(np.eye(3, dtype=np.float32), 30, axis=0)
    rows = [(i, r + 1, i // 30 * 30 + (i + 5 + r) % 30, 0.0) for i in range(90) for r in range(K)]
    table = spark.createDataFrame(rows, LONG)
    recall = audited(table, read(spark, stage, vectors), Settings(k=K, audit_users=90))
    assert recall.mean == 1.0


def test_fewer_users_than_k_are_judged_by_the_neighbors_there_are(spark, stage):
    vectors = clustered(4)
    recall = audited(exact_table(spark, vectors, k=3), read(spark, stage, vectors), Settings(k=50))
    assert (recall.k, recall.mean, recall.users) == (3, 1.0, 4)


def test_a_single_user_misses_nothing(spark, stage):
    users = read(spark, stage, clustered(1))
    users, (sample,) = sample_vectors(users, [10])
    audit = audit_neighbors(spark.createDataFrame([], LONG), LAID_OUT, sample, empty_lists(1, 0), users, Settings())
    recall = audit.recall
    assert audit.distances == ()
    assert (recall.k, recall.mean, recall.users) == (0, 1.0, 1)


def test_ids_of_another_type_than_the_inputs_are_found(spark, everybody):
    table = exact_table(spark, everybody[0]).withColumn("user_id", F.col("user_id").cast("string"))
    assert audit_of_everybody(table, everybody).recall.mean == 1.0


def test_distances_by_rank_and_popularity_are_those_of_the_table(spark, everybody):
    vectors = everybody[0]
    audit = audit_of_everybody(exact_table(spark, vectors), everybody)
    recall, spreads = audit.recall, audit.distances
    neighbors, distances = exact_neighbors(prepare(vectors, "cosine"), np.arange(ROWS), K, "cosine")
    assert [spread.rank for spread in spreads] == list(range(1, K + 1))
    np.testing.assert_allclose([spread.median for spread in spreads], np.median(distances, axis=0), atol=1e-6)
    np.testing.assert_allclose([spread.p95 for spread in spreads], np.quantile(distances, 0.95, axis=0), atol=1e-6)
    times = np.bincount(neighbors.ravel(), minlength=ROWS)
    in_bands = {band.first: band.users for band in recall.bands}
    assert in_bands.get(0, 0) == (times == 0).sum()
    assert in_bands[1] == ((times >= 1) & (times < 5)).sum()
    assert sum(in_bands.values()) == ROWS
