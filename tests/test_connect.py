"""The same line on a Spark Connect session, which has to be a process of its own."""

import sys

import pytest

from annspark import fit
from annspark.uses import duplicates, outliers, recommend, vote
from tests.helpers import clustered, files_in, lists_of, make_table, read_report, run_process

pytestmark = pytest.mark.process  # a Connect server
NAMED = {"k": 5, "probes": 4, "leaf_rows": 60, "audit_users": 50, "on_bad_row": "drop"}

SCRIPT = """
import sys
from pyspark.sql import SparkSession

folder = sys.argv[1]
spark = (
    SparkSession.builder.remote("local[2]")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.sql.session.timeZone", "UTC")
    .getOrCreate()
)
assert "connect" in type(spark).__module__

from annspark import InputError, build_neighbors, fit, load
from annspark.cli import main
from annspark.uses import duplicates, from_arrays, outliers, recommend, to_arrays, vote

named = {named}
vectors = spark.read.parquet(f"{{folder}}/vectors")
result = build_neighbors(vectors, **named)
result.table.write.parquet(f"{{folder}}/cached")
ids, indices, distances = to_arrays(result.table)
from_arrays(spark, indices, distances, ids=ids).write.parquet(f"{{folder}}/arrays")
print("recall", result.report.recall.mean)

result = build_neighbors(vectors, scratch=f"{{folder}}/scratch", shape="long", **named)
result.table.write.parquet(f"{{folder}}/long")

try:
    build_neighbors(vectors)
    raise SystemExit("bad rows were not refused")
except InputError as error:
    print(error)

with fit(vectors, **named) as index:
    index.save(f"{{folder}}/index")
loaded = load(spark, f"{{folder}}/index")
loaded.query(vectors.where("user_id < 300"), same_ids=True).table.write.parquet(f"{{folder}}/queried")
loaded.neighbors().table.write.parquet(f"{{folder}}/among")

neighbors = spark.read.parquet(f"{{folder}}/long")
for name, used in {{
    "groups": duplicates(neighbors, max_distance=0.02, max_group=5),
    "scores": outliers(neighbors, method="lof"),
    "votes": vote(neighbors, neighbors.selectExpr("user_id", "user_id % 3 AS label").distinct()),
    "items": recommend(neighbors, neighbors.selectExpr("user_id", "neighbor_id % 50 AS item_id"), k=2),
}}.items():
    used.table.write.parquet(f"{{folder}}/{{name}}")

flags = [f"--{{name.replace('_', '-')}}={{value}}" for name, value in named.items()]
code = main(["build", "--input", f"{{folder}}/vectors", "--output", f"{{folder}}/published", *flags])
again = main(["build", "--input", f"{{folder}}/vectors", "--output", f"{{folder}}/published", *flags])
absent = main(["build", "--input", f"{{folder}}/nowhere", "--output", f"{{folder}}/other"])
print("codes", code, again, absent)
spark.stop()
"""


@pytest.fixture(scope="module")
def connected(spark, tmp_path_factory):
    """Return the folder a Connect session wrote to, and what its process said."""
    folder = tmp_path_factory.mktemp("connect")
    table = make_table(spark, clustered(1200))
    bad = spark.createDataFrame([(5000, None), (5001, [1.0])], table.schema)
    table.union(bad).union(table.limit(2)).write.parquet(str(folder / "vectors"))
    done = run_process(sys.executable, "-c", SCRIPT.format(named=NAMED), str(folder), cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.fixture(scope="module")
def classic(spark, connected):
    from annspark import build_neighbors

    result = build_neighbors(spark.read.parquet(str(connected[0] / "vectors")), **NAMED)
    yield result
    result.table.unpersist()


def test_connect_gives_the_table_classic_gives(spark, connected, classic):
    lists = lists_of(classic.table)
    assert len(lists) == 1200
    assert lists_of(spark.read.parquet(str(connected[0] / "cached"))) == lists
    assert lists_of(spark.read.parquet(str(connected[0] / "published"))) == lists
    assert f"recall {classic.report.recall.mean}" in connected[1].stdout


def test_arrays_go_to_the_driver_and_back_on_connect(spark, connected, classic):
    assert lists_of(spark.read.parquet(str(connected[0] / "arrays"))) == lists_of(classic.table)


def test_the_long_shape_through_scratch_is_the_same_on_connect(spark, connected, classic):
    rows = spark.read.parquet(str(connected[0] / "long")).orderBy("user_id", "rank").collect()
    told = {}
    for row in rows:
        told.setdefault(row["user_id"], []).append((row["neighbor_id"], row["distance"]))
    assert told == lists_of(classic.table)
    assert len(files_in(connected[0] / "scratch")) == 1


def test_an_index_made_saved_and_loaded_on_connect_answers_as_a_classic_one(spark, connected, classic):
    folder = connected[0]
    vectors = spark.read.parquet(str(folder / "vectors"))
    with fit(vectors, **NAMED) as index:
        asked = index.query(vectors.where("user_id < 300"), same_ids=True)
        lists = lists_of(asked.table)
        asked.table.unpersist()
    assert len(lists) == 300
    assert lists_of(spark.read.parquet(str(folder / "queried"))) == lists
    assert lists_of(spark.read.parquet(str(folder / "among"))) == lists_of(classic.table)


def test_uses_on_connect_make_the_tables_that_classic_makes(spark, connected):
    neighbors = spark.read.parquet(str(connected[0] / "long"))
    for name, used in {
        "groups": duplicates(neighbors, max_distance=0.02, max_group=5),
        "scores": outliers(neighbors, method="lof"),
        "votes": vote(neighbors, neighbors.selectExpr("user_id", "user_id % 3 AS label").distinct()),
        "items": recommend(neighbors, neighbors.selectExpr("user_id", "neighbor_id % 50 AS item_id"), k=2),
    }.items():
        there = spark.read.parquet(str(connected[0] / name))
        assert sorted(map(str, there.collect())) == sorted(map(str, used.table.collect())), name
        assert there.count() > 100
        used.table.unpersist()


def test_the_report_is_the_same_but_for_the_seconds(connected, classic):
    report = read_report(connected[0] / "published.report")
    assert report["rows"]["dropped"] == classic.report.rows.dropped
    assert report["recall"]["mean"] == classic.report.recall.mean
    assert report["leaves"]["count"] == classic.report.leaves.count
    assert report["cost"]["pairs_per_user"] == pytest.approx(classic.report.cost.pairs_per_user)


def test_errors_have_the_same_names_and_codes_on_connect(connected):
    _, done = connected
    assert "null_vector 1" in done.stdout
    assert "codes 0 2 3" in done.stdout
    assert "exists" in done.stderr
    assert "there is no such path" in done.stderr
