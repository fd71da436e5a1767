"""The files for spark-submit: each is a command of annspark, with the arguments of that command."""

import sys

import pytest

from tests.helpers import REPOSITORY, clustered, make_table, run_process

BUILD, EVALUATE = (str(REPOSITORY / "jobs" / f"{name}_neighbors.py") for name in ("build", "evaluate"))
FIT, QUERY = (str(REPOSITORY / "jobs" / f"{name}_index.py") for name in ("fit", "query"))


@pytest.mark.parametrize(("job", "command"), [(BUILD, "build"), (EVALUATE, "evaluate"), (FIT, "fit"), (QUERY, "query")])
def test_a_job_takes_the_arguments_of_its_command(tmp_path, job, command):
    done = run_process(sys.executable, job, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{command} [-h]" in done.stdout
    assert run_process(sys.executable, job, "--no-such-thing", cwd=tmp_path).returncode == 2


def test_one_job_takes_every_use_and_its_arguments(tmp_path):
    done = run_process(
        sys.executable, str(REPOSITORY / "jobs" / "use_neighbors.py"), "duplicates", "--help", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "--max-distance" in done.stdout


@pytest.mark.slow
def test_a_table_that_one_job_builds_is_audited_by_the_other(spark, tmp_path):
    make_table(spark, clustered(300)).write.parquet(str(tmp_path / "in"))
    built = run_process(sys.executable, BUILD, "--input", "in", "--output", "out", cwd=tmp_path)
    assert built.returncode == 0, built.stderr[-3000:]
    audited = run_process(sys.executable, EVALUATE, "--input", "in", "--neighbors", "out", cwd=tmp_path)
    assert audited.returncode == 0, audited.stderr[-3000:]
    assert "recall" in audited.stdout
