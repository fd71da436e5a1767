"""Credentials in paths, URLs and settings: what is hidden, what stays, and that every way out hides them."""

import json
import logging
import traceback

import pytest

from annspark import SettingsError
from annspark.cli import main
from annspark.hide import hidden
from annspark.report.text import report_as_text
from annspark.uses.report import UseReport
from tests.cli.builds import build
from tests.report.reports import make_bare_held, make_bare_report

SECRET = "s3cr3t+Key"


@pytest.mark.parametrize(
    "text",
    [
        f"s3a://AKIA7:{SECRET}@bucket/users",
        f"s3a://AKIA7:{SECRET}/with/slashes@bucket/users",
        f"jdbc:mysql://root:{SECRET}@x@db:3306/users",
        f"jdbc:oracle:thin:scott/{SECRET}@db:1521/users",
        f"jdbc:postgresql://db/users?user=me&password={SECRET}",
        f"jdbc:sqlserver://db:1433;databaseName=users;password={SECRET};encrypt=true",
        f"abfss://c@a.dfs.core.windows.net/users?sv=2026&sig={SECRET}%3D",
        f"https://h/users?X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"--conf spark.hadoop.fs.s3a.secret.key={SECRET}",
        f"fs.azure.account.key.acct.dfs.core.windows.net={SECRET}==",
        f"{{'fs.s3a.access.key': '{SECRET}', 'fs.s3a.endpoint': 'h'}}",
        f"fs.azure.sas.c.acct.blob.core.windows.net: {SECRET}",
        f'"spark.databricks.token": "{SECRET}"',
    ],
)
def test_credentials_are_hidden_and_what_is_around_them_stays(text):
    told = hidden(f"output {text!r}, users, no file")
    assert SECRET not in told
    assert "***" in told
    assert told.startswith("output ")
    assert told.endswith(", no file")
    assert "users" in told
    assert hidden(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "abfss://container@account.dfs.core.windows.net/users",
        "hdfs://namenode:8020/user/me@corp/table",
        "s3a://bucket/day=3/token=abc/part-0.parquet",
        "'id_col' is 'password', 'vector_col' is 'secret.key'; it must be the name of a column.",
        "input 'prod.token_vectors': there is no such catalog table.",
        "k=10, seed=0, spark.executor.memory=4g",
    ],
)
def test_other_texts_stay_as_they_are(text):
    assert hidden(text) == text


PLACE = f"nofs://AKIA7:{SECRET}@bucket/users"
SIGNED = f"nofs://bucket/users?sig={SECRET}"


def test_neither_log_nor_errors_nor_reports_show_credentials(caplog):
    logging.getLogger("annspark").warning("input %s of %d rows", PLACE, 3)
    assert caplog.messages == ["input nofs://***@bucket/users of 3 rows"]
    try:
        raise SettingsError(f"output {PLACE!r} cannot be written.")
    except SettingsError:
        assert SECRET not in traceback.format_exc().splitlines()[-1]
    report = make_bare_report(settings={"input": PLACE, "k": 10, "report": None})
    use = UseReport(
        use="vote", version="", created="", settings={"labels": PLACE}, facts={}, warnings=(), seconds={"total": 1.0}
    )
    for told in (report.as_json(), report_as_text(report), report._repr_html_(), use.as_json()):
        assert SECRET not in told
    assert "nofs://***@bucket/users" in report_as_text(report)
    assert json.loads(report.as_json())["settings"] == {"input": "nofs://***@bucket/users", "k": 10, "report": None}


@pytest.mark.parametrize("more", [[], ["--debug"]])
def test_the_command_line_shows_no_credentials(spark, inputs, tmp_path, capfd, caplog, more):
    assert build(inputs / "good", SIGNED, *more) == 2
    assert build(SIGNED, tmp_path / "out", *more) == 3
    assert build(PLACE, tmp_path / "out", *more) == 2
    with pytest.raises(SystemExit):
        main(["build", "--inptu", PLACE])
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err + caplog.text
    assert said.err.count("***") >= 3


def test_a_report_with_hidden_credentials_asks_for_the_place_again(tmp_path, capsys):
    from annspark import __version__
    from annspark.job import make_job
    from annspark.nightly import _asked

    asked = _asked(make_job({"input": SIGNED, "output": "out"}))
    held = make_bare_held(settings=asked, version=__version__)
    (tmp_path / "report.json").write_text(json.dumps(held))
    assert main(["build", "--from-report", str(tmp_path / "report.json"), "--output", "again"]) == 2
    assert "does not show the credentials in 'input'. Give --input again" in capsys.readouterr().err
