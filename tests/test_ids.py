from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from annspark import InputError, build_neighbors
from tests.helpers import clustered, grid, lists_of, long_lists_of, make_table
from tests.oracle import all_distances

K = 5
POINTS = grid(3, 3, twins=9)[:40]  # integer points, so that distances are exact and most of them tie
START = datetime(1969, 12, 31, 23, 59, 59, 999_990, tzinfo=UTC)
ALIKE = [
    "",
    " ",
    "1",
    "01",
    "001",
    "1 ",
    " 1",
    "1.0",
    "+1",
    "a",
    "A",
    "á",
    "a\u0301",
    "\x00",
    "\x00\x00",
    "😀",
    "\uffff",
]
IDS = {
    "tinyint": range(-20, 20),
    "bigint": [*range(-(2**63), -(2**63) + 20), *range(2**63 - 20, 2**63)],
    "string": [*ALIKE, *(str(10**i) for i in range(1, 24))],
    "binary": [b"", *(bytes(n) for n in range(1, 20)), *(bytes([255 - n]) for n in range(20))],
    "decimal(38,3)": [Decimal(f"{(i - 20) * 10**33}.{i:03d}") for i in range(40)],
    "date": [date(1960, 2, 28) + timedelta(days=200 * i) for i in range(40)],
    "timestamp": [START + timedelta(microseconds=i) for i in range(40)],
    "timestamp_ntz": [START.replace(tzinfo=None) + timedelta(microseconds=i) for i in range(40)],
}
EVERYDAY = {"string", "binary", "decimal(38,3)", "timestamp"}
SLOW = pytest.mark.slow
CASES = [pytest.param(kind, list(ids), marks=[] if kind in EVERYDAY else SLOW, id=kind) for kind, ids in IDS.items()]


def exact_lists(ids, k):
    """Return what everybody's list has to be, to the bit: by distance, then in the ids' own order."""
    distances = all_distances(POINTS, "euclidean").astype(np.float32).tolist()
    lists = {}
    for user, row in zip(ids, distances, strict=True):
        nearest = sorted((distance, other) for distance, other in zip(row, ids, strict=True) if other != user)[:k]
        lists[user] = [(other, distance) for distance, other in nearest]
    return lists


def in_any_order(spark, ids, kind, partitions):
    """Return a table of POINTS in an order that is not that of the ids."""
    order = np.random.default_rng(1).permutation(len(ids))
    schema = f"user_id {kind}, vector array<float>"
    return make_table(spark, POINTS[order], [ids[i] for i in order], schema=schema, partitions=partitions)


@pytest.mark.spark35
@pytest.mark.parametrize(("kind", "ids"), CASES)
def test_lists_are_exact_and_ties_go_in_the_order_of_the_ids_own_type(spark, kind, ids):
    assert len(set(ids)) == len(POINTS)
    table = in_any_order(spark, ids, kind, partitions=3)
    result = build_neighbors(table, k=K, metric="euclidean", leaf_rows=1_000_000)
    element = f"array<struct<neighbor_id:{kind},distance:float>>"
    assert result.table.dtypes == [("user_id", kind), ("neighbors", element)]
    assert as_given(lists_of(result.table), kind) == exact_lists(ids, K)
    assert result.report.recall.mean == 1
    result.table.unpersist()


def as_given(lists, kind):
    """Return lists whose timestamps, which Spark hands out in local time, know their zone."""
    if kind != "timestamp":
        return lists
    return {local(user): [(local(other), d) for other, d in neighbors] for user, neighbors in lists.items()}


def local(time):
    return time.astimezone(UTC)


@pytest.mark.parametrize("kind", ["decimal(20,0)", pytest.param("binary", marks=SLOW)])
def test_the_same_table_whatever_the_partitioning_with_leaves_widening_and_links(spark, kind):
    vectors = clustered(900, 4)
    numbers = np.random.default_rng(2).permutation(900).tolist()
    make = {"binary": lambda i: i.to_bytes(i % 3 + 2, "big"), "decimal(20,0)": Decimal}[kind]
    lists = []
    for partitions, shape, get in ((1, "nested", lists_of), (5, "long", long_lists_of)):
        schema = f"user_id {kind}, vector array<float>"
        table = make_table(spark, vectors, [make(i) for i in numbers], schema=schema, partitions=partitions)
        named = {"k": K, "leaf_rows": 40, "probes": 1, "shape": shape, "links": "either", "audit_users": 50}
        result = build_neighbors(table, **named)
        lists.append(get(result.table))
        result.table.unpersist()
    assert lists[0] == lists[1]
    assert len(lists[0]) == 900


@pytest.mark.parametrize(("shape", "links"), [("nested", "either"), pytest.param("long", "all", marks=SLOW)])
def test_ids_of_a_collation_are_equal_as_spark_says_and_keep_their_type(spark, shape, links):
    if spark.version < "4":
        pytest.skip("collations came with Spark 4")
    names = ["ann", "ANN", "Bob", "bea", "Cy", "cal"]
    points = [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]]
    table = spark.createDataFrame(list(zip(names, points, strict=True)), "user_id string, vector array<float>")
    table = table.selectExpr("user_id COLLATE UTF8_LCASE AS user_id", "vector")
    with pytest.raises(InputError, match=r"duplicate_id 1 .*'ANN'"):
        build_neighbors(table, k=3, metric="euclidean")
    named = {"k": 4, "metric": "euclidean", "on_bad_row": "drop", "shape": shape, "links": links}
    result = build_neighbors(table, **named)
    lists = (lists_of if shape == "nested" else long_lists_of)(result.table)
    assert result.report.rows.dropped == {"duplicate_id": 1}
    assert sorted(lists) == sorted(["ANN", "Bob", "bea", "Cy", "cal"])  # of two equal ids one stays, always the same
    # Bob's, Ann's and Cy's lie on a line; bea, before Bob by the collation, not by bytes.
    assert lists["ANN"] == [("Bob", 1), ("Cy", 1), ("bea", np.float32(5**0.5)), ("cal", np.float32(5**0.5))]
    assert lists["cal"] == [("bea", 2), ("Cy", 2), ("ANN", np.float32(5**0.5)), ("Bob", np.float32(8**0.5))]
    assert "collate UTF8_LCASE" in dict(result.table.dtypes)["user_id"]
    result.table.unpersist()


@pytest.mark.slow
@pytest.mark.parametrize("made", ["date_add(date'0001-01-01', n)", "timestamp'0001-01-01' + make_interval(0, 0, 0, n)"])
def test_days_that_python_has_not_are_ids_too(spark, made):
    far = "(user_id * 100000 - 200000) AS int)"
    table = make_table(spark, POINTS).selectExpr("*", f"CAST({far} AS n").selectExpr(f"{made} AS user_id", "vector")
    result = build_neighbors(table, k=K, metric="euclidean")
    assert result.table.join(table, "user_id").count() == result.report.rows.written == 40
    odd = table.union(table.limit(1)).union(spark.createDataFrame([(None, [1.0])], table.schema))
    with pytest.raises(InputError, match=r"null_id 1 .*duplicate_id 1 \(the id was met before; for example user_id '"):
        build_neighbors(odd, k=K)
