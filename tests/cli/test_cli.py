"""The command line end to end: arguments in; table, report, words and exit code out."""

import os
from uuid import uuid4

import pyarrow.dataset as ds
import pytest
from pyspark.sql import functions as F

from annspark import __version__
from annspark.cli import main
from annspark.start.session import quiet_java
from tests.cli.builds import ROWS, build, damaged
from tests.helpers import count_cached, files_in, lists_of, read_report, tables_in

KEYS = {
    "version": None,
    "versions": {"python", "spark", "numpy", "pyarrow"},
    "cluster": {"cores", "master", "application"},
    "created": None,
    "input_version": None,
    "settings": {
        "input", "output", "format", "report", "scratch", "overwrite", "k", "id_col", "vector_col", "metric", "recall",
        "probes", "trees", "leaf_rows", "split", "seed", "shape", "on_bad_row", "audit_users", "top_up", "values_col",
        "max_distance", "links", "candidates", "index", "candidate_id_col", "candidate_vector_col", "same_ids",
        "candidate_values_col", "candidate_col", "exclude", "within",
        "vector_cols", "input_version",
        "resume",
    },
    "rows": {"read", "valid", "written", "dropped"},
    "recall": {"k", "mean", "low", "high", "users", "p5", "below_half", "bands", "groups"},
    "calibration": {"target", "probes", "predicted", "low", "high", "users", "curve"},
    "topped_up": None,
    "passed": None,
    "distances": None,
    "precision": {"numbers", "distance_error", "recall_lost"},
    "cost": {"pairs_per_user", "copies_per_user", "shuffle_bytes", "staged_bytes"},
    "leaves": {"count", "median_rows", "p99_rows", "max_rows"},
    "seconds": {"total", "read", "sample", "grow", "calibrate", "join", "audit"},
}  # fmt: skip


def test_a_build_publishes_the_table_and_its_report_and_says_so(spark, inputs, tmp_path, capsys, caplog):
    assert build(inputs / "good", tmp_path / "out") == 0
    table = spark.read.parquet(str(tmp_path / "out"))
    lists = lists_of(table)
    assert table.dtypes == [
        ("user_id", "bigint"), ("neighbors", "array<struct<neighbor_id:bigint,distance:float>>"),
    ]  # fmt: skip
    assert sorted(lists) == list(range(ROWS))
    assert {len(neighbors) for neighbors in lists.values()} == {4}
    assert files_in(tmp_path) == ["out", "out.report"]
    assert files_in(tmp_path / "out.report") == ["earlier", "report.html", "report.json"]

    report = read_report(tmp_path / "out.report")
    assert set(report) == set(KEYS)
    for name, keys in KEYS.items():
        # examples of dropped rows, and what else is worth telling, may stand beside the promised keys of rows
        assert keys is None or (keys <= set(report[name]) if name == "rows" else keys == set(report[name])), name
    assert report["version"] == __version__
    assert (report["settings"]["input"], report["settings"]["k"]) == (str(inputs / "good"), 4)
    assert {name: report["rows"][name] for name in ("read", "valid", "written", "dropped")} == {
        "read": ROWS, "valid": ROWS, "written": ROWS, "dropped": {},
    }  # fmt: skip
    assert 0.85 < report["recall"]["low"] <= report["recall"]["mean"] <= 1

    said = capsys.readouterr()
    assert f"{ROWS} written of {ROWS} read" in said.out
    assert f"{report['recall']['mean']:.4f} of the exact 4 nearest" in said.out
    assert report["passed"]
    assert (report["calibration"]["target"], report["topped_up"]) == (0.95, 0)
    page = (tmp_path / "out.report" / "report.html").read_text()
    assert f"{report['recall']['mean']:.4f}" in page or f"{report['recall']['mean']:.3f}" in page
    assert said.err == ""

    # One line is logged for every step.
    lines = [record.getMessage() for record in caplog.records if record.name == "annspark"]
    assert [line.split()[0] for line in lines if line.endswith(" ...")] == ["join"]  # the long one says so at its start
    assert lines[0] == f"input                 {inputs / 'good'}"
    where = f"cores 2, master local[2], application {report['cluster']['application']}"
    assert lines[1].startswith(f"run                   annspark {__version__}, python ")
    assert lines[1].endswith(where)
    done = [line for line in lines[2:] if not line.endswith(" ...")]
    assert [line.split()[0] for line in done] == ["read", "sample", "grow", "calibrate", "join", "audit", "publish"]
    assert all(line.split()[2] == "s" for line in done)
    assert str(tmp_path / "out") in lines[-1]
    assert "400 users" in done[0]


def test_the_long_shape_other_names_another_place_for_the_report_and_flags_that_win_over_the_config_file(
    spark, inputs, tmp_path
):
    named = spark.read.parquet(str(inputs / "good")).toDF("the user.id", "als.v")
    named.write.orc(str(tmp_path / "in"))
    config = tmp_path / "night.toml"
    told = f'input = "{tmp_path}/in"\noutput = "{tmp_path}/wrong"\n'
    config.write_text(f"{told}k = 7\nleaf_rows = 60\nseed = 3\nrecall = 0.9\n")
    flags = ["--shape", "long", "--id-col", "the user.id", "--vector-col", "als.v", "--format", "orc",
             "--metric", "euclidean", "--report", str(tmp_path / "told" / "here"), "--output", str(tmp_path / "out"),
             "--k", "4", "--audit-users", "20", "--probes", "3"]  # fmt: skip
    assert main(["build", "--config", str(config), *flags]) == 0
    table = spark.read.orc(str(tmp_path / "out"))
    assert table.columns == ["the user.id", "rank", "neighbor_id", "distance"]
    assert table.count() == 4 * ROWS
    assert files_in(tmp_path) == ["in", "night.toml", "out", "told"]
    settings = read_report(tmp_path / "told" / "here")["settings"]
    assert settings["metric"] == "euclidean"
    assert (settings["k"], settings["leaf_rows"], settings["seed"]) == (4, 60, 3)
    assert (settings["recall"], settings["probes"]) == (None, 3)  # which is another way to say the file's recall


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("probe = 3\n", ["unknown setting 'probe'", "probes"]),
        ("[build]\nk = 3\n", ["unknown setting 'build'"]),
        ("k = 0\n", ["'k' is 0", "a whole number from 1 to"]),
        ('k = "ten"\n', ["'k' is 'ten'", "whole number"]),
        ("metric = 'dot'\n", ["'metric' is 'dot'", "cosine, euclidean"]),
        ("overwrite = 1\n", ["'overwrite' is 1", "true or false"]),
        ("report = 3\n", ["'report' is 3"]),
        ("scratch = 3\n", ["'scratch' is 3"]),
        ("format = 3\n", ["'format' is 3"]),
        ("k = = 3\n", ["is not TOML"]),
    ],
)
def test_a_wrong_config_file_is_code_2_with_one_line(inputs, tmp_path, monkeypatch, capsys, text, parts):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "night.toml"
    config.write_text(text)
    assert main(["build", "--config", str(config), "--input", str(inputs / "good"), "--output", f"{tmp_path}/o"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("annspark: ")
    assert said.count("\n") == 1
    assert [part for part in parts if part not in said] == []
    assert files_in(tmp_path) == ["night.toml"]


def test_a_missing_config_file_or_output_is_code_2(tmp_path, capsys):
    assert main(["build", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["build", "--input", "somewhere"]) == 2
    assert "'output' not given" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--k", "many"], ["--metric", "dot"], ["--nonsense"], ["--shape", "wide"]])
def test_wrong_arguments_are_code_2(inputs, tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        build(inputs / "good", tmp_path / "out", *arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err
    assert files_in(tmp_path) == []


def test_bad_rows_are_code_3_with_reasons_and_nothing_is_left(spark, inputs, tmp_path, capsys):
    before, scratch = count_cached(spark), tmp_path / "scratch"
    scratch.mkdir()
    for more in ([], ["--scratch", str(scratch)]):
        assert build(inputs / "bad", tmp_path / "out", *more) == 3
        said = capsys.readouterr().err
        assert said.startswith("annspark: ")
        assert said.count("\n") == 1
        for part in ("null_vector 1", "9000", "zero_vector 1", "9001", "duplicate_id 1", "--on-bad-row drop"):
            assert part in said
    assert files_in(tmp_path) == ["scratch"]
    assert files_in(scratch) == []
    assert count_cached(spark) == before


def test_dropped_rows_are_reported_scratch_is_emptied_and_names_that_are_patterns_mean_themselves(
    spark, inputs, tmp_path, capsys
):
    places = [tmp_path / name / "in it" for name in ("in [1]", "{a,b}", "s*", "r?")]
    spark.read.parquet(str(inputs / "bad")).write.parquet(str(places[0]))
    before = count_cached(spark)
    flags = ["--on-bad-row", "drop", "--scratch", str(places[2]), "--report", str(places[3])]
    assert build(places[0], places[1], *flags) == 0
    assert files_in(places[1].parent) == ["in it"]
    assert files_in(places[2]) == []
    rows = read_report(places[3])["rows"]
    assert (rows["read"], rows["valid"], rows["written"]) == (ROWS + 3, ROWS, ROWS)
    assert rows["dropped"] == {"null_vector": 1, "zero_vector": 1, "duplicate_id": 1}
    assert "zero_vector 1 (such as 9001)" in capsys.readouterr().out
    assert count_cached(spark) == before
    assert ds.dataset(places[1]).count_rows() == ROWS


@pytest.mark.parametrize(
    ("source", "parts"),
    [("nowhere", ["there is no such path"]), ("night.nowhere", ["there is no such catalog table"])],
)
def test_a_missing_input_is_code_3(tmp_path, capsys, source, parts):
    source = str(tmp_path / source) if "." not in source else source
    assert build(source, tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert [part for part in [source, *parts] if part not in said] == []
    assert files_in(tmp_path) == []


def test_a_wrong_column_is_code_3_and_names_the_columns(inputs, tmp_path, capsys):
    assert build(inputs / "good", tmp_path / "out", "--vector-col", "features") == 3
    assert "no column 'features'; there are 'user_id', 'vector'" in capsys.readouterr().err


def test_an_empty_table_is_code_3(spark, inputs, tmp_path, capsys):
    spark.read.parquet(str(inputs / "good")).limit(0).write.parquet(str(tmp_path / "in"))
    assert build(tmp_path / "in", tmp_path / "out") == 3
    assert "no valid row among 0" in capsys.readouterr().err
    assert files_in(tmp_path) == ["in"]


@pytest.mark.slow
def test_a_table_of_no_rows_is_published_for_a_single_user_in_the_long_shape(spark, inputs, tmp_path):
    spark.read.parquet(str(inputs / "good")).limit(1).write.parquet(str(tmp_path / "in"))
    assert build(tmp_path / "in", tmp_path / "out", "--shape", "long") == 0
    assert spark.read.parquet(str(tmp_path / "out")).count() == 0


def test_an_existing_output_is_code_2_and_stays_until_overwrite(spark, inputs, tmp_path, capsys):
    spark.range(3).write.parquet(str(tmp_path / "out"))
    assert build(inputs / "good", tmp_path / "out") == 2
    assert "exists" in capsys.readouterr().err
    assert spark.read.parquet(str(tmp_path / "out")).count() == 3
    assert build(inputs / "good", tmp_path / "out", "--overwrite") == 0
    assert spark.read.parquet(str(tmp_path / "out")).count() == ROWS
    assert files_in(tmp_path) == ["out", "out.report"]


def test_input_and_output_may_be_catalog_tables(spark, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = f"night_{uuid4().hex[:8]}"
    spark.sql(f"CREATE DATABASE {database}")
    spark.read.parquet(str(inputs / "good")).write.saveAsTable(f"{database}.users")
    report = ["--report", str(tmp_path / "report")]
    names = (f"{database}.users", f"{database}.neighbors")
    spark.range(3).write.saveAsTable(names[1])
    assert build(*names, *report) == 2
    assert build(*names, *report, "--overwrite", "--k", "3") == 0
    assert {len(neighbors) for neighbors in lists_of(spark.read.table(names[1])).values()} == {3}
    assert tables_in(spark, database) == ["neighbors", "users"]
    assert read_report(tmp_path / "report")["settings"]["output"] == names[1]
    spark.sql(f"DROP DATABASE {database} CASCADE")


@pytest.mark.parametrize(
    "step", [pytest.param("pipeline.join_partitions", marks=pytest.mark.slow), "nightly.publish.commit"]
)
def test_an_unexpected_failure_is_code_1_and_last_nights_table_stays(
    spark, inputs, tmp_path, monkeypatch, capsys, step
):
    spark.range(3).write.parquet(str(tmp_path / "out"))
    before, scratch = count_cached(spark), tmp_path / "scratch"
    scratch.mkdir()

    def fail(*_, **__):
        raise RuntimeError("the lights went out")

    monkeypatch.setattr(f"annspark.{step}", fail)
    assert build(inputs / "good", tmp_path / "out", "--overwrite", "--scratch", str(scratch)) == 1
    assert spark.read.parquet(str(tmp_path / "out")).count() == 3
    assert files_in(tmp_path) == ["out", "scratch"]
    assert files_in(scratch) == []
    assert count_cached(spark) == before
    said = capsys.readouterr().err
    assert said == "annspark: the job failed: the lights went out. Run again with --debug for the trace.\n"


def test_debug_shows_the_trace_of_what_failed(inputs, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("the lights went out")

    monkeypatch.setattr("annspark.pipeline.read_vectors", fail)
    assert build(inputs / "good", tmp_path / "out", "--debug") == 1
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("\nannspark: the job failed: the lights went out.\n")


@pytest.mark.parametrize(
    "command", ["build", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "evaluate", "neighbors"))]
)
def test_half_a_file_is_code_3_and_named_in_one_line(spark, inputs, tmp_path, capsys, command):
    half = damaged(spark, inputs, tmp_path)
    if command in ("build", "plan"):
        code = build(half, tmp_path / "out", *(["--plan"] if command == "plan" else []))
    else:
        spark.read.parquet(str(inputs / "good")).selectExpr("user_id", "array(0) AS neighbors", "vector").write.parquet(
            str(tmp_path / "table")
        )
        tables = (half, tmp_path / "table") if command == "evaluate" else (inputs / "good", half)
        code = main(["evaluate", "--input", str(tables[0]), "--neighbors", str(tables[1]), "--k", "1"])
        (tmp_path / "table").rename(tmp_path / "in" / "_table")
    said = capsys.readouterr().err
    assert code == 3
    assert said.startswith("annspark: ")
    assert said.count("\n") == 1
    if command != "neighbors":  # half of a table of vectors is no table of neighbors, whatever else is wrong with it
        assert "in/z.parquet' cannot be read: " in said
    assert files_in(tmp_path) == ["in"]


def test_a_folder_without_data_is_code_3(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "_SUCCESS").touch()
    assert build(tmp_path / "in", tmp_path / "out") == 3
    assert "no file in it holds data" in capsys.readouterr().err


@pytest.mark.slow
def test_a_task_that_fails_while_the_table_is_written_is_code_1_and_leaves_nothing(
    spark, inputs, tmp_path, monkeypatch
):
    def breaking(table, *_):
        return table.withColumn(
            "late", F.when(F.col("user_id") == ROWS - 1, F.raise_error("the disk is on fire").cast("int"))
        )

    monkeypatch.setattr("annspark.pipeline.laid_out", breaking)
    spark.range(3).write.parquet(str(tmp_path / "out"))
    assert build(inputs / "good", tmp_path / "out", "--overwrite") == 1
    assert spark.read.parquet(str(tmp_path / "out")).count() == 3
    assert files_in(tmp_path) == ["out"]


def test_without_its_report_no_table_appears(inputs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert build(inputs / "good", tmp_path / "out", "--report", str(tmp_path / "file" / "report")) != 0
    assert files_in(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("flag", "place"),
    [
        ("--report", "file"), ("--report", "file/report"), ("--report", "/proc/annspark"), ("--report", "bad"),
        ("--scratch", "file/scratch"), ("--scratch", "/proc/annspark"), ("--output", "file"), ("--output", "file/out"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_be_written_is_code_2_before_any_work(inputs, tmp_path, monkeypatch, capsys, flag, place):
    def fail(*_, **__):
        raise AssertionError("the input was opened")

    monkeypatch.setattr("annspark.nightly.open_input", fail)
    (tmp_path / "file").write_text("somebody's")
    (tmp_path / "bad" / "report.json").mkdir(parents=True)
    assert build(inputs / "good", tmp_path / "new" / "out", flag, str(tmp_path / place), "--overwrite") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"annspark: {flag[2:]} ")
    assert said.count("\n") == 1
    assert files_in(tmp_path) == ["bad", "file"]


@pytest.mark.slow
def test_what_appears_at_the_output_meanwhile_is_code_2_and_stays(spark, inputs, tmp_path, monkeypatch, capsys):
    from annspark import pipeline

    count = pipeline.count_users

    def meanwhile(*arguments):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "data.csv").write_text("somebody's")
        (tmp_path / "out.report").mkdir()
        (tmp_path / "out.report" / "report.json").write_text("somebody's")
        return count(*arguments)

    monkeypatch.setattr(pipeline, "count_users", meanwhile)
    assert build(inputs / "good", tmp_path / "out") == 2
    kept, *others = sorted(files_in(tmp_path), key=lambda name: "kept" not in name)
    said = capsys.readouterr().err
    assert kept in said
    assert said.count("\n") == 1
    assert others == ["out", "out.report"]
    assert files_in(tmp_path / "out") == ["data.csv"]
    assert (tmp_path / "out.report" / "report.json").read_text() == "somebody's"
    assert files_in(tmp_path / "out.report") == ["report.json"]
    assert spark.read.parquet(str(tmp_path / kept)).count() == ROWS


def test_java_is_quieted_only_where_nobody_configured_its_log(monkeypatch):
    for name in ("SPARK_CONF_DIR", "SPARK_HOME", "PYSPARK_SUBMIT_ARGS", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Xmx1g")
    for name, value in (("SPARK_CONF_DIR", "conf"), ("JDK_JAVA_OPTIONS", "-Dlog4j2.configurationFile=mine")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            quiet_java()
            assert os.environ["SPARK_SUBMIT_OPTS"] == "-Xmx1g"
    quiet_java()
    first, named = os.environ["SPARK_SUBMIT_OPTS"].split()
    assert first == "-Xmx1g"
    assert named.startswith("-Dlog4j2.configurationFile=file:///")
    assert named.endswith("/annspark/log4j2.properties")
