import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from annspark.spark.staging import staging
from tests.helpers import count_cached, files_in

pytestmark = pytest.mark.spark35


def chances(spark):
    return spark.range(50).repartition(3).withColumn("chance", F.rand())


def broken(spark):
    return spark.range(20, numPartitions=3).withColumn(
        "late", F.when(F.col("id") == 19, F.raise_error("no disk left").cast("int"))
    )


def test_a_cached_table_is_computed_once_and_released(spark):
    before = count_cached(spark)
    with staging(None) as stage:
        staged = stage(chances(spark))
        assert sorted(staged.collect()) == sorted(staged.collect())
        assert staged.storageLevel.useMemory
        assert staged.storageLevel.useDisk
    assert not staged.storageLevel.useMemory
    assert count_cached(spark) == before


def test_tables_staged_to_a_folder_are_computed_once_and_removed(spark, tmp_path):
    scratch = tmp_path / "with space %41"
    with staging(f"{scratch}/") as stage:
        staged, another = stage(chances(spark)), stage(chances(spark))
        assert sorted(staged.collect()) == sorted(staged.collect()) != sorted(another.collect())
        assert not staged.storageLevel.useMemory
        assert len(files_in(scratch)) == 1  # a folder for the run
        assert files_in(scratch / files_in(scratch)[0]) == ["0", "1", "_owner.json"]
    assert files_in(scratch) == []


def test_staging_changes_neither_rows_nor_types(spark, tmp_path):
    rows = [(1, "é", bytearray(b"\0\xff")), (2, None, None)]
    table = spark.createDataFrame(rows, "user_id smallint, word string, vector binary").repartition(3)
    for scratch in (None, str(tmp_path)):
        with staging(scratch) as stage:
            assert_df_equality(stage(table), table, ignore_row_order=True)


def test_an_empty_table_can_be_staged_and_released(spark, tmp_path):
    with staging(str(tmp_path)) as stage:
        assert stage(spark.range(0)).count() == 0
        assert stage(spark.range(5).where("id > 9")).count() == 0
    assert files_in(tmp_path) == []


def fail_after_staging(spark, scratch, **options):
    with staging(scratch) as stage:
        stage(chances(spark), **options).count()
        raise ZeroDivisionError


@pytest.mark.parametrize("options", [{}, {"keep": True}], ids=["staged", "kept"])
def test_an_error_in_the_block_passes_through_and_every_table_is_released(spark, tmp_path, options):
    before = count_cached(spark)
    for scratch in (None, str(tmp_path)):
        with pytest.raises(ZeroDivisionError):
            fail_after_staging(spark, scratch, **options)
    assert count_cached(spark) == before
    assert files_in(tmp_path) == []


def test_a_table_that_fails_while_it_is_written_leaves_nothing(spark, tmp_path):
    with staging(str(tmp_path)) as stage:
        stage(chances(spark))
        with pytest.raises(Exception, match="no disk left"):
            stage(broken(spark))
    assert files_in(tmp_path) == []


def test_the_last_table_to_keep_outlives_the_block_and_the_run_after_it(spark, tmp_path):
    for scratch in (None, str(tmp_path / "[1]")):
        with staging(scratch, spark) as stage:
            first, last = (stage(chances(spark), keep=True) for _ in range(2))
            assert first.count() == last.count() == 50
        rows = last.collect()
        with staging(scratch, spark) as stage:
            stage(chances(spark))
        assert last.collect() == rows
        last.unpersist()
    assert len(files_in(tmp_path / "[1]")) == 1
