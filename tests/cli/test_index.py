"""The commands of the index end to end: fit, info, query, and a build that keeps its index or takes candidates."""

from shutil import copytree

import pytest

import annspark
from annspark.cli import main
from annspark.core.calibrate import Calibration
from annspark.index_writer import write_aside
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
    # Queries have the columns of the users by default, and the index' own rows those of the candidates.
    asked = ["--index", str(tmp_path / "index"), "--input", str(inputs / "good"), "--output", str(tmp_path / "again")]
    assert main(["query", *asked, *FLAGS]) == 0
    assert lists_of(spark.read.parquet(str(tmp_path / "again"))) == lists
    among = annspark.load(spark, tmp_path / "index").neighbors()
    assert sorted(lists_of(among.table, "item")) == list(range(300))
    among.table.unpersist()


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


@pytest.fixture
def misled(monkeypatch):
    """Have calibration promise everything of one probe."""

    def promise(*arguments):
        return Calibration(target=arguments[-1], probes=1.0, predicted=1.0, low=1.0, high=1.0, users=100, curve=())

    monkeypatch.setattr("annspark.core.calibrate.choose_probes", promise)


def test_queries_that_miss_the_recall_are_code_4_and_publish_nothing(made, inputs, tmp_path, misled, capsys):
    places = ["--index", str(made / "index"), "--input", str(inputs / "good"), "--output", str(tmp_path / "out")]
    assert main(["query", *places, "--recall", "0.9999", "--audit-users", "300"]) == 4
    said = capsys.readouterr().err
    assert "0.9999 was asked for" in said
    assert "Set probes to " in said
    assert files_in(tmp_path) == ["out.report"]
    assert files_in(tmp_path / "out.report") == ["earlier", "missed.html", "missed.json"]
    enough = said.split("Set probes to ")[1].split(",")[0]
    assert main(["query", *places, "--probes", enough, "--audit-users", "300"]) == 0
    assert read_report(tmp_path / "out.report")["recall"]["high"] >= 0.9999


def test_a_build_that_misses_the_recall_keeps_no_index(inputs, tmp_path, misled):
    assert build(inputs / "good", tmp_path / "out", "--recall", "0.9999", "--index", str(tmp_path / "index")) == 4
    assert files_in(tmp_path) == ["out.report"]


@pytest.mark.parametrize(("kind", "code"), [(OSError, 2), (RuntimeError, 1)])
def test_without_the_index_no_table_appears_and_those_of_last_night_stay(
    made, inputs, tmp_path, monkeypatch, capsys, kind, code
):
    copytree(made / "index", tmp_path / "index")
    (tmp_path / "out").mkdir()
    before = files_in(tmp_path / "index")

    def fail(*_):
        raise kind("the disk is gone")

    monkeypatch.setattr("annspark.index_writer.write_files", fail)
    assert build(inputs / "good", tmp_path / "out", "--index", str(tmp_path / "index"), "--overwrite") == code
    assert "the disk is gone" in capsys.readouterr().err
    assert files_in(tmp_path) == ["index", "out"]
    assert (files_in(tmp_path / "index"), files_in(tmp_path / "out")) == (before, [])


def test_what_appears_at_the_index_meanwhile_stays_and_no_table_appears_without_a_report(
    inputs, tmp_path, monkeypatch, capsys
):
    def meanwhile(*arguments):
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / "data.csv").write_text("somebody's")
        return write_aside(*arguments)

    monkeypatch.setattr("annspark.nightly.write_aside", meanwhile)
    assert build(inputs / "good", tmp_path / "out", "--index", str(tmp_path / "index")) == 2
    assert files_in(tmp_path / "index") == ["data.csv"]
    index, kept = files_in(tmp_path)
    assert index == "index"
    assert kept.startswith("index.kept-")
    assert kept in capsys.readouterr().err
    assert len(annspark.open_index(str(tmp_path / kept))) == ROWS


def test_an_index_is_replaced_only_when_that_is_asked_for(inputs, tmp_path, capsys):
    place = ["--input", str(inputs / "good"), "--index", str(tmp_path / "index")]
    assert main(["fit", *place, *QUICK, "--probes", "2"]) == 0
    before = files_in(tmp_path / "index")
    assert main(["fit", *place, *QUICK, "--probes", "3"]) == 2
    assert build(inputs / "good", tmp_path / "out", "--index", str(tmp_path / "index")) == 2
    assert files_in(tmp_path / "index") == before
    assert main(["fit", *place, *QUICK, "--probes", "3", "--overwrite"]) == 0
    capsys.readouterr()
    assert main(["info", "--index", str(tmp_path / "index")]) == 0
    said = capsys.readouterr().out
    assert "3 leaves of a tree on average, as asked for" in said
    assert "ids:      long" in said
    assert files_in(tmp_path) == ["index"]


@pytest.mark.parametrize(
    ("command", "flags", "code", "words"),
    [
        ("fit", ["--input", "nowhere"], 3, "there is no such path"),
        ("fit", ["--input", "BAD"], 3, "zero_vector 1"),
        ("fit", ["--index", "GOOD"], 2, "one is or holds the other"),
        ("fit", ["--index", "GOOD/below"], 2, "one is or holds the other"),
        ("fit", ["--index", "TABLE", "--overwrite"], 2, "something else than an index"),
        ("fit", ["--index", "gs://bucket/index"], 2, "cannot rename a folder"),
        ("fit", ["--k", "0"], 2, "'k' is 0"),
        ("info", ["--index", "nowhere"], 3, "there is no such folder"),
        ("info", ["--index", "TABLE"], 3, "there is no index.json in it"),
        ("build", ["--candidates", "nowhere"], 3, "candidates 'nowhere': there is no such path"),
        ("build", ["--candidates", "GOOD", "--links", "mutual"], 2, "candidates are given"),
        ("build", ["--candidates", "GOOD", "--candidate-id-col", "item"], 3, "no column 'item'"),
        ("build", ["--candidates", "TABLE", "--output", "TABLE", "--overwrite"], 2, "'candidates' is "),
        ("build", ["--candidates", "GOOD", "--plan"], 2, "a preview is of users among themselves"),
        ("build", ["--index", "new", "--report", "new/report"], 2, "one is or holds the other"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line_and_leaves_nothing(
    spark, inputs, tmp_path, monkeypatch, capsys, command, flags, code, words
):
    monkeypatch.chdir(tmp_path)
    spark.range(3).write.parquet(str(tmp_path / "table"))
    places = {"BAD": inputs / "bad", "GOOD": inputs / "good", "TABLE": tmp_path / "table"}
    flags = [
        str(places[name]) + flag[len(name) :] if (name := flag.split("/")[0]) in places else flag for flag in flags
    ]
    usual = {
        "fit": ["--input", str(inputs / "good"), "--index", str(tmp_path / "new"), *QUICK],
        "info": [],
        "build": ["--input", str(inputs / "good"), "--output", str(tmp_path / "out"), *QUICK],
    }
    assert main([command, *usual[command], *flags]) == code
    said = capsys.readouterr().err
    assert said.startswith("annspark: ")
    assert said.count("\n") == 1
    assert words in said
    assert files_in(tmp_path) == ["table"]
    assert spark.read.parquet(str(tmp_path / "table")).count() == 3
