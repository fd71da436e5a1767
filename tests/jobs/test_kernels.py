import pytest

from jobs.benchmark import kernels


def test_every_kernel_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    kernels.main(["--rows", "600", "--dim", "8", "--leaf", "100", "--probes", "3", "--k", "4", "--repeats", "1"])
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["kernel", "us/point", "x", "sgemm"]
    assert [row.split()[0] for row in rows] == ["product", "selection", "routing", "merge", "exact"]
    assert all(len(row.split()) == (2 if row.startswith("merge") else 3) for row in rows)
