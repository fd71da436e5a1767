"""Small partitions are put together before Python sees them; how many there are then follows from the bytes."""

import pytest
from pyspark.sql import functions as F

from annspark.flow.read import read_vectors
from annspark.settings import Settings
from annspark.spark.partitions import count_partitions, estimate_bytes, put_together, sum_of_leaves
from tests.helpers import clustered, make_table, users_in

pytestmark = pytest.mark.spark35

JOIN = """== Optimized Logical Plan ==
Project [user_id#14L, vector#15], Statistics(sizeInBytes=20.9 GiB)
+- Join Inner, (user_id#14L = user_id#1L), Statistics(sizeInBytes=27.8 GiB)
   :- Filter isnotnull(user_id#14L), Statistics(sizeInBytes=3.0 MiB)
   :  +- Relation [user_id#14L,vector#15] parquet, Statistics(sizeInBytes=2.0 MiB)
   +- Project [id#0L AS user_id#1L], Statistics(sizeInBytes=39.1 KiB)
      +- Range (0, 5000, step=1, splits=Some(2)), Statistics(sizeInBytes=1.0 KiB, rowCount=5.00E+3)

== Physical Plan ==
*(1) Range (0, 5000, step=1, splits=2), Statistics(sizeInBytes=9.0 GiB)
"""


def n_partitions(table):
    return table.select(F.spark_partition_id().alias("p")).distinct().count()


def test_the_ends_of_a_plan_are_summed_and_what_is_unknown_stays_so():
    assert sum_of_leaves(JOIN) == 2 * 1024**2 + 1024
    assert sum_of_leaves(JOIN.replace("2.0 MiB", "8.0 EiB")) is None
    assert sum_of_leaves(JOIN.replace("2.0 MiB", "2.00E+3 ZiB")) is None
    assert sum_of_leaves("") is None


def test_spark_tells_the_bytes_of_files_and_cached_tables_but_not_of_rows_handed_over(spark, tmp_path, capsys):
    spark.range(100_000).write.parquet(str(tmp_path / "t"))
    on_disk = sum(path.stat().st_size for path in (tmp_path / "t").glob("*.parquet"))
    read = spark.read.parquet(str(tmp_path / "t"))
    assert estimate_bytes(read.where("id > 7").repartition(50)) == pytest.approx(on_disk, rel=0.1)
    assert estimate_bytes(spark.createDataFrame([(1,)], "id int")) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("n_bytes", "wanted"), [(0, 12), (None, 48), (10 << 30, 160)])
def test_partitions_follow_from_bytes_and_cores(n_bytes, wanted):
    assert count_partitions(n_bytes, cores=3) == wanted


def test_many_small_partitions_become_few_and_few_stay(spark):
    assert n_partitions(put_together(spark.range(300, numPartitions=100), 2400, cores=2)) == 8
    assert n_partitions(put_together(spark.range(300, numPartitions=100), None, cores=2)) == 32
    assert n_partitions(put_together(spark.range(300, numPartitions=3), 2400, cores=2)) == 3
    assert n_partitions(put_together(spark.range(300, numPartitions=100), 100 << 30, cores=2)) == 100


@pytest.mark.parametrize("known", [pytest.param(True, marks=pytest.mark.slow), False])
def test_input_in_many_partitions_is_staged_and_read_in_few(spark, stage, known, monkeypatch):
    if not known:
        monkeypatch.setattr("annspark.flow.read.estimate_bytes", lambda _: None)
    staged = []

    def watched(table):
        staged.append(stage(table))
        return staged[-1]

    vectors = clustered(600, 8)
    many, few = (make_table(spark, vectors, partitions=n).cache() for n in (150, 4))
    many.count()  # from now on Spark knows its bytes
    users = read_vectors(many, Settings(), watched, 2)
    assert n_partitions(staged[0]) == (8 if known else 32)
    assert n_partitions(users.table) == 8
    wanted = read_vectors(few, Settings(), stage, 2)
    assert n_partitions(wanted.table) == 4
    assert sorted(users_in(users.table, 8)) == sorted(users_in(wanted.table, 8))


def test_of_duplicates_in_many_partitions_few_are_left_too(spark, stage):
    table = make_table(spark, clustered(300, 8), [*range(299), 7], partitions=120)
    users = read_vectors(table, Settings(on_bad_row="drop"), stage, 2)
    assert users.dropped == {"duplicate_id": 1}
    assert n_partitions(users.table) <= 8
