"""The records: frozen, built by name, and what they say of a target."""

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from annspark.report import Leaves, Report, Rows, versions
from tests.helpers import REPOSITORY
from tests.report.reports import make_calibration, make_recall, make_report


@pytest.mark.parametrize(
    ("mean", "target", "passed"),
    [(0.953, 0.95, True), (0.948, 0.95, True), (0.945, 0.95, True), (0.944, 0.95, False)],
)
def test_a_target_is_passed_when_the_interval_reaches_it(mean, target, passed):
    recall = make_recall(mean, high=round(mean + 0.005, 4))
    assert make_report(recall=recall, calibration=make_calibration(target)).passed is passed


def test_without_a_target_every_recall_passes():
    assert make_report(recall=make_recall(0.1), calibration=None).passed


def test_a_record_of_many_fields_takes_them_by_name_only():
    with pytest.raises(TypeError, match="positional"):
        Rows(1, 1, 1, {}, {}, 0)
    with pytest.raises(TypeError, match="positional"):
        Leaves(1, 1, 1, 1)
    with pytest.raises(TypeError, match="positional"):
        Report("0.1.0")


def test_a_report_is_frozen():
    report = make_report()
    with pytest.raises(FrozenInstanceError):
        report.topped_up = 1
    with pytest.raises(FrozenInstanceError):
        report.note = "new"


def test_versions_are_those_of_this_process():
    told = versions("4.1.0")
    assert list(told) == ["python", "spark", "numpy", "pyarrow"]
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["spark"] == "4.1.0"


def test_the_front_door_imports_neither_spark_nor_the_libraries_of_the_page():
    heavy = "{'pyspark', 'pyarrow', 'jinja2', 'matplotlib'}"
    code = f"import sys, annspark.report; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
