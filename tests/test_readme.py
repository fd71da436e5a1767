"""The README's commands and code, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import annspark
from tests.helpers import clustered, make_table
from tests.settings_pages import readme_rows, readme_section

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


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
        re.findall(r"^(?:(?:python -m )?annspark (?:build|evaluate|query)|spark-submit) ", command, re.MULTILINE)
    )


def run(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYSPARK_PYTHON": sys.executable}
    return subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_first_commands_are_the_demo_and_the_tests():
    assert COMMANDS[:2] == ["sh jobs/demo.sh\n", "sh tests/run.sh\n"]
    assert COMMANDS[1].strip() in (ROOT / ".ci" / "run").read_text()


def lines_under(heading, page=README):
    """Return the first Python lines below a heading."""
    return re.search(rf"^##+ {heading}\n.*?```python\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1]


def with_few_words(lines, clone):
    """Return Python lines that read the clone's words; Spark looks for relative paths where Java was started."""
    path = "jobs/demo/words.parquet"
    assert lines.count(path) == 1
    return lines.replace(path, str(clone / path))


def test_the_notebook_lines_run(spark, clone, capsys):
    names = {"spark": spark}
    exec(with_few_words(lines_under("In a notebook"), clone), names)
    assert names["result"].table.count() == 2000
    assert names["result"].report.recall.high >= 0.95
    assert names["neighbors"].columns == ["user_id", "neighbor_id", "distance"]
    assert "recall" in capsys.readouterr().out
    names["result"].table.unpersist()


@pytest.mark.slow
def test_the_lines_on_uses_run(spark, clone, capsys):
    names = {"spark": spark}
    exec(with_few_words("\n".join(lines_under("In a notebook").splitlines()[:4]), clone), names)
    exec(lines_under("What the table is for"), names)
    told = names["groups"].report.facts
    assert names["unique"].count() == 2000 - told["to_leave_out"]
    assert names["alone"].table.count() == names["guessed"].table.count() == 2000
    assert names["picked"].table.where("not fallback").count() > 5000
    assert f"to leave out             {told['to_leave_out']}" in capsys.readouterr().out
    for made in ("result", "groups", "alone", "guessed", "picked"):
        names[made].table.unpersist()


def test_the_lines_for_other_libraries_run(spark):
    names = {"result": annspark.build_neighbors(make_table(spark, clustered(200)), k=5)}
    exec(lines_under("For other libraries"), names)
    assert names["indices"].shape == (200, 6)
    assert names["matrix"].nnz == 200 * 6
    assert 0 < names["edges"].count() < 200 * 5 / 2
    names["result"].table.unpersist()


def test_nearest_by_gives_the_same_columns_and_neighbors(spark):
    query = re.search(r"^## NEAREST BY.*?```sql\n(.*?)```", README, re.DOTALL | re.MULTILINE)[1]
    points = clustered(150, 64)
    vectors = make_table(spark, points)
    vectors.createOrReplaceTempView("vectors")
    names = {"spark": spark, "annspark": annspark}
    exec(lines_under("NEAREST BY, and the same with annspark"), names)
    ours = names["found"].select("user_id", "neighbor_id", "distance")
    if hasattr(vectors, "nearestByJoin"):  # Spark 4.2
        theirs = spark.sql(query).where("user_id != neighbor_id")
        assert theirs.columns == ours.columns
        assert_same_neighbors(ours.collect(), theirs.collect())
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB (extra uses)")
    told = re.search(r"^DuckDB calls the distance `(.*?)`", README, re.MULTILINE)[1]
    with duckdb.connect() as base:
        base.execute("CREATE TABLE vectors (user_id BIGINT, vector FLOAT[64])")
        base.executemany("INSERT INTO vectors VALUES (?, ?)", [(i, row.tolist()) for i, row in enumerate(points)])
        query = query.replace("1 - vector_cosine_similarity(v.vector, o.vector)", told)
        rows = base.execute(query).fetchall()
    assert_same_neighbors(ours.collect(), [row for row in rows if row[0] != row[1]])
    names["found"].unpersist()


def assert_same_neighbors(ours, theirs):
    assert len(ours) == len(theirs) == 1500
    assert {(user, other) for user, other, _ in ours} == {(user, other) for user, other, _ in theirs}
    far = {(user, other): distance for user, other, distance in theirs}
    assert all(distance == pytest.approx(far[user, other], abs=1e-5) for user, other, distance in ours)


@pytest.mark.slow
def test_the_lines_on_the_index_run(spark, clone, monkeypatch):
    monkeypatch.chdir(clone)
    names = {"spark": spark}
    exec(with_few_words("\n".join(lines_under("In a notebook").splitlines()[:3]), clone), names)
    exec(lines_under("An index that stays").replace("out/index", str(clone / "out" / "index")), names)
    assert names["found"].table.count() == names["items"].table.count() == 100
    assert len(names["ids"]) == len(names["distances"]) == 10
    assert names["ids"][0] == "monday"
    for made in ("found", "items"):
        names[made].table.unpersist()
    names["index"].close()


def test_the_sets_of_the_readme_have_neighbors(spark):
    names = {"spark": spark}
    exec("import annspark\n" + lines_under("Sparse vectors and sets"), names)
    assert names["alike"].report.rows.written == 3000
    names["alike"].table.unpersist()


@pytest.mark.slow
def test_the_exact_search_without_us_runs(spark, clone):
    names = {"spark": spark}
    exec(with_few_words(lines_under("Exact search by Spark", BENCHMARK), clone), names)
    assert names["exact"].count() == 10_000
    assert names["exact"].where("user_id = neighbor_id").count() == 0


@pytest.mark.process
def test_the_job_commands_run_one_after_the_other(clone):
    for command in COMMANDS[2:]:
        done = run(command, clone)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("2,000 written of 2,000 read") == count_runs(command)
        assert done.stdout
    assert (clone / "out" / "neighbors.report" / "report.json").is_file()


@pytest.mark.process
def test_the_demo_shows_neighbors_and_where_they_lie(tmp_path):
    environment = os.environ | {"ANNSPARK_VENV": sys.prefix}
    done = subprocess.run(
        ["sh", str(ROOT / "jobs/demo.sh")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^monday: .*\btuesday\b", done.stdout, re.MULTILINE)
    assert re.search(r"^friday monday .*\bwednesday$", done.stdout, re.MULTILINE)
    assert "report.json" in done.stdout


# The section "## Settings" has one Markdown table: | setting | default | allowed | what it does |. Its rows are made
# from annspark/settings.py and annspark/job.py; python -m tests.settings_pages writes them anew.
def test_the_settings_of_the_readme_are_those_of_the_code():
    lines = readme_section(README).splitlines()
    assert "| setting | default | allowed | what it does |" in lines
    assert [line for line in lines if line.startswith("| `")] == readme_rows()
