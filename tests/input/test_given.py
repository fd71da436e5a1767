"""Whatever a notebook may hand over in place of a table, or with columns that cannot be told apart: one sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from annspark import build_neighbors
from annspark.errors import InputError
from annspark.evaluate import evaluate_neighbors
from annspark.input.given import find_column, require_table
from annspark.input.source import open_source
from annspark.settings import Settings
from tests.helpers import configured

FRAME = pd.DataFrame({"user_id": range(3), "vector": np.eye(3).tolist()})
OTHERS = {
    "pandas DataFrame": (FRAME, "spark.createDataFrame(it)"),
    "pandas Series": (FRAME["vector"], "spark.createDataFrame(frame)"),
    "pyarrow Table": (pa.table({"user_id": [1]}), "spark.createDataFrame(table.to_pandas())"),
    "list": ([(1, [1.0])], "spark.createDataFrame(rows, "),
    "dict": ({"user_id": [1]}, "spark.createDataFrame(rows, "),
    "numpy ndarray": (np.eye(3), "row.tolist()"),
    "'a/path'": ("a/path", "spark.read.parquet(path)"),
    "PosixPath": (Path("a/path"), "spark.read.parquet(path)"),
    "None": (None, "spark.read.parquet(path)"),
}


def refused(call, *parts):
    with pytest.raises(InputError) as caught:
        call()
    told = str(caught.value)
    assert [part for part in parts if part not in told] == []
    assert "\n" not in told
    return told


@pytest.mark.parametrize("named", OTHERS)
def test_what_is_no_spark_dataframe_is_named_with_the_way_to_one(named):
    given, way = OTHERS[named]
    refused(lambda: build_neighbors(given), "input: ", named, "a Spark DataFrame is wanted", way)


def test_other_things_of_spark_are_no_table_either(spark):
    table = spark.createDataFrame([(1, [1.0])], "user_id int, vector array<double>")
    refused(lambda: require_table(table.groupBy("user_id")), "GroupedData", ".agg(")
    refused(lambda: require_table(table["vector"]), "Column", "the whole table")
    refused(lambda: require_table(spark), "SparkSession", "spark.read.parquet(path)")
    stream = spark.readStream.format("rate").load()
    refused(lambda: require_table(stream), "a streaming DataFrame", "spark.read", "foreachBatch")
    assert require_table(table) is table


def test_a_pandas_on_spark_frame_is_told_to_spark():
    # Its import warns of pandas, and takes seconds: its name is all that counts.
    frame = type("DataFrame", (), {"__module__": "pyspark.pandas.frame"})()
    series = type("Series", (), {"__module__": "pyspark.pandas.series"})()
    refused(lambda: require_table(frame), "pyspark.pandas DataFrame", "Call .to_spark() on it.")
    refused(lambda: require_table(series), ".to_frame().to_spark()")


@pytest.mark.parametrize("role", ["input", "neighbors"])
def test_evaluate_checks_both_of_its_tables(spark, role):
    table = spark.createDataFrame([(1, [1.0])], "user_id int, vector array<double>")
    given = {"vectors": table, "neighbors": table} | {"vectors" if role == "input" else "neighbors": FRAME}
    refused(lambda: evaluate_neighbors(**given, settings=Settings(), asked={}), f"{role}: this is a pandas DataFrame")


def test_a_table_of_a_stopped_session_is_said_to_be_one(spark, monkeypatch):
    table = spark.createDataFrame([(1, [1.0])], "user_id int, vector array<double>")
    refused_by = {"range": AttributeError("'NoneType' object has no attribute 'sc'")}  # what a stopped one raises

    def fail(*_, **__):
        raise refused_by["range"]

    monkeypatch.setattr(type(spark), "range", fail)
    refused(lambda: build_neighbors(table), "has been stopped", "getOrCreate()")


def test_two_columns_of_a_name_are_refused_and_capitals_go_by_the_sessions_rule(spark):
    table = spark.createDataFrame([(1, 2, [1.0])], "user_id int, USER_ID int, vector array<double>")
    refused(lambda: open_source(table, Settings()), "2 columns are named 'user_id'", "'USER_ID'", "rename")
    joined = table.select("vector").crossJoin(table.select("vector")).withColumn("user_id", F.lit(1))
    refused(lambda: open_source(joined, Settings()), "2 columns are named 'vector'", "Drop all but one")
    with configured(spark, spark__sql__caseSensitive=True):
        assert find_column(table, "USER_ID").name == "USER_ID"
        assert open_source(table, Settings()).table.first()["user_id"] == 1
        refused(lambda: open_source(table, Settings(vector_col="Vector")), "no column 'Vector'")


def test_a_name_in_other_capitals_is_found_where_spark_finds_it(spark):
    table = spark.createDataFrame([(1, [1.0])], "User_Id int, vector array<double>")
    assert open_source(table, Settings(id_col="USER_ID")).table.first()["user_id"] == 1
    refused(lambda: open_source(table, Settings(id_col="user_id", vector_col="USER_ID")), "one column", "Name two")


def test_a_field_of_a_struct_is_said_to_be_one_and_how_to_select_it(spark):
    table = spark.createDataFrame([((1, "a"), [1.0])], "u struct<user_id:int,name:string>, vector array<double>")
    told = refused(lambda: open_source(table, Settings(id_col="u.user_id")), "the struct 'u'", 'F.col("u.user_id")')
    assert 'vectors.withColumn("user_id", F.col("u.user_id"))' in told
    done = table.withColumn("user_id", F.col("u.user_id"))
    assert open_source(done, Settings()).table.first()["user_id"] == 1


def test_a_table_of_many_long_names_is_not_shown_in_full(spark):
    table = spark.range(1).select(*(F.lit(1).alias(f"{i}{'x' * 500}") for i in range(200)))
    assert len(refused(lambda: open_source(table, Settings()), "no column 'user_id'", "and 170 more")) < 4000
