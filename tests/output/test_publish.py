from dataclasses import replace
from functools import partial
from uuid import uuid4

import pandas as pd
import pyarrow.dataset as ds
import pytest
from chispa import assert_df_equality
from pyspark.sql import functions as F

from annspark.errors import InputError, SettingsError
from annspark.input.open import open_input, version_read
from annspark.job import is_catalog_table
from annspark.output.publish import (
    aside,
    check_output,
    commit,
    discard,
    require_apart,
    require_format,
    write_pending,
)
from annspark.spark import files
from tests.helpers import files_in, tables_in


def write(spark, first, name, overwrite=False, file_format=None):
    """Write rows aside, as a run does that began now."""
    return write_pending(rows(spark, first), opened(spark, name, overwrite, file_format))


def opened(spark, name, overwrite=False, file_format=None):
    output = check_output(spark, name, overwrite, file_format)
    if not output.is_table:
        files.make_folder(output.aside)
    return output


def put(spark, first, name, overwrite=False, file_format=None):
    """Publish rows, and leave nothing aside."""
    output = check_output(spark, name, overwrite, file_format)
    with aside(spark, output):
        commit(write_pending(rows(spark, first), output))


def rows(spark, first):
    return spark.range(first, first + 20, numPartitions=3).withColumnRenamed("id", "user_id")


def broken(spark):
    """Return a table whose last partition fails, once the others are written."""
    return rows(spark, 0).withColumn(
        "late", F.when(F.col("user_id") == 19, F.raise_error("the disk is on fire").cast("int"))
    )


def read(spark, output):
    return spark.read.table(output) if is_catalog_table(output) else spark.read.parquet(output)


@pytest.fixture(params=["path", "table"])
def place(request, spark, tmp_path):
    """Return a output, and a function that lists what lies where it belongs."""
    if request.param == "path":
        yield str(tmp_path / "neighbors of all"), lambda: files_in(tmp_path)
    else:
        database = f"night_{uuid4().hex[:8]}"
        spark.sql(f"CREATE DATABASE {database}")
        yield f"{database}.neighbors", lambda: tables_in(spark, database)
        spark.sql(f"DROP DATABASE {database} CASCADE")


@pytest.mark.parametrize(
    ("name", "catalog"),
    [("a.b", True), ("main.night.users", True), ("/data/a.b", False), ("./a.b", False), ("users", False),
     ("s3://bucket/a.b", False), (".", False), ("..", False), (".hidden", False), ("a..b", False)],
)  # fmt: skip
def test_dots_and_no_slash_mean_a_catalog_table(name, catalog):
    assert is_catalog_table(name) == catalog


@pytest.mark.spark35
def test_a_new_target_appears_only_when_committed_and_whole(spark, place):
    output, listing = place
    checked = check_output(spark, output, overwrite=False)
    with aside(spark, checked):
        pending = write_pending(rows(spark, 0), checked)
        assert output.rpartition("/")[2].rpartition(".")[2] not in listing()
        assert_df_equality(pending.table, rows(spark, 0), ignore_row_order=True, ignore_nullable=True)
        commit(pending)
    assert_df_equality(read(spark, output), rows(spark, 0), ignore_row_order=True, ignore_nullable=True)
    assert listing() in (["neighbors of all"], ["neighbors"])


def test_a_pending_folder_is_hidden_from_readers_of_the_parent(spark, tmp_path):
    rows(spark, 50).write.parquet(str(tmp_path / "day=1"))
    write(spark, 0, str(tmp_path / "day=2"))
    assert spark.read.parquet(str(tmp_path)).where("user_id < 50").count() == 0
    assert all(name.startswith((".", "day=1")) for name in files_in(tmp_path))


def test_a_discarded_table_leaves_nothing(spark, place):
    output, listing = place
    checked = check_output(spark, output, overwrite=False)
    with aside(spark, checked):
        discard(write_pending(rows(spark, 0), checked))
        write_pending(rows(spark, 0), checked)
    assert listing() == []


def test_an_existing_target_is_refused_without_overwrite(spark, place):
    output, _ = place
    put(spark, 0, output)
    with pytest.raises(SettingsError, match=r"exists.*--overwrite"):
        check_output(spark, output, overwrite=False)
    check_output(spark, output, overwrite=True)


@pytest.mark.spark35
def test_overwriting_replaces_all_rows_and_leaves_nothing_behind(spark, place):
    output, listing = place
    put(spark, 0, output)
    after_first = listing()
    put(spark, 100, output, overwrite=True)
    spark.catalog.clearCache()
    assert_df_equality(read(spark, output), rows(spark, 100), ignore_row_order=True, ignore_nullable=True)
    assert listing() == after_first


@pytest.mark.spark35
def test_a_crash_while_writing_keeps_the_last_table_and_leaves_nothing_else(spark, place):
    output, listing = place
    put(spark, 0, output)
    before = listing()
    checked = check_output(spark, output, overwrite=True)
    with pytest.raises(Exception, match="disk is on fire"), aside(spark, checked):
        write_pending(broken(spark), checked)
    assert listing() == before
    assert read(spark, output).count() == 20


@pytest.mark.parametrize("error", [OSError, pytest.param(KeyboardInterrupt, marks=pytest.mark.slow)])
def test_a_crash_while_the_new_table_takes_its_place_keeps_the_last_one(spark, tmp_path, monkeypatch, error):
    output = str(tmp_path / "neighbors")
    put(spark, 0, output)
    checked = check_output(spark, output, overwrite=True)
    moves, move = [], files.move

    def fail_second(source, destination):
        moves.append(source)
        if len(moves) == 2:
            raise error("the lights went out")
        move(source, destination)

    monkeypatch.setattr(files, "move", fail_second)
    with pytest.raises(error), aside(spark, checked):
        commit(write_pending(rows(spark, 100), checked))
    assert_df_equality(read(spark, output), rows(spark, 0), ignore_row_order=True, ignore_nullable=True)
    assert files_in(tmp_path) == ["neighbors"]


def test_a_relative_path_with_a_scheme_or_a_slash_at_its_end_is_the_same_folder(spark, tmp_path, monkeypatch):
    put(spark, 0, f"file:{tmp_path}/one/")
    assert files_in(tmp_path) == ["one"]
    with pytest.raises(SettingsError, match="exists"):
        check_output(spark, str(tmp_path / "one"), overwrite=False)


@pytest.mark.parametrize(
    "name",
    [
        *("größe", "a#b", "run [1]", "x:y"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("a b", "a%20b", "a+b", "{a,b}", "a*b", "w?t", "a\\b", "[", "'a'")
        ),
    ],
)
def test_unusual_folder_names_are_published_under_that_name(spark, tmp_path, name):
    (tmp_path / "run 1").mkdir()  # which the name would match, were it a pattern
    put(spark, 0, str(tmp_path / name))
    assert files_in(tmp_path) == sorted([name, "run 1"])
    assert open_input(spark, str(tmp_path / name), None).count() == 20
    assert pd.read_parquet(tmp_path / name)["user_id"].sum() == sum(range(20))
    assert ds.dataset(tmp_path / name).count_rows() == 20


def test_other_formats_are_written_and_read(spark, tmp_path):
    put(spark, 0, str(tmp_path / "orc"), file_format="orc")
    assert_df_equality(
        open_input(spark, str(tmp_path / "orc"), "orc"), rows(spark, 0), ignore_row_order=True, ignore_nullable=True
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs://bucket/table", r"cannot rename a folder.*catalog table.*s3a"),
        ("s3://bucket/table", "under s3a:// with the package org.apache.hadoop:hadoop-aws"),
        ("s3a://bucket/table", "under s3a:// with the package org.apache.hadoop:hadoop-aws"),
    ],
)
def test_a_store_on_which_nothing_can_be_published_is_refused_with_what_to_do(spark, name, said):
    with pytest.raises(SettingsError, match=said):
        check_output(spark, name, overwrite=True)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("{tmp}/nowhere", ["there is no such path", "nowhere"]),
        ("night.nowhere", ["there is no such catalog table", "./night.nowhere"]),
    ],
)
def test_a_missing_input_is_named(spark, tmp_path, name, parts):
    name = name.format(tmp=tmp_path)
    with pytest.raises(InputError) as caught:
        open_input(spark, name, None)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_an_input_folder_without_data_is_an_input_error_of_one_line(spark, tmp_path):
    with pytest.raises(InputError) as caught:
        open_input(spark, str(tmp_path), None)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_catalog_table_is_opened(spark, place):
    output, _ = place
    put(spark, 0, output)
    assert open_input(spark, output, None).count() == 20


def test_a_text_appears_once_the_block_is_done(tmp_path):
    path = tmp_path / "new folder" / "report.json"
    for text in ("{}", '{"a": "é"}'):
        before = path.read_text(encoding="utf-8") if path.exists() else None
        with files.text_once_done(str(path), text):
            assert (path.read_text(encoding="utf-8") if path.exists() else None) == before
        assert path.read_text(encoding="utf-8") == text
    assert files_in(path.parent) == ["report.json"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_text_leaves_nothing_when_the_block_fails(tmp_path, existing):
    folder = tmp_path / "report"
    if existing:
        folder.mkdir()
        (folder / "report.json").write_text("last night's")
    with pytest.raises(KeyboardInterrupt), files.text_once_done(str(folder / "report.json"), "tonight's"):
        raise KeyboardInterrupt
    assert files_in(tmp_path) == (["report"] if existing else [])
    assert not existing or (folder / "report.json").read_text() == "last night's"


def test_a_catalog_table_says_how_it_was_made(spark):
    checked = check_output(spark, "default.told", overwrite=False)
    with aside(spark, checked):
        commit(replace(write_pending(rows(spark, 0), checked), properties={"annspark.input": "it's \\ here"}))
    told = {row["key"]: row["value"] for row in spark.sql("SHOW TBLPROPERTIES default.told").collect()}
    assert told["annspark.input"] == "it's \\ here"
    check_output(spark, "default.told", overwrite=True)
    spark.sql("DROP TABLE default.told")


def test_only_formats_with_versions_are_read_by_version(spark, place):
    output, _ = place
    put(spark, 0, output)
    with pytest.raises(InputError, match=r"version 3 is asked for, and this is no Delta Lake or Iceberg table"):
        open_input(spark, output, None, version=3)
    first = version_read(open_input(spark, output, None), output, None)
    assert first.startswith("files ")
    put(spark, 0, output, overwrite=True)
    spark.catalog.clearCache()
    assert version_read(open_input(spark, output, None), output, None) not in (None, first)


def test_a_delta_table_is_not_taken_for_parquet_where_spark_has_no_delta(spark, tmp_path):
    path = str(tmp_path / "table")
    rows(spark, 0).write.parquet(path)
    (tmp_path / "table" / "_delta_log").mkdir()
    with pytest.raises(InputError, match="delta"):
        open_input(spark, path, None)
    with pytest.raises(SettingsError, match="is a delta table whose history cannot be read"):
        check_output(spark, path, overwrite=True)
    with pytest.raises(SettingsError, match="of the format delta, and 'format' is 'parquet'"):
        check_output(spark, path, overwrite=True, file_format="parquet")


@pytest.mark.spark35
def test_a_three_part_name_is_published_and_replaced(spark):
    database = f"night_{uuid4().hex[:8]}"
    spark.sql(f"CREATE DATABASE {database}")
    output = f"spark_catalog.{database}.neighbors"
    for start in (0, 100):
        put(spark, start, output, overwrite=start > 0)
        assert spark.table(output).agg({"user_id": "min"}).collect()[0][0] == start
    assert tables_in(spark, database) == ["neighbors"]
    spark.sql(f"DROP DATABASE {database} CASCADE")


@pytest.mark.parametrize("name", ["default.my-out", "default.my out", "`default`.`out`", "my-out.parquet", "a.b c.d"])
def test_a_name_no_table_can_have_is_refused_with_a_hint(spark, name):
    with pytest.raises(SettingsError, match=rf"no name that can be given .* write '\./{name}'"):
        check_output(spark, name, False)


def test_a_target_in_no_database_is_refused_with_a_hint(spark):
    with pytest.raises(SettingsError, match=r"no database 'nowhere'.*'\./nowhere\.neighbors'"):
        check_output(spark, "nowhere.neighbors", overwrite=True)


def test_annspark_knows_its_own_folder_until_somebody_changes_it(spark, tmp_path):
    put(spark, 0, str(tmp_path / "out"))
    assert files.is_published(f"{tmp_path}/out")
    (tmp_path / "out" / "more.parquet").write_text("somebody's")
    assert not files.is_published(f"{tmp_path}/out")


def somebody(spark, output):
    """Put a table of somebody else at the output."""
    if is_catalog_table(output):
        spark.range(7).write.mode("overwrite").saveAsTable(output)
    else:
        spark.range(7).write.mode("overwrite").parquet(output)


def publish_after(spark, first, output, overwrite, happens):
    """Publish rows, having let something happen since the run began."""
    checked = check_output(spark, output, overwrite)
    with aside(spark, checked):
        pending = write_pending(rows(spark, first), checked)
        happens()
        commit(pending)


def kept_in(listing):
    return [name for name in listing() if "kept" in name]


@pytest.mark.parametrize("there", [False, True])
def test_a_table_that_appears_or_changes_meanwhile_stays_and_ours_is_kept(spark, place, there):
    output, listing = place
    if there:
        spark.range(3).write.saveAsTable(output) if is_catalog_table(output) else spark.range(3).write.parquet(output)
    with pytest.raises(SettingsError, match="kept at") as caught:
        publish_after(spark, 0, output, there, lambda: somebody(spark, output))
    spark.catalog.clearCache()
    assert read(spark, output).count() == 7
    (kept,) = kept_in(listing)
    assert kept in str(caught.value)
    assert len(listing()) == 2
    parent, separator, _ = output.rpartition("." if is_catalog_table(output) else "/")
    assert read(spark, parent + separator + kept).count() == 20


@pytest.mark.spark35
def test_of_two_runs_the_last_wins_with_overwrite_and_the_first_without(spark, place):
    output, listing = place
    publish_after(spark, 200, output, True, lambda: put(spark, 100, output))
    spark.catalog.clearCache()
    assert read(spark, output).agg({"user_id": "min"}).collect()[0][0] == 200
    assert listing() in (["neighbors of all"], ["neighbors"])
    spark.sql(f"DROP TABLE {output}") if is_catalog_table(output) else files.remove(output)
    with pytest.raises(SettingsError, match="kept at"):
        publish_after(spark, 200, output, False, lambda: put(spark, 100, output))
    spark.catalog.clearCache()
    assert read(spark, output).agg({"user_id": "min"}).collect()[0][0] == 100
    assert len(kept_in(listing)) == 1
    assert len(listing()) == 2


def test_with_overwrite_what_vanished_meanwhile_is_not_missed(spark, place):
    output, listing = place
    put(spark, 0, output)
    drop = partial(spark.sql, f"DROP TABLE {output}") if is_catalog_table(output) else partial(files.remove, output)
    publish_after(spark, 100, output, True, drop)
    assert listing() in (["neighbors of all"], ["neighbors"])


@pytest.mark.parametrize("overwriting", [False, True])
def test_who_comes_between_the_look_and_the_rename_loses_nothing(spark, tmp_path, monkeypatch, overwriting):
    output, move = str(tmp_path / "out"), files.move
    if overwriting:
        put(spark, 0, output)
    checked = check_output(spark, output, overwriting)

    def be_quicker(source, destination):
        if destination.endswith("/out"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "data.csv").write_text("somebody's")
        move(source, destination)

    monkeypatch.setattr(files, "move", be_quicker)
    with pytest.raises(SettingsError, match="kept at"), aside(spark, checked):
        commit(write_pending(rows(spark, 100), checked))
    assert (tmp_path / "out" / "data.csv").read_text() == "somebody's"
    assert len(files_in(tmp_path)) == 2 + overwriting  # and what was to be replaced


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_or_a_link_that_leads_nowhere_is_no_output(spark, tmp_path, overwrite):
    (tmp_path / "out").write_text("somebody's")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("out", "link"):
        with pytest.raises(SettingsError, match="is a file"):
            check_output(spark, str(tmp_path / name), overwrite)
    assert (tmp_path / "out").read_text() == "somebody's"


def test_a_link_to_a_folder_stays_and_leads_to_the_new_table(spark, tmp_path):
    put(spark, 0, str(tmp_path / "disk" / "out"))
    (tmp_path / "now").symlink_to(tmp_path / "disk" / "out")
    put(spark, 100, str(tmp_path / "now"), overwrite=True)
    assert (tmp_path / "now").is_symlink()
    assert spark.read.parquet(str(tmp_path / "disk" / "out")).agg({"user_id": "min"}).collect()[0][0] == 100
    assert files_in(tmp_path) == ["disk", "now"]
    assert files_in(tmp_path / "disk") == ["out"]
    assert check_output(spark, str(tmp_path / "now"), True).report == f"file:{tmp_path}/now.report"


@pytest.mark.spark35
def test_what_the_input_is_read_from_is_not_replaced_whatever_it_is_called(spark, tmp_path):
    spark.sql("CREATE DATABASE read_from")
    folder = tmp_path / "data of all"
    rows(spark, 0).write.option("path", str(folder)).saveAsTable("read_from.users")
    spark.sql("CREATE VIEW read_from.some AS SELECT * FROM read_from.users WHERE user_id < 9")
    for output, given in (
        (str(folder), "read_from.users"),
        (str(folder), "read_from.some"),
        ("read_from.users", str(folder)),
        ("read_from.users", "read_from.some"),
    ):
        with pytest.raises(SettingsError, match=r"holds files that the input .* is read from"):
            require_apart(spark, check_output(spark, output, True), open_input(spark, given, None), given)
    (tmp_path / "other").mkdir()
    for output in (str(tmp_path / "new"), str(tmp_path / "other")):
        require_apart(spark, check_output(spark, output, True), open_input(spark, str(folder), None), str(folder))
    spark.sql("DROP DATABASE read_from CASCADE")


@pytest.mark.parametrize("inside", ["users", "users/day=1"])
def test_a_folder_that_is_no_table_is_not_replaced(spark, tmp_path, monkeypatch, inside):
    (tmp_path / "data" / inside).mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"holds folders that no table has \('users'\)"):
        check_output(spark, str(tmp_path / "data"), True)
    assert check_output(spark, str(tmp_path / "data" / "users"), True).found
    monkeypatch.chdir(tmp_path / "data" / "users")
    for here in (tmp_path / "data", tmp_path / "data" / "users"):
        with pytest.raises(SettingsError, match="is or holds the folder this job runs in"):
            check_output(spark, str(here), True)


def test_a_name_that_leaves_no_room_for_what_is_written_aside_is_refused(spark, tmp_path):
    with pytest.raises(SettingsError, match="too long a name"):
        check_output(spark, str(tmp_path / ("y" * 240)), False)


@pytest.mark.parametrize(
    ("file_format", "shape"), [("csv", "nested"), pytest.param("text", "long", marks=pytest.mark.slow), ("x", "long")]
)
def test_a_format_that_cannot_hold_neighbors_is_refused_before_any_work(spark, place, file_format, shape):
    output, listing = place
    checked = check_output(spark, output, False, file_format)
    with aside(spark, checked), pytest.raises(SettingsError, match=r"'format' is .* Give parquet, orc or json"):
        require_format(spark, checked, shape)
    assert listing() == []


def test_a_format_that_loses_the_names_of_columns_is_for_catalogs_only(spark, tmp_path):
    checked = check_output(spark, str(tmp_path / "out"), False, "csv")
    with aside(spark, checked), pytest.raises(SettingsError, match="names of columns are lost"):
        require_format(spark, checked, "long")


def test_a_view_is_no_output(spark):
    database = f"night_{uuid4().hex[:8]}"
    spark.sql(f"CREATE DATABASE {database}")
    spark.sql(f"CREATE VIEW {database}.seen AS SELECT 1 AS user_id")
    for overwrite in (False, True):
        with pytest.raises(SettingsError, match="is a view"):
            check_output(spark, f"{database}.seen", overwrite)
    spark.sql(f"DROP DATABASE {database} CASCADE")


@pytest.mark.parametrize("parent", ["{tmp}/file", "{tmp}/file/below", "/proc/annspark"])
def test_a_place_where_nothing_can_be_made_is_refused_at_once(spark, tmp_path, parent):
    (tmp_path / "file").write_text("somebody's")
    with pytest.raises(SettingsError, match=r"output.*no file can be written there"):
        put(spark, 0, f"{parent.format(tmp=tmp_path)}/out")
    assert files_in(tmp_path) == ["file"]


def test_folders_made_to_try_are_gone_when_the_run_fails_and_those_of_others_stay(spark, tmp_path):
    def fail(happens):
        with aside(spark, check_output(spark, f"{tmp_path}/new/folder/out", overwrite=False)):
            happens()
            raise InputError("no rows")

    for happens, left in ((lambda: None, []), ((tmp_path / "new" / "theirs").mkdir, ["new"])):
        with pytest.raises(InputError):
            fail(happens)
        assert files_in(tmp_path) == left
    assert files_in(tmp_path / "new") == ["theirs"]


@pytest.mark.spark35
def test_an_input_name_means_itself_first_and_then_a_pattern(spark, tmp_path):
    for first, name in ((0, "day=[1]"), (100, "day=1"), (200, "day=2")):
        rows(spark, first).write.parquet(f"{tmp_path}/{name}")
    for name, first, count in (("day=[1]", 0, 20), ("day=[2]", 200, 20), ("day={1,2}", 100, 40), ("day=?", 100, 40)):
        found = open_input(spark, f"{tmp_path}/{name}", None)
        assert (found.count(), found.agg({"user_id": "min"}).collect()[0][0]) == (count, first)
    for name in ("day=[3]", "[", "{a"):
        with pytest.raises(InputError, match="there is no such path"):
            open_input(spark, f"{tmp_path}/{name}", None)


def test_an_input_that_is_here_and_not_where_spark_looks_is_no_such_path(spark, tmp_path, monkeypatch):
    rows(spark, 0).write.parquet(str(tmp_path / "only_here"))
    monkeypatch.chdir(tmp_path)  # Java stays where it was started
    with pytest.raises(
        InputError, match=r"input 'only_here': there is no such path\. It is here, but Spark does not see"
    ):
        open_input(spark, "only_here", None)
