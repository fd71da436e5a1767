"""Tests of publishing to Delta Lake and Iceberg: python -m tests.formats

They need a Spark that both have jars for, which the newest is not.  So no other run of the tests collects this file.
The command makes .venv-formats with that Spark.  Spark fetches the jars from Maven Central.  Those for an S3 server are
some 700 MB.
"""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from annspark.errors import InputError, RecallMissed, SettingsError
from annspark.input.open import open_input
from annspark.job import is_catalog_table, make_job
from annspark.nightly import publish_neighbors
from annspark.output import commits
from annspark.output.publish import (
    aside,
    check_output,
    commit,
    fingerprint_at,
    fingerprint_to_come,
    require_format,
    write_pending,
)
from annspark.report import Report
from annspark.spark import files
from annspark.spark.places import DELTA, ICEBERG
from annspark.spark.versions import named_in_sql, versions_of
from tests.helpers import REPOSITORY, clustered, make_table, python_environment, read_report
from tests.stores.server import BUCKET, confs_of, s3a_jar, served

SPARK = "4.1"
JARS = (f"io.delta:delta-spark_{SPARK}_2.13:4.4.0", f"org.apache.iceberg:iceberg-spark-runtime-{SPARK}_2.13:1.12.0")
EXTENSIONS = (
    "io.delta.sql.DeltaSparkSessionExtension",
    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
)


def confs(folder, *jars):
    """Return the confs of a session whose tables lie in a folder."""
    return {
        "spark.jars.packages": ",".join((*JARS, *jars)),
        "spark.sql.extensions": ",".join(EXTENSIONS),
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.warehouse": f"{folder}/ice",
        "spark.sql.warehouse.dir": f"{folder}/warehouse",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.ui.enabled": "false",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def endpoint():
    with served() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def spark(folder, endpoint):
    environment = python_environment()
    os.environ.update({name: environment[name] for name in ("PYSPARK_PYTHON", "SPARK_LOCAL_IP", "PYTHONPATH")})
    builder = SparkSession.builder.master("local[2]")
    for name, value in (confs(folder, s3a_jar()) | confs_of(endpoint)).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    session.sql("CREATE DATABASE night")
    session.sql("CREATE DATABASE ice.night")
    yield session
    session.stop()


@pytest.fixture(params=["delta table", "delta path", "delta store", "iceberg table"])
def place(request, folder):
    """Return the format of an output, and its name."""
    file_format, kind = request.param.split()
    name = f"t{uuid4().hex[:8]}"
    if kind == "store":
        return file_format, f"s3a://{BUCKET}/{name}/neighbors of all"
    if kind == "path":
        return file_format, str(folder / name / "neighbors of all")
    return file_format, f"night.{name}" if file_format == DELTA else f"ice.night.{name}"


def rows(spark, first):
    return spark.range(first, first + 20, numPartitions=3).withColumnRenamed("id", "user_id")


def put(spark, name, table, file_format=None, happens=lambda: None, **properties):
    """Publish a table, having let something happen since the run began; return the version."""
    output = check_output(spark, name, True, file_format)
    with aside(spark, output):
        require_format(spark, output, "nested")
        pending = replace(write_pending(table, output), properties=properties)
        happens()
        commit(pending)
        return versions_of(spark, output.place, pending.format)[0].number


def append(spark, name, table):
    """Commit rows as somebody else."""
    if is_catalog_table(name):
        table.writeTo(name).append()
    else:
        table.write.format(DELTA).mode("append").save(name)


def least(table):
    return table.agg({"user_id": "min"}).collect()[0][0]


def beside(spark, name):
    """Return the names of an output and of what lies beside it."""
    if is_catalog_table(name):
        database, _, last = name.rpartition(".")
        found = [row["tableName"] for row in spark.sql(f"SHOW TABLES IN {database}").collect()]
        return sorted(one for one in found if one.startswith(last))
    return files.names_in(name.rpartition("/")[0])


def only(name):
    return [name.rpartition("/")[2] if "/" in name else name.rpartition(".")[2]]


def properties_of(spark, name):
    return {row[0]: row[1] for row in spark.sql(f"SHOW TBLPROPERTIES {named_in_sql(name)}").collect()}


def test_a_table_is_published_and_replaced_and_yesterdays_version_is_read_by_number(spark, place):
    file_format, name = place
    first = put(spark, name, rows(spark, 0), file_format)
    with pytest.raises(SettingsError, match=r"exists.*--overwrite"):
        check_output(spark, name, False)
    second = put(spark, name, rows(spark, 100))
    assert [version.number for version in versions_of(spark, name, file_format)] == [second, first]
    assert least(open_input(spark, name, None)) == 100
    yesterday = open_input(spark, name, None, version=first)
    assert (least(yesterday), yesterday.count()) == (0, 20)
    assert beside(spark, name) == only(name)
    with pytest.raises(InputError, match=r"cannot be read as a .* 77"):
        open_input(spark, name, None, version=77)


def test_a_run_that_fails_leaves_the_table_and_nothing_else(spark, place):
    file_format, name = place
    first = put(spark, name, rows(spark, 0), file_format)

    def fail():
        raise OSError("the lights went out")

    with pytest.raises(OSError, match="lights"):
        put(spark, name, rows(spark, 100), happens=fail)
    assert versions_of(spark, name, file_format)[0].number == first
    assert least(open_input(spark, name, None)) == 0
    assert beside(spark, name) == only(name)


def test_what_somebody_else_commits_meanwhile_stays_and_ours_is_kept(spark, place):
    file_format, name = place
    put(spark, name, rows(spark, 0), file_format)
    with pytest.raises(SettingsError, match=r"not by annspark.*kept at.*INSERT OVERWRITE") as caught:
        put(spark, name, rows(spark, 100), happens=lambda: append(spark, name, rows(spark, 50)))
    assert open_input(spark, name, None).count() == 40
    (kept,) = [one for one in beside(spark, name) if "kept" in one]
    spark.sql(str(caught.value).rpartition("run: ")[2])
    assert (least(open_input(spark, name, None)), open_input(spark, name, None).count()) == (100, 20)
    assert beside(spark, name) == sorted([*only(name), kept])


def test_with_overwrite_the_later_of_two_runs_replaces_the_earlier_in_its_history(spark, place):
    file_format, name = place
    earlier = []
    later = put(
        spark, name, rows(spark, 0), file_format, lambda: earlier.append(put(spark, name, rows(spark, 1), file_format))
    )
    assert [version.number for version in versions_of(spark, name, file_format)] == [later, *earlier]
    assert all(version.run for version in versions_of(spark, name, file_format))


def test_of_two_commits_at_once_one_is_whole_and_the_other_says_so_and_is_kept(spark, place, tmp_path):
    file_format, name = place
    put(spark, name, rows(spark, 0), file_format)
    began, ended, said = tmp_path / "began", tmp_path / "ended", []

    @F.udf("long")
    def once_ended(user_id):
        began.touch()
        while not ended.exists():
            time.sleep(0.05)
        return user_id

    def be_slow():
        output = check_output(spark, name, True)
        with aside(spark, output):
            pending = write_pending(rows(spark, 100), output)
            try:
                waiting = pending.read().coalesce(1).select(once_ended("user_id").alias("user_id"))  # on one core
                commit(replace(pending, table=waiting))
            except SettingsError as error:
                said.append(str(error))

    slow = threading.Thread(target=be_slow)
    slow.start()
    while not began.exists() and slow.is_alive():
        time.sleep(0.05)
    put(spark, name, rows(spark, 200))
    ended.touch()
    slow.join()
    assert ["at the same moment" in one and "kept at" in one for one in said] == [True]
    assert (least(open_input(spark, name, None)), open_input(spark, name, None).count()) == (200, 20)
    (kept,) = [one for one in beside(spark, name) if "kept" in one]
    parent, separator = (name.rpartition("/")[0], "/") if "/" in name else (name.rpartition(".")[0], ".")
    assert least(open_input(spark, parent + separator + kept, None)) == 100


def test_what_comes_between_the_look_and_the_commit_is_not_lost(spark, place, monkeypatch):
    file_format, name = place
    put(spark, name, rows(spark, 0), file_format)
    write = commits._write

    def be_quicker(pending, before):
        append(spark, name, rows(spark, 50))
        write(pending, before)

    monkeypatch.setattr(commits, "_write", be_quicker)
    with pytest.raises(SettingsError, match=r"not by annspark.*kept at"):
        put(spark, name, rows(spark, 100))
    assert (least(open_input(spark, name, None)), open_input(spark, name, None).count()) == (0, 40)


@pytest.mark.parametrize(
    ("file_format", "name", "layout", "shown"),
    [
        (DELTA, "night.clustered", "CLUSTER BY (user_id)", ([], ["user_id"])),
        (DELTA, "night.partitioned", "PARTITIONED BY (half)", (["half"], [])),
        (ICEBERG, "ice.night.partitioned", "PARTITIONED BY (bucket(4, user_id))", "bucket(4, user_id)"),
    ],
)
def test_a_table_keeps_its_layout_properties_and_comments(spark, file_format, name, layout, shown):
    columns, properties = "(user_id bigint COMMENT 'who', half int)", "TBLPROPERTIES ('mine' = 'yes')"
    spark.sql(f"CREATE TABLE {name} {columns} USING {file_format} {layout} {properties}")
    for first in (0, 100):
        put(spark, name, rows(spark, first).selectExpr("user_id", "cast(user_id % 2 AS int) AS half"))
    assert (least(spark.table(name)), spark.table(name).count()) == (100, 20)
    described = [tuple(row) for row in spark.sql(f"DESCRIBE TABLE EXTENDED {name}").collect()]
    assert ("user_id", "bigint", "who") in described
    if file_format == DELTA:
        (detail,) = spark.sql(f"DESCRIBE DETAIL {name}").collect()
        assert (detail["partitionColumns"], detail["clusteringColumns"]) == shown
    else:
        assert any(shown in row for row in described)
    assert properties_of(spark, name)["mine"] == "yes"


def test_new_columns_replace_the_old_ones_and_the_history_stays(spark, place):
    file_format, name = place
    first = put(spark, name, rows(spark, 0), file_format)
    put(spark, name, rows(spark, 0).selectExpr("cast(user_id AS string) AS user_id", "1 AS rank"))
    assert open_input(spark, name, None).dtypes == [("user_id", "string"), ("rank", "int")]
    assert open_input(spark, name, None, version=first).columns == ["user_id"]


def test_upkeep_of_a_table_is_no_change_of_it(spark, place):
    file_format, name = place
    put(spark, name, rows(spark, 0), file_format)

    def keep_up():
        if file_format == DELTA:
            spark.sql(f"OPTIMIZE {named_in_sql(name)}")
        else:
            spark.sql(f"CALL ice.system.rewrite_data_files(table => '{name.removeprefix('ice.')}')")
        spark.sql(f"ALTER TABLE {named_in_sql(name)} SET TBLPROPERTIES ('mine' = 'yes')")

    put(spark, name, rows(spark, 100), happens=keep_up)
    assert least(open_input(spark, name, None)) == 100


def test_a_table_is_known_by_its_fingerprint_until_somebody_changes_it(spark, place):
    file_format, name = place
    output = check_output(spark, name, True, file_format)
    assert fingerprint_at(spark, output) == ""
    with aside(spark, output):
        pending = write_pending(rows(spark, 0), output)
        to_come = fingerprint_to_come(pending)
        commit(pending)
    assert fingerprint_at(spark, output) == to_come != ""
    append(spark, name, rows(spark, 50))
    assert fingerprint_at(spark, output) != to_come


def test_a_table_keeps_its_format(spark, place):
    file_format, name = place
    put(spark, name, rows(spark, 0), file_format)
    with pytest.raises(SettingsError, match=f"of the format {file_format}, and 'format' is 'parquet'"):
        check_output(spark, name, True, "parquet")


def test_other_files_are_no_place_for_a_delta_table(spark, folder):
    rows(spark, 0).write.parquet(str(folder / "parquet"))
    with pytest.raises(SettingsError, match="holds something else than a Delta table"):
        check_output(spark, str(folder / "parquet"), True, DELTA)
    with pytest.raises(SettingsError, match="Iceberg tables are published by name"):
        check_output(spark, str(folder / "ice table"), False, ICEBERG)


@pytest.fixture(scope="module")
def vectors(spark, folder):
    """Return the path of a Delta table: version 0 has 300 users, version 1 has 200."""
    path = str(folder / "vectors")
    for n in (300, 200):
        make_table(spark, clustered(n, 8)).write.format(DELTA).mode("overwrite").save(path)
    return path


def night(name, vectors, folder, **more):
    """Return a job, whose report goes to a folder."""
    given = {"input": vectors, "output": name, "report": str(folder), "k": 3, "recall": 0.9, "audit_users": 50}
    return make_job(given | {"seed": 7, "overwrite": True} | more)


def test_a_night_says_what_it_read_and_made_and_a_missed_recall_publishes_nothing(
    spark, place, vectors, tmp_path, monkeypatch
):
    file_format, name = place
    given = None if file_format == ICEBERG else file_format  # in its own catalog no format is needed
    report = publish_neighbors(spark, night(name, vectors, tmp_path, format=given, input_version=0))
    assert open_input(spark, name, None).count() == 300
    wanted = {
        "annspark.metric": "cosine",
        "annspark.k": "3",
        "annspark.seed": "7",
        "annspark.recall": str(round(report.recall.mean, 4)),
        "annspark.input": vectors,
        "annspark.input_version": "delta version 0",
        "annspark.version": report.version,
    }
    assert read_report(tmp_path)["input_version"] == "delta version 0"
    if is_catalog_table(name):
        assert wanted.items() <= properties_of(spark, name).items()
    else:
        (commit_of,) = spark.sql(f"DESCRIBE HISTORY {named_in_sql(name)}").collect()
        assert all(f'"{key}": "{value}"' in commit_of["userMetadata"] for key, value in wanted.items())
    with monkeypatch.context() as patched:
        patched.setattr(Report, "passed", False)
        with pytest.raises(RecallMissed):
            publish_neighbors(spark, night(name, vectors, tmp_path))
    assert open_input(spark, name, None).count() == 300
    publish_neighbors(spark, night(name, vectors, tmp_path))
    assert open_input(spark, name, None).count() == 200
    assert read_report(tmp_path)["input_version"] == "delta version 1"
    assert beside(spark, name) == only(name)


KILLED = """
import os, signal, sys
from pyspark.sql import SparkSession
from annspark.nightly import publish_neighbors
from annspark.output import commits
from tests.formats import confs, night
from pathlib import Path

folder, vectors = Path(sys.argv[1]), sys.argv[2]
builder = SparkSession.builder.remote("local[2]")
for name, value in confs(folder).items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
assert "connect" in type(spark).__module__
job = night(sys.argv[3], vectors, folder / "report", format="delta" if "/" in sys.argv[3] else None)
publish_neighbors(spark, job)
print("published", flush=True)


def die(pending, before):
    os.kill(os.getpid(), signal.SIGKILL)


commits._write = die
publish_neighbors(spark, job)
"""


@pytest.mark.parametrize("name", ["ice.night.connected", "{folder}/connected"])
def test_a_run_on_connect_that_is_killed_while_it_publishes_leaves_yesterdays_table(spark, folder, vectors, name):
    name = name.format(folder=folder)
    command = [sys.executable, "-c", KILLED, str(folder), vectors, name]
    done = subprocess.run(command, cwd=folder, env=python_environment(), capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (-9, ["published"]), done.stderr[-3000:]
    file_format = DELTA if "/" in name else ICEBERG
    spark.catalog.clearCache()
    assert open_input(spark, name, None).count() == 200
    before = versions_of(spark, name, file_format)
    assert any("pending" in one for one in beside(spark, name))
    put(spark, name, rows(spark, 0))
    assert versions_of(spark, name, file_format)[1:] == before
    assert not any("pending" in one for one in beside(spark, name))


def main():
    environment = os.environ | {
        "ANNSPARK_VENV": str(REPOSITORY / ".venv-formats"),
        "ANNSPARK_PYSPARK": f"pyspark[sql]=={SPARK}.*",
        "ANNSPARK_TESTS": "strict",
    }
    command = ["sh", str(REPOSITORY / "tests" / "run.sh"), "-n", "0", "-m", "", "tests/formats.py", *sys.argv[1:]]
    return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main())
