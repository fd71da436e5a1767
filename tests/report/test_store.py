"""The files: they appear together, earlier nights stay, and what cannot be drawn or read costs no report."""

import json

import pytest

from annspark import SettingsError
from annspark.report import store
from annspark.report.store import reports_once_done, require_folder, write_missed
from annspark.report.text import report_as_json
from tests.helpers import files_in, read_report
from tests.report.reports import make_bare_report

FIRST, SECOND = "2026-11-21T03:12:45+00:00", "2026-11-22T03:12:45+00:00"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out.report"


def write(folder, **changed):
    with reports_once_done(str(folder), make_bare_report(**changed)):
        pass


def test_all_files_appear_when_the_block_ends(folder):
    report = make_bare_report()
    with reports_once_done(str(folder), report):
        assert not [name for name in files_in(folder) if name.startswith("report")]
    assert files_in(folder) == ["earlier", "report.html", "report.json"]
    assert files_in(folder / "earlier") == ["2026-11-22T031245+0000.json"]
    assert (folder / "report.json").read_text() == report_as_json(report)
    assert (folder / "earlier" / "2026-11-22T031245+0000.json").read_text() == report_as_json(report)


def test_no_file_appears_when_the_block_fails(folder):
    with pytest.raises(KeyboardInterrupt), reports_once_done(str(folder), make_bare_report()):
        raise KeyboardInterrupt
    assert not folder.exists()


def test_earlier_nights_stay_and_are_the_trend(folder):
    write(folder, created=FIRST)
    assert "of the last" not in (folder / "report.html").read_text()
    write(folder, created=SECOND)
    assert len(files_in(folder / "earlier")) == 2
    assert read_report(folder)["created"] == SECOND
    assert "Recall of the last 2 runs" in (folder / "report.html").read_text()


def test_a_report_of_an_earlier_night_that_cannot_be_read_is_left_out(folder, caplog):
    write(folder, created=FIRST)
    (folder / "earlier" / "2026-11-20.json").write_text("{")
    (folder / "earlier" / "2026-11-21.json").write_text(json.dumps(["no report"]))
    write(folder, created=SECOND)
    assert "2026-11-20.json cannot be read" in caplog.text
    assert "Recall of the last 2 runs" in (folder / "report.html").read_text()


def test_a_missed_night_leaves_the_report_and_a_good_night_takes_it_away(folder):
    write(folder, created=FIRST)
    write_missed(str(folder), make_bare_report(created=SECOND))
    assert files_in(folder) == ["earlier", "missed.html", "missed.json", "report.html", "report.json"]
    assert (read_report(folder)["created"], read_report(folder, "missed")["created"]) == (FIRST, SECOND)
    write(folder, created=SECOND)
    assert files_in(folder) == ["earlier", "report.html", "report.json"]


def test_a_page_that_cannot_be_drawn_is_a_warning(folder, monkeypatch, caplog):
    monkeypatch.setattr(store, "render_page", lambda *_: 1 / 0)
    write(folder)
    assert files_in(folder) == ["earlier", "report.json"]
    assert "report.html could not be drawn" in caplog.text


def test_a_missed_report_that_cannot_be_written_is_a_warning(folder, caplog):
    folder.write_text("a file where the folder should be")
    write_missed(str(folder), make_bare_report())
    assert "the missed recall could not be written" in caplog.text


def test_without_the_libraries_there_is_no_page(folder, monkeypatch):
    monkeypatch.setattr(store, "can_render", lambda: False)
    write(folder)
    assert files_in(folder) == ["earlier", "report.json"]


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    (folder / "report.html").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"report 'given': report\.html is a folder there"):
        require_folder(str(folder), "given")
