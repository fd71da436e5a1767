"""The benchmark of layouts, on a few rows."""

import re

import pytest

from tests.helpers import files_in

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries warn about themselves


def test_both_layouts_are_timed_judged_and_drawn(spark, tmp_path, capsys, monkeypatch):
    pytest.importorskip("umap", reason="needs umap-learn (extra uses)")
    from jobs.benchmark import layouts

    monkeypatch.setattr(
        "sys.argv", ["layouts", "--set", "synthetic:700x8", "--out", f"{tmp_path}/out", "--cache", f"{tmp_path}/cache"]
    )
    layouts.main()
    told = capsys.readouterr().out
    steps = ["UMAP alone", "annspark.build_neighbors", "to_arrays", "UMAP from the arrays"]
    assert re.findall(r"^(.*): [\d.]+ s, \d+ core-seconds$", told, re.MULTILINE) == steps
    worth = [float(one) for one in re.findall(r"^trustworthiness .*: ([\d.]+)$", told, re.MULTILINE)]
    assert len(worth) == 2
    assert min(worth) > 0.8
    assert files_in(tmp_path / "out") == ["layouts.png"]
