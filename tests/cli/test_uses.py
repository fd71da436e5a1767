"""The commands of the uses end to end: tables by name in; table, report, words and exit code out."""

import pytest

from annspark.cli import main
from annspark.uses import duplicates
from tests.helpers import files_in, read_report
from tests.uses.tables import as_pairs

PAIRS = [(1, 2, 0.1), (2, 3, 0.2), (4, 5, 0.1), (5, 6, 0.9)]


@pytest.fixture(scope="module")
def tables(spark, tmp_path_factory):
    """Return a folder with neighbors, and what uses read beside them."""
    folder = tmp_path_factory.mktemp("tables")
    as_pairs(spark, PAIRS).write.parquet(str(folder / "neighbors"))
    spark.createDataFrame([(2, "a"), (5, "b")], "user_id bigint, label string").write.parquet(str(folder / "labels"))
    taken = spark.createDataFrame([(2, "x"), (4, "y")], "user_id bigint, item_id string")
    taken.write.parquet(str(folder / "taken"))
    likes = spark.createDataFrame([(3, 1.0), (5, 2.0)], "user_id bigint, priority double")
    likes.write.parquet(str(folder / "likes"))
    return folder


def run(use, tables, output, *more):
    return main([use, "--neighbors", str(tables / "neighbors"), "--output", str(output), *more])


def test_each_use_publishes_its_table_and_a_report_and_says_so(spark, tables, tmp_path, capsys):
    uses = {
        "recommend": (["--interactions", str(tables / "taken"), "--k", "1"], 6),
        "duplicates": (
            ["--max-distance", "0.2", "--priorities", str(tables / "likes"), "--keep", "highest_priority"],
            5,
        ),
        "outliers": (["--method", "lof"], 6),
        "vote": (["--labels", str(tables / "labels")], 6),
    }
    for use, (more, rows) in uses.items():
        assert run(use, tables, tmp_path / use, *more) == 0
        table = spark.read.parquet(str(tmp_path / use))
        report = read_report(tmp_path / f"{use}.report")
        told = capsys.readouterr().out
        assert table.count() == rows
        assert report["use"] == use
        assert report["settings"]["neighbors"] == str(tables / "neighbors")
        assert f"seconds{' ' * 17}" in told
        assert all(sentence in told for sentence in report["warnings"])
    kept = {row["user_id"]: row["kept_id"] for row in spark.read.parquet(str(tmp_path / "duplicates")).collect()}
    assert kept == {1: 3, 2: 3, 3: 3, 4: 5, 5: 5}
    assert read_report(tmp_path / "duplicates.report")["facts"]["groups"] == 2
    assert files_in(tmp_path) == sorted([*uses, *(f"{use}.report" for use in uses)])


def test_a_command_makes_the_table_that_the_call_makes(spark, tables, tmp_path):
    assert run("duplicates", tables, tmp_path / "out", "--max-distance", "0.2", "--scratch", str(tmp_path / "s")) == 0
    called = duplicates(spark.read.parquet(str(tables / "neighbors")), max_distance=0.2)
    assert sorted(spark.read.parquet(str(tmp_path / "out")).collect()) == sorted(called.table.collect())
    assert files_in(tmp_path / "s") == []
    called.table.unpersist()


def test_what_is_there_stays_unless_it_may_be_replaced(spark, tables, tmp_path, capsys):
    assert run("outliers", tables, tmp_path / "out") == 0
    assert run("outliers", tables, tmp_path / "out", "--method", "mean") == 2
    assert "exists. Choose another, or replace it with --overwrite" in capsys.readouterr().err
    assert read_report(tmp_path / "out.report")["settings"]["method"] == "kth"
    assert run("outliers", tables, tmp_path / "out", "--method", "mean", "--overwrite") == 0
    assert read_report(tmp_path / "out.report")["settings"]["method"] == "mean"


@pytest.mark.parametrize(
    ("use", "more", "code", "message"),
    [
        ("duplicates", [], 2, "'max_distance' not given"),
        ("duplicates", ["--max-distance", "-1"], 2, "'max_distance' is -1.0; it must be a number from 0 on"),
        ("recommend", [], 2, "'interactions' not given, on the command line"),
        ("recommend", ["--interactions", "no/such/table"], 3, "interactions 'no/such/table': there is no such path"),
        ("vote", ["--labels", "{tables}/taken"], 3, "labels: no column 'label'; there are 'user_id', 'item_id'"),
        ("outliers", ["--id-col", "id"], 3, "neighbors: no column 'id'; there are 'user_id', 'neighbor_id'"),
        ("outliers", ["--output", "{tables}/neighbors"], 2, "one is or holds the other"),
        ("vote", ["--labels", "{tables}/labels", "--report", "{tables}/labels"], 2, "would be read as a part of the"),
    ],
)
def test_what_cannot_be_done_has_a_code_and_one_sentence(tables, tmp_path, capsys, use, more, code, message):
    assert run(use, tables, tmp_path / "out", *[one.format(tables=tables) for one in more]) == code
    assert message in capsys.readouterr().err
    assert files_in(tmp_path) == []
