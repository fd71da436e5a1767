"""The text: report.json, and the lines that a run prints."""

import json
from dataclasses import fields

from annspark.report import Leaves, Preview, Report
from annspark.report.text import preview_as_text, report_as_json, report_as_text
from tests.report.reports import make_calibration, make_recall, make_report, make_rows

FULL = """\
users    1,200,301 written of 1,200,345 read, 3 with fewer than k neighbors; dropped: null id 4 (such as None), \
vector with NaN 40 (such as 'user-77')
recall   0.9530 of the exact 10 nearest (0.9470 to 0.9580, 95 %, measured on 1,000 users)
spread   5 % of users have a recall of 0.70 or less, 1.2% one below 0.5
target   0.95 reached: 7.25 probes, predicted 0.9540 (0.9450 to 0.9620)
digits   distances right to 2e-07 of themselves, joined in float32; 0.12% of the neighbors lost to rounding
cost     5,321 distances and 7.25 copies a user, 8,612 MB shuffled, 272 MB of vectors in Java's heap or on disk
leaves   2,400, the largest with 1,311 users
seconds  312.4 (read 21.2, sample 14.0, grow 5.3, route 61.7, join 170.9, audit 30.1)"""
PREVIEW = """\
users    990 of 1,000 rows would be in the table
recall   0.95 asked for, 0.9540 predicted (0.9450 to 0.9620): 7.25 probes
cost     5,321 distances and 7.25 copies a user, 8,612 MB to shuffle
leaves   24: half of them up to 41 users, 99 % up to 60, the largest some 62
memory   120 MB a task and its libraries, 8 partitions; 272 MB of vectors in Java's heap or on disk
seconds  12 so far, some 170 more for the join, without writing the table
Nothing was published."""


def make_preview(**changed):
    settled = {
        "rows": make_rows(990, read=1000),
        "calibration": make_calibration(),
        "probes": 7.25,
        "pairs_per_user": 5321.4,
        "copies_per_user": 7.25,
        "shuffle_bytes": 8_612_345_678,
        "leaves": Leaves(count=24, median_rows=41, p99_rows=60, max_rows=62),
        "partitions": 8,
        "staged_bytes": 272_000_000,
        "task_bytes": 120_000_000,
        "join_seconds": 170.2,
        "seconds": {"total": 12.3},
    }
    return Preview(**(settled | changed))


def test_the_json_has_the_fields_of_the_record_and_whether_it_passed():
    report = make_report()
    told = json.loads(report_as_json(report))
    assert list(told) == [*(field.name for field in fields(Report)), "passed"]
    assert told["passed"] is True
    assert told["rows"]["examples"] == {"null id": None, "vector with NaN": "user-77"}
    assert told["recall"]["bands"][-1]["last"] is None
    assert report_as_json(report).endswith("}\n")


def test_a_full_report_in_lines():
    assert report_as_text(make_report()) == FULL


def test_a_report_shows_itself_in_the_same_words():
    report = make_report()
    assert report.as_text() == report_as_text(report)
    assert report.as_json() == report_as_json(report)


def test_lines_without_data_are_left_out():
    nothing = dict.fromkeys(("calibration", "precision", "cost", "leaves"))
    lines = report_as_text(make_report(**nothing, rows=make_rows(7))).split("\n")
    assert [line.split()[0] for line in lines] == ["users", "recall", "spread", "seconds"]
    assert lines[0] == "users    7 written of 7 read; dropped: none"


def test_a_missed_target_and_an_added_tree_are_told():
    text = report_as_text(make_report(recall=make_recall(0.9), topped_up=1))
    assert "target   0.95 MISSED: 7.25 probes, predicted 0.9540 (0.9450 to 0.9620), 1 tree added" in text


def test_users_with_other_lists_are_told():
    text = report_as_text(make_report(rows=make_rows(9, widened=2, restricted=3)))
    told = "3 with fewer than k published, 2 given neighbors from the whole table, as their leaves held too few"
    assert text.startswith(f"users    9 written of 9 read, {told}; dropped: none\n")


def test_a_preview_in_lines():
    assert preview_as_text(make_preview()) == PREVIEW
    assert "recall   not asked for: 3 probes" in preview_as_text(make_preview(calibration=None, probes=3))
