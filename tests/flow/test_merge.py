import numpy as np
import pytest
from chispa import assert_df_equality

from annspark.flow.merge import merge_neighbors
from tests.helpers import configured


def merged(spark, rows, user="int", *, k=3, partitions=3):
    """Merge rows of (user, neighbors, distances), each in a block of its own or with others of its key."""
    blocks = {}
    for i, (owner, neighbors, distances) in enumerate(rows):
        block = blocks.setdefault((hash(owner) % 5, i % 3), ([], [], [], []))
        for part, more in zip(block, ([owner], neighbors, distances, [len(neighbors)]), strict=True):
            part.extend(more)
    table = [
        (key, ids, others, np.array(distances, np.float32).tobytes(), np.array(counts, np.int32).tobytes())
        for (key, _), (ids, others, distances, counts) in blocks.items()
    ]
    schema = f"partition_key int, ids array<{user}>, neighbor_ids array<{user}>, distances binary, counts binary"
    return merge_neighbors([spark.createDataFrame(table, schema).repartition(4)], partitions, k)


def test_lists_of_a_user_become_one_of_the_k_nearest(spark):
    rows = [
        (1, [2, 3], [0.25, 1.0]),
        (1, [4, 5], [0.5, 0.75]),
        (1, [6], [2.0]),
        (2, [1], [0.25]),
    ]
    expected = [(1, 2, 0.25), (1, 4, 0.5), (1, 5, 0.75), (2, 1, 0.25)]
    found = merged(spark, rows).selectExpr("user_id", "inline(neighbors)")
    wanted = spark.createDataFrame(expected, "user_id int, neighbor_id int, distance float")
    assert_df_equality(found, wanted, ignore_row_order=True)


def test_a_neighbor_met_twice_counts_once(spark):
    rows = [(1, [2, 3], [0.25, 0.5]), (1, [2, 4], [0.25, 0.75]), (1, [2], [0.25])]
    (row,) = merged(spark, rows, k=3).collect()
    assert row["neighbors"] == [(2, 0.25), (3, 0.5), (4, 0.75)]


def test_ties_are_ordered_by_id(spark):
    rows = [(1, [9, 11], [0.5, 0.5]), (1, [10, -3], [0.5, 0.5]), (1, [100], [0.25])]
    (row,) = merged(spark, rows, k=4).collect()
    assert row["neighbors"] == [(100, 0.25), (-3, 0.5), (9, 0.5), (10, 0.5)]


def test_string_ids_are_ordered_by_their_bytes(spark):
    rows = [("u", ["b", "é"], [0.5, 0.5]), ("u", ["a", "B", "10", "9"], [0.5] * 4)]
    (row,) = merged(spark, rows, "string", k=6).collect()
    assert [neighbor["neighbor_id"] for neighbor in row["neighbors"]] == ["10", "9", "B", "a", "b", "é"]


def test_a_user_who_met_nobody_keeps_a_row(spark):
    rows = [(1, [], []), (2, [3], [0.5]), (3, [], []), (3, [2], [0.5])]
    found = {row["user_id"]: row["neighbors"] for row in merged(spark, rows).collect()}
    assert found == {1: [], 2: [(3, 0.5)], 3: [(2, 0.5)]}


@pytest.mark.parametrize(("partitions", "batch"), [(1, 10_000), (11, 1), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_neither_partitions_nor_batches_change_the_lists(spark, partitions, batch):
    rows = [(user, [user + i * step for i in range(1, 4)], [0.5 * i for i in range(1, 4)])
            for user in range(20) for step in (1, 2)]  # fmt: skip
    with configured(spark, spark__sql__execution__arrow__maxRecordsPerBatch=batch):
        found = {row["user_id"]: row["neighbors"] for row in merged(spark, rows, partitions=partitions).collect()}
    nearest = {(i * step, 0.5 * i) for i in range(1, 4) for step in (1, 2)}
    first = sorted(nearest, key=lambda pair: pair[::-1])[:3]
    assert found == {user: [(user + step, distance) for step, distance in first] for user in range(20)}
