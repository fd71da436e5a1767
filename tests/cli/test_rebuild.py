"""annspark build --from-report: the table of a finished night, built again."""

import json
import re
import shutil

import pytest

from annspark import __version__
from annspark.cli import main
from annspark.rebuild import job_of_report
from tests.cli.builds import QUICK, build
from tests.helpers import files_in, lists_of, read_report


@pytest.fixture(scope="module")
def night(spark, inputs, tmp_path_factory):
    """Return the folder of a finished night whose settings are not the defaults: in, out, out.report, index."""
    folder = tmp_path_factory.mktemp("night")
    shutil.copytree(inputs / "bad", folder / "in")
    more = ["--seed", "7", "--recall", "0.9", "--on-bad-row", "drop", "--index", str(folder / "index")]
    assert build(folder / "in", folder / "out", "--overwrite", *more) == 0
    return folder


def rebuild(report, *more):
    return main(["build", "--from-report", str(report), *map(str, more)])


def test_a_night_is_rebuilt_from_its_report_to_the_bit(spark, night, tmp_path, capsys):
    report = night / "out.report" / "report.json"
    assert rebuild(report, "--output", tmp_path / "again") == 0
    assert lists_of(spark.read.parquet(str(tmp_path / "again"))) == lists_of(spark.read.parquet(str(night / "out")))
    assert files_in(tmp_path) == ["again", "again.report"]  # another output has its own report, and no index
    told, again = read_report(night / "out.report"), read_report(tmp_path / "again.report")
    assert (again["recall"], again["settings"]["seed"]) == (told["recall"], 7)
    made = rf"^made     input {night / 'in'} \(files [0-9a-f]+\), seed 7, annspark {__version__}, python "
    assert re.search(made, capsys.readouterr().out, re.MULTILINE)


def test_places_may_be_given_anew_and_nothing_else(night, tmp_path, capsys):
    report = night / "out.report" / "report.json"
    assert rebuild(report) == 2
    assert "exists" in capsys.readouterr().err  # the night's --overwrite is not taken over
    assert rebuild(report, "--output", tmp_path / "again", "--k", "5", "--seed", "1") == 2
    assert "'k' and 'seed' given with --from-report" in capsys.readouterr().err
    shutil.copytree(night / "in", tmp_path / "copy")
    places = {"input": "copy", "output": "again", "report": "told", "index": "index", "scratch": "scratch"}
    assert rebuild(report, *(word for flag, name in places.items() for word in (f"--{flag}", tmp_path / name))) == 0
    assert set(files_in(tmp_path)) == set(places.values())


@pytest.mark.parametrize(("told", "number"), [("delta version 3", 3), ("iceberg snapshot 5", 5), ("files 12ab", None)])
def test_an_input_with_versions_is_read_in_that_of_the_night(night, told, number):
    report = read_report(night / "out.report") | {"input_version": told}
    assert job_of_report(report, {}).input_version == number
    assert job_of_report(report, {"input": "other"}).input_version is None


@pytest.mark.parametrize("change", ["rows", "vectors"])
def test_an_input_that_has_changed_is_told_and_nothing_published(spark, night, tmp_path, capsys, change):
    table = spark.read.parquet(str(night / "in"))
    if change == "rows":
        table = table.union(table.limit(1))
    else:
        table = table.selectExpr("user_id", "transform(vector, (x, i) -> x * (i + 1)) AS vector")
    table.write.parquet(str(tmp_path / "in"))
    report = night / "out.report" / "report.json"
    assert rebuild(report, "--input", tmp_path / "in", "--output", tmp_path / "again") == 3
    said = capsys.readouterr().err
    assert "it has 404 rows, and the report is of 403" in said if change == "rows" else "Nothing was published" in said
    assert files_in(tmp_path) == ["in"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": "0.0.1"}, "is of annspark 0.0.1, and this is"),
        ({"settings": {"k": 10}}, "is of a call in Python"),
        ({"settings": {"index": "here", "input": "there"}}, "is of `annspark query`"),
        ({"settings": {"index": "here", "rebuild_if_missed": False}}, "is of `annspark update`"),
        ({"settings": {"neighbors": "here"}}, "is of `annspark evaluate`"),
        ({"settings": {"neighbors": "here"}, "use": "outliers"}, "is of `annspark outliers`"),
        ({"passed": False}, "tells of a missed recall"),
        ({"settings": None}, "is no report of annspark"),
    ],
)
def test_what_is_no_report_of_a_build_of_this_version_is_refused(night, tmp_path, capsys, changed, message):
    told = read_report(night / "out.report") | changed
    (tmp_path / "report.json").write_text(json.dumps(told))
    assert rebuild(tmp_path / "report.json") == 2
    assert message in capsys.readouterr().err


def test_a_report_that_cannot_be_read_is_refused(tmp_path, capsys):
    (tmp_path / "page.html").write_text("<p>")
    for name in ("page.html", "nowhere.json"):
        assert rebuild(tmp_path / name, *QUICK) == 2
        assert f"{name}' cannot be read as JSON" in capsys.readouterr().err
