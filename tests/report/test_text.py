"""The text: report.json, and the lines that a run prints."""

import json
from dataclasses import fields

from annspark.core.cost import Bytes, Spent
from annspark.core.growth import Foreseen
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
seconds  312.4 (read 21.2, sample 14.0, grow 5.3, route 61.7, join 170.9, audit 30.1)
made     input warehouse.vectors, annspark 0.1.0, Python 3.11.7, Spark 4.1.0, NumPy 2.4.6, PyArrow 22.0.0, cores 16, \
master yarn, application application_1764_0007"""
PREVIEW = """\
users    990 of 1,000 rows would be in the table
planned  990 rows, 2 cores
recall   0.95 asked for, 0.9540 predicted (0.9450 to 0.9620): 7.25 probes
cost     5,321 distances and 7.25 copies a user, 8,612 MB to shuffle
leaves   24: half of them up to 41 users, 99 % up to 60, the largest some 62; 3 MB to broadcast
memory   220 MB in a Python worker, 8 partitions, 1,500 MB for Java's heap, 77 MB of intermediate tables
work     50 core-seconds (start 10, join 40)
seconds  some 30 (25 to 40) for a run (start 6, join 24), 12 for this plan; a trial took 1.20 times as long as on idle \
cores
Nothing was published."""


def make_preview(**changed):
    settled = {
        "rows": make_rows(990, read=1000),
        "planned": 990,
        "cores": 2,
        "calibration": make_calibration(),
        "probes": Foreseen(rows=990, probes=7.25, low=7.25, high=7.25),
        "pairs_per_user": 5321.4,
        "copies_per_user": 7.25,
        "leaves": Leaves(count=24, median_rows=41, p99_rows=60, max_rows=62),
        "partitions": 8,
        "needed": Bytes(
            shuffled=8_612_345_678, staged=77_000_000, broadcast=3_000_000, worker=220_000_000, java=1_500_000_000
        ),
        "spent": {"start": Spent(10, 0), "join": Spent(0, 40)},
        "waits": 1.2,
        "run_seconds": 30.2,
        "least_seconds": 25.1,
        "most_seconds": 39.8,
        "limits": (),
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
    assert [line.split()[0] for line in lines] == ["users", "recall", "spread", "seconds", "made"]
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
    assert "recall   not asked for: 3 probes" in preview_as_text(
        make_preview(calibration=None, probes=Foreseen(rows=990, probes=3, low=3, high=3))
    )


def test_a_preview_of_more_rows_tells_the_probes_of_both_tables_and_what_limits_it():
    foreseen = Foreseen(rows=10**6, probes=21.37, low=19.1, high=25.2)
    said = preview_as_text(make_preview(planned=10**6, cores=64, probes=foreseen, limits=("Too large.",)))
    assert "planned  1,000,000 rows, 64 cores" in said
    assert "7.25 probes for the input's rows, 21.4 probes (19.1 to 25.2) for 1,000,000\n" in said
    assert "(start 6, join 1)" in said  # the fixed part keeps two cores busy
    assert said.endswith("limit    Too large.\nNothing was published.")
