"""The README's commands and code, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.settings_pages import readme_rows, readme_section

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BENCHMARK = (ROOT / "jobs" / "benchmark" / "README.md").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with the repository's own in it, where commands may write, and a tenth of the words."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("annspark", "conf"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "jobs" / "demo").mkdir(parents=True)
    for path in (ROOT / "jobs").glob("*.py"):
        (folder / "jobs" / path.name).symlink_to(path)
    words = pq.read_table(ROOT / "jobs" / "demo" / "words.parquet")
    assert len(words) == 20_000
    pq.write_table(words.slice(0, 2000), folder / "jobs" / "demo" / "words.parquet")
    return folder


def count_runs(command):
    """Return how often a command of the README builds or evaluates a table."""
    return len(
        re.findall(r"^(?:(?:python -m )?annspark (?:build|evaluate|query|update)|spark-submit) ", command, re.MULTILINE)
    )


def run(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYSPARK_PYTHON": sys.executable}
    return subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_first_commands_are_the_demo_and_the_tests():
    assert COMMANDS[:2] == ["sh jobs/demo.sh\n", "sh tests/run.sh\n"]
    assert COMMANDS[1].strip() in (ROOT / ".ci" / "run").read_text()


def with_few_words(lines, clone):
    """Return Python lines that read the clone's words; Spark looks for relative paths where Java was started."""
    path = "jobs/demo/words.parquet"
    assert lines.count(path) == 1
    return lines.replace(path, str(clone / path))


def test_the_notebook_lines_run(spark, clone, capsys):
    names = {"spark": spark}
    exec(with_few_words(PYTHON[0], clone), names)
    assert names["result"].table.count() == 2000
    assert names["result"].report.recall.high >= 0.95
    assert names["neighbors"].columns == ["user_id", "neighbor_id", "distance"]
    assert "recall" in capsys.readouterr().out
    names["result"].table.unpersist()


@pytest.mark.slow
def test_the_lines_on_the_index_run(spark, clone, monkeypatch):
    monkeypatch.chdir(clone)
    names = {"spark": spark}
    exec(with_few_words("\n".join(PYTHON[0].splitlines()[:3]), clone), names)
    exec(PYTHON[1].replace("out/index", str(clone / "out" / "index")), names)
    assert names["found"].table.count() == names["items"].table.count() == 100
    assert len(names["ids"]) == len(names["distances"]) == 10
    assert names["ids"][0] == "monday"
    for made in ("found", "items"):
        names[made].table.unpersist()
    names["index"].close()


def test_the_sets_of_the_readme_have_neighbors(spark):
    names = {"spark": spark}
    exec(PYTHON[0].splitlines()[0] + "\n" + PYTHON[2], names)
    assert names["alike"].report.rows.written == 3000
    names["alike"].table.unpersist()


@pytest.mark.slow
def test_the_exact_search_without_us_runs(spark, clone):
    names = {"spark": spark}
    lines = re.search(r"## Exact search by Spark\n.*?```python\n(.*?)```", BENCHMARK, re.DOTALL)[1]
    exec(with_few_words(lines, clone), names)
    assert names["exact"].count() == 10_000
    assert names["exact"].where("user_id = neighbor_id").count() == 0


@pytest.mark.process
def test_the_job_commands_run_one_after_the_other(clone):
    for command in COMMANDS[2:]:
        done = run(command, clone)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("2,000 written of 2,000 read") == count_runs(command) > 0
    assert (clone / "out" / "neighbors.report" / "report.json").is_file()


@pytest.mark.process
def test_the_demo_shows_neighbors_and_where_they_lie(tmp_path):
    environment = os.environ | {"ANNSPARK_VENV": sys.prefix}
    done = subprocess.run(
        ["sh", str(ROOT / "jobs/demo.sh")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^monday: .*\btuesday\b", done.stdout, re.MULTILINE)
    assert "report.json" in done.stdout


# The section "## Settings" has one Markdown table: | setting | default | allowed | what it does |. Its rows are made
# from annspark/settings.py and annspark/job.py; python -m tests.settings_pages writes them anew.
def test_the_settings_of_the_readme_are_those_of_the_code():
    lines = readme_section(README).splitlines()
    assert "| setting | default | allowed | what it does |" in lines
    assert [line for line in lines if line.startswith("| `")] == readme_rows()
