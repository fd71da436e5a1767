import numpy as np
import pytest

from annspark import build_neighbors
from tests.helpers import clustered, lists_of, make_table
from tests.oracle import assert_sound, recall_of

DENSE = ("cosine", "euclidean", "inner_product", "manhattan", "hamming")
SPARSE = ("cosine", "euclidean", "inner_product", "jaccard")
KINDS = [*((metric, "dense") for metric in DENSE), *((metric, "sparse") for metric in SPARSE)]
K = 6
# Dense cosine and euclidean are everyday ones of test_every_spark.py and test_pipeline.py.
OTHERS = [*(pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[:2]), *KINDS[2:]]


def vectors_for(metric, kind, n):
    """Return float32 (n, dim) vectors, for sparse tables few of whose numbers are not 0."""
    if kind == "dense":
        vectors = clustered(n, 24)
        return (vectors > 0.5).astype(np.float32) if metric == "hamming" else vectors
    rng = np.random.default_rng(0)
    topic = rng.integers(n // 25, size=(n, 1))
    columns = (7 * topic + rng.integers(12, size=(n, 9))) % 200
    vectors = np.zeros((n, 200), np.float32)
    np.put_along_axis(vectors, columns, rng.integers(1, 5, columns.shape).astype(np.float32), axis=1)
    return np.minimum(vectors, 1) if metric == "jaccard" else vectors


def table_of(spark, vectors, metric, kind):
    if kind == "dense":
        return make_table(spark, vectors, partitions=3)
    if metric == "jaccard":
        rows, schema = [np.flatnonzero(row).tolist() for row in vectors], "array<int>"
    else:
        rows = [{int(i): float(row[i]) for i in np.flatnonzero(row)} for row in vectors]
        schema = "map<int,float>"
    return spark.createDataFrame(list(enumerate(rows)), f"user_id int, vector {schema}").repartition(3)


def built(spark, metric, kind, n, **named):
    vectors = vectors_for(metric, kind, n)
    result = build_neighbors(table_of(spark, vectors, metric, kind), k=K, metric=metric, **named)
    lists = lists_of(result.table)
    result.table.unpersist()
    assert_sound(lists, vectors, range(n), K, metric)
    return recall_of(lists, vectors, K, metric), result.report


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "kind"), KINDS)
def test_one_leaf_finds_the_exact_neighbors_of_everybody(spark, metric, kind):
    recall, report = built(spark, metric, kind, 150, leaf_rows=1_000_000)
    assert recall == 1
    assert report.recall.mean == 1
    assert report.cost.pairs_per_user == 150


@pytest.mark.parametrize(("metric", "kind"), OTHERS)
def test_with_many_leaves_the_recall_is_high_and_what_the_audit_says(spark, metric, kind):
    recall, report = built(spark, metric, kind, 1500, leaf_rows=100, recall=0.9, audit_users=750)
    assert recall > 0.87
    assert report.recall.low - 0.01 <= recall <= report.recall.high + 0.01
    assert report.cost.pairs_per_user < 1400


@pytest.mark.spark35
def test_fingerprints_of_bits_have_the_jaccard_distances_scipy_gives_empty_ones_too(spark):
    bits = vectors_for("jaccard", "sparse", 300) > 0
    bits[7], bits[40] = False, False
    rows = [(user, np.packbits(row).tobytes()) for user, row in enumerate(bits)]
    result = build_neighbors(spark.createDataFrame(rows, "user_id int, vector binary"), k=K, metric="jaccard")
    lists = lists_of(result.table)
    result.table.unpersist()
    assert_sound(lists, bits, range(300), K, "jaccard")
    assert recall_of(lists, bits, K, "jaccard") > 0.95
    assert lists[7][0] == (40, 0.0)
    assert lists[7][1:] == [(other, 1.0) for other in range(K - 1)]
