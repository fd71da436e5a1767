"""Reports for the tests: one with every part, one with few, and what others read of them."""

import json
from dataclasses import replace
from typing import Any

from annspark.core.calibrate import Calibration, Prediction
from annspark.core.recall import Band, Precision, Recall, Spread
from annspark.report import Cost, Leaves, Report, Rows
from annspark.report.text import report_as_json


def make_recall(mean=0.953, **changed):
    recall = Recall(
        k=10,
        mean=mean,
        low=mean - 0.006,
        high=mean + 0.005,
        users=1000,
        p5=0.7,
        below_half=0.012,
        bands=(
            Band(0, 0, 61, 0.81, 0.77, 0.85),
            Band(1, 4, 287, 0.93, 0.91, 0.945),
            Band(5, 9, 270, 0.961, 0.95, 0.97),
            Band(10, 19, 240, 0.975, 0.965, 0.982),
            Band(20, 49, 120, 0.985, 0.975, 0.992),
            Band(50, None, 22, 0.99, 0.96, 0.999),
        ),
    )
    return replace(recall, **changed)


def make_calibration(target=0.95, **changed):
    curve = [(1, 0.62), (1.5, 0.72), (2, 0.785), (3, 0.86), (4, 0.9), (6, 0.94), (8, 0.959), (12, 0.976), (16, 0.985)]
    calibration = Calibration(
        target=target,
        probes=7.25,
        predicted=0.954,
        low=0.945,
        high=0.962,
        users=256,
        curve=tuple(
            Prediction(probes, mean, mean - 0.2 * (1 - mean), mean + 0.15 * (1 - mean)) for probes, mean in curve
        ),
    )
    return replace(calibration, **changed)


def make_rows(users, **changed):
    """Return the rows of a table of so many users, of whom none is short and none is left out."""
    rows = Rows(read=users, valid=users, written=users, dropped={}, examples={}, short=0)
    return replace(rows, **changed)


def make_report(**changed):
    """Return a report with every section but the trend."""
    report = Report(
        version="0.1.0",
        versions={"Python": "3.11.7", "Spark": "4.1.0", "NumPy": "2.4.6", "PyArrow": "22.0.0"},
        cluster={"cores": 16, "master": "yarn", "application": "application_1764_0007"},
        created="2026-11-22T03:12:45+00:00",
        settings={
            "input": "warehouse.vectors",
            "output": "warehouse.neighbors",
            "k": 10,
            "metric": "cosine",
            "scratch": None,
        },
        rows=Rows(
            read=1_200_345,
            valid=1_200_301,
            written=1_200_301,
            dropped={"null id": 4, "vector with NaN": 40},
            examples={"null id": None, "vector with NaN": "user-77"},
            short=3,
        ),
        recall=make_recall(),
        calibration=make_calibration(),
        topped_up=0,
        distances=tuple(Spread(r, 0.05 + 0.01 * r, 0.12 + 0.03 * r**0.6, 0.3 + 0.06 * r**0.6) for r in range(1, 11)),
        precision=Precision("float32", distance_error=2.4e-7, recall_lost=0.0012),
        cost=Cost(pairs_per_user=5321.4, copies_per_user=7.25, shuffle_bytes=8_612_345_678, staged_bytes=272_000_000),
        leaves=Leaves(count=2400, median_rows=498, p99_rows=702, max_rows=1311),
        seconds={"total": 312.4, "read": 21.2, "sample": 14, "grow": 5.3, "route": 61.7, "join": 170.9, "audit": 30.1},
    )
    return replace(report, **changed)


def make_bare_report(**changed):
    """Return a report with hardly a chart, which is drawn fast."""
    nothing = {"calibration": None, "distances": (), "seconds": {"total": 3.0}, "recall": make_recall(bands=())}
    return make_report(**(nothing | changed))


def make_held(**changed) -> dict[str, Any]:
    """Return what report.json holds of a report with every section but the trend."""
    return json.loads(report_as_json(make_report(**changed)))


def make_bare_held(**changed) -> dict[str, Any]:
    """Return what report.json holds of a report with hardly a chart."""
    return json.loads(report_as_json(make_bare_report(**changed)))
