"""The commands of the index end to end: fit, info, query, and a build that keeps its index or takes candidates."""

import pytest

import annspark
from annspark.cli import main
from tests.cli.builds import QUICK, ROWS, build
from tests.helpers import files_in, lists_of, read_report

pytestmark = pytest.mark.slow
FLAGS = ["--audit-users", "40"]


@pytest.fixture(scope="module")
def made(spark, inputs, tmp_path_factory):
    """Return a folder with a table of neighbors, the index that one build made with it, and answers to queries."""
    folder = tmp_path_factory.mktemp("made")
    assert build(inputs / "good", folder / "out", "--index", str(folder / "index")) == 0
    asked = ["--index", str(folder / "index"), "--input", str(inputs / "good"), "--same-ids"]
    assert main(["query", *asked, "--output", str(folder / "similar"), *FLAGS]) == 0
    return folder


def test_one_build_gives_the_table_and_the_index(spark, made, capsys):
    assert files_in(made) == ["index", "out", "out.report", "similar", "similar.report"]
    assert main(["info", "--index", str(made / "index")]) == 0
    assert f"rows:     {ROWS}" in capsys.readouterr().out
    loaded = annspark.load(spark, made / "index").neighbors()
    assert lists_of(loaded.table) == lists_of(spark.read.parquet(str(made / "out")))
    loaded.table.unpersist()


def test_a_query_publishes_a_table_a_report_and_a_page(spark, made):
    lists, report = lists_of(spark.read.parquet(str(made / "similar"))), read_report(made / "similar.report")
    assert sorted(lists) == list(range(ROWS))
    assert all(len(found) == 4 and user not in dict(found) for user, found in lists.items())
    assert report["passed"]
    assert report["rows"]["indexed"] == ROWS
    assert report["settings"]["index"] == str(made / "index")
    assert f"among {ROWS} indexed rows" in (made / "similar.report" / "report.html").read_text()


def test_fit_makes_the_index_that_a_build_makes(inputs, made, tmp_path, capsys):
    place = ["--input", str(inputs / "good"), "--index", str(tmp_path / "index")]
    assert main(["fit", *place, *QUICK]) == 0
    assert "recall 0.95 asked for" in capsys.readouterr().out
    one, other = (annspark.open_index(str(folder / "index")) for folder in (made, tmp_path))
    assert one.search(one.vector(7), k=4)[0].tolist() == other.search(other.vector(7), k=4)[0].tolist()
    assert main(["fit", *place, *QUICK]) == 2
    assert "exists" in capsys.readouterr().err


def test_candidates_of_another_table(spark, inputs, tmp_path):
    items = spark.read.parquet(str(inputs / "good")).toDF("item", "v").where("item < 300")
    items.write.parquet(str(tmp_path / "items"))
    more = ["--candidates", str(tmp_path / "items"), "--candidate-id-col", "item", "--candidate-vector-col", "v"]
    assert build(inputs / "good", tmp_path / "out", *more, "--index", str(tmp_path / "index")) == 0
    lists = lists_of(spark.read.parquet(str(tmp_path / "out")))
    assert len(lists) == ROWS
    assert {other for found in lists.values() for other, _ in found} <= set(range(300))
    assert len(annspark.open_index(str(tmp_path / "index"))) == 300


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--index", "nowhere"], 3, "there is no such folder"),
        (["--k", "0"], 2, "'k' is 0"),
        (["--input", "nowhere"], 3, "there is no such path"),
        (["--output", "INDEX"], 2, "one is or holds the other"),
        (["--id-col", "nobody"], 3, "no column 'nobody'"),
    ],
)
def test_failures_have_exit_codes_and_leave_nothing(made, inputs, tmp_path, capsys, flags, code, words):
    flags = [str(made / "index") if flag == "INDEX" else flag for flag in flags]
    places = ["--index", str(made / "index"), "--input", str(inputs / "good"), "--output", str(tmp_path / "out")]
    assert main(["query", *places, *FLAGS, *flags]) == code
    assert words in capsys.readouterr().err
    assert files_in(tmp_path) == []


def test_a_build_does_not_replace_an_index_by_a_table(inputs, made, capsys):
    before = files_in(made / "index")
    assert build(inputs / "good", made / "index", "--overwrite") == 2
    assert "holds an index" in capsys.readouterr().err
    assert files_in(made / "index") == before


def test_settings_that_go_with_candidates_are_refused_without_them(inputs, tmp_path, capsys):
    assert build(inputs / "good", tmp_path / "out", "--same-ids") == 2
    assert "there are no candidates" in capsys.readouterr().err
