"""The fit of the cost model's rates."""

import json
from dataclasses import asdict, replace

import pytest

from annspark.core.cost import Kernels, Work, count_core_seconds
from jobs.benchmark.rates import Measured, fit, read
from tests.core.test_cost import KERNELS, RATES, WORK

BUILDS = [
    replace(WORK, rows=rows, width=width, k=k, copies=copies)
    for rows, width, k, copies in (
        (1000, 64, 10, 1.5),
        (4000, 16, 10, 1.1),
        (2000, 256, 30, 1.3),
        (3000, 128, 10, 3.5),
        (9000, 32, 5, 2.0),
        (500, 64, 50, 1.0),
    )
]


def measured(work: Work, kernels: Kernels = KERNELS) -> Measured:
    spent = count_core_seconds(work, kernels, RATES)
    return Measured("a set", {"probes": 2}, work, kernels, {name: each.core_seconds for name, each in spent.items()})


def test_the_rates_are_found_again_in_what_they_predict():
    found, expected = asdict(fit([measured(work) for work in BUILDS])), asdict(RATES)
    assert found.pop("fixed") == pytest.approx(expected.pop("fixed"), rel=1e-3)
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_file_of_builds_is_read_as_it_was_written(tmp_path):
    builds = [measured(work) for work in BUILDS]
    (tmp_path / "rates.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in builds))
    assert read(tmp_path / "rates.jsonl") == builds
