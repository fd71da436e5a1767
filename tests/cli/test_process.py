"""The command line in processes of its own: the same table, its codes and words, signals, kills, locales."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.builds import QUICK, build, damaged
from tests.helpers import REPOSITORY, files_in, lists_of, python_environment, run_process

pytestmark = pytest.mark.process
COMMANDS = {
    "python_m": [sys.executable, "-m", "annspark", "build"],
    "spark_submit": [
        str(Path(sys.executable).parent / "spark-submit"), "--master", "local[2]", "--conf", "spark.ui.enabled=false",
        str(REPOSITORY / "jobs" / "build_neighbors.py"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def here(spark, inputs, tmp_path_factory):
    """Return the lists that this process publishes."""
    folder = tmp_path_factory.mktemp("here")
    assert build(inputs / "good", folder / "out", "--seed", "1") == 0
    return lists_of(spark.read.parquet(str(folder / "out")))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_its_own_publishes_the_same_table(spark, inputs, here, tmp_path, command):
    done = run_process(
        *COMMANDS[command], "--input", str(inputs / "good"), "--output", "out", *QUICK, "--seed", "1", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert lists_of(spark.read.parquet(str(tmp_path / "out"))) == here
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "input", "run", "read", "sample", "grow", "calibrate", "join", "join", "audit", "publish",
        "users", "recall", "spread", "target", "digits", "cost", "leaves", "seconds", "made",
    ]  # fmt: skip
    assert files_in(tmp_path / "out.report") == ["earlier", "report.html", "report.json"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_its_own_hands_out_the_codes(inputs, tmp_path, command):
    source, code = (str(inputs / "bad"), 3) if command == "spark_submit" else (str(inputs / "good"), 2)
    more = ["--k", "0"] if code == 2 else []
    done = run_process(*COMMANDS[command], "--input", source, "--output", "out", *more, cwd=tmp_path)
    assert done.returncode == code
    # spark-submit itself sends what Python writes to stderr to its own stdout.
    said = done.stdout if command == "spark_submit" else done.stderr
    assert len([line for line in said.splitlines() if line.startswith("annspark: ")]) == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert files_in(tmp_path) == []


def test_a_process_of_its_own_says_one_sentence_and_nothing_of_javas_log(spark, inputs, tmp_path):
    damaged(spark, inputs, tmp_path)
    done = run_process(*COMMANDS["python_m"], "--input", "in", "--output", "out", cwd=tmp_path)
    assert done.returncode == 3
    assert "/in/z.parquet' cannot be read: " in done.stderr
    assert [part for part in ("Exception", "WARN ", "\tat ") if part in done.stderr] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_last_nights_table_and_nothing_else(spark, inputs, tmp_path, number):
    spark.range(3).write.parquet(str(tmp_path / "out"))
    places = ["--input", str(inputs / "good"), "--output", "out", "--overwrite", "--scratch", "scratch"]
    command = [*COMMANDS["python_m"], *places, *QUICK]
    with subprocess.Popen(
        command, cwd=tmp_path, env=python_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while process.poll() is None and not list(tmp_path.glob("scratch/*/0")):
            time.sleep(0.02)
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert [line for line in said.splitlines() if f"stopped by {number.name}" in line] != []
    # Spark's daemon of Python workers sometimes prints a trace of its own when Java goes first.
    assert all("pyspark/daemon.py" in trace for trace in said.split("Traceback")[1:])
    assert files_in(tmp_path) == ["out"]
    assert spark.read.parquet(str(tmp_path / "out")).count() == 3


def test_what_a_killed_run_left_is_deleted_by_the_next(inputs, tmp_path):
    places = [
        "--input",
        str(inputs / "good"),
        "--output",
        str(tmp_path / "out"),
        "--scratch",
        str(tmp_path / "scratch"),
    ]
    command = [*COMMANDS["python_m"], *places, *QUICK]
    with subprocess.Popen(
        command, cwd=tmp_path, env=python_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not list(tmp_path.glob("scratch/*/0")):
            time.sleep(0.02)
        process.kill()
    assert files_in(tmp_path)[0].startswith(".out.pending-")
    time.sleep(5)  # Java ends by itself
    assert build(inputs / "good", tmp_path / "out", "--scratch", str(tmp_path / "scratch")) == 0
    assert files_in(tmp_path) == ["out", "out.report", "scratch"]
    assert files_in(tmp_path / "scratch") == []


def test_where_the_locale_knows_no_letters_beyond_ascii_names_have_them_all_the_same(spark, inputs, tmp_path):
    spark.read.parquet(str(inputs / "good")).write.parquet(str(tmp_path / "größe" / "in"))
    environment = python_environment() | {"LC_ALL": "C"}
    places = ["--input", "größe/in", "--output", "maße/out", "--scratch", "süß"]
    done = subprocess.run(
        [*COMMANDS["python_m"], *places, *QUICK], cwd=tmp_path, env=environment, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert files_in(tmp_path) == ["größe", "maße", "süß"]
    done = subprocess.run(
        [*COMMANDS["spark_submit"], "--input", str(inputs / "good"), "--output", "höhe/out", *QUICK],
        cwd=tmp_path, env=environment, capture_output=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"LC_ALL=C.UTF-8" in done.stdout + done.stderr
    assert files_in(tmp_path) == ["größe", "maße", "süß"]
