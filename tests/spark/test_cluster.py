from threading import current_thread
from types import SimpleNamespace

import pytest
from pyspark.sql import functions as F

from annspark.spark.cluster import count_cores, count_tasks_of_executor, partition_keys, start_beside, start_workers

pytestmark = pytest.mark.spark35


@pytest.mark.parametrize("n_partitions", [1, 2, 7, 48])
def test_rows_of_a_key_land_alone_in_a_partition(spark, n_partitions):
    keys = partition_keys(n_partitions).tolist()
    assert len(set(keys)) == n_partitions
    rows = spark.createDataFrame([(key,) for key in keys for _ in range(3)], "target int")
    landed = rows.repartition(n_partitions, "target").select("target", F.spark_partition_id().alias("place"))
    # Key i lands in partition i: with distinct keys, no partition is shared and none is empty.
    assert {(row.target, row.place) for row in landed.collect()} == {(key, i) for i, key in enumerate(keys)}


def test_cores_are_those_of_the_session(spark):
    assert count_cores(spark) == 2


def test_workers_tell_how_much_memory_is_free(spark):
    assert 1 << 20 < start_workers(spark) < 1 << 40


def test_work_beside_is_done_in_a_thread_of_its_own_in_the_same_job_group(spark):
    context = spark.sparkContext

    def work(number, *, times):
        return number * times, current_thread(), context.getLocalProperty("spark.jobGroup.id")

    context.setJobGroup("nightly", "a job")
    try:
        product, thread, group = start_beside(spark, work, 3, times=2).result()
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    assert (product, group) == (6, "nightly")
    assert thread is not current_thread()


def test_what_goes_wrong_beside_is_raised_where_the_result_is_wanted(spark):
    def work():
        raise ValueError("no such table")

    started = start_beside(spark, work)
    with pytest.raises(ValueError, match="no such table"):
        started.result()


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [
        ({}, None),
        ({"spark.executor.cores": "8"}, 8),
        ({"spark.executor.cores": "8", "spark.task.cpus": "2"}, 4),
        ({"spark.executor.cores": "2", "spark.task.cpus": "4"}, 1),
    ],
)
def test_an_executor_runs_as_many_tasks_as_its_cores_allow(settings, tasks):
    session = SimpleNamespace(conf=SimpleNamespace(get=settings.get))
    assert count_tasks_of_executor(session) == tasks
