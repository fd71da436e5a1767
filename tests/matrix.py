"""The matrix of Sparks, Javas and Pythons: python -m tests.matrix [ROW ...] runs rows and prints what became of them.

Each row runs the tests marked spark35.  Rows on Connect, whose server is the newest Spark, and all rows with --quick
run only files of QUICK.  These have the whole line, the odd sessions, and what is the same to the bit on every Spark.
tests/run.sh makes an environment for each Spark and Python, .venv-matrix-SPARK-PYTHON, of some 1.5 GB.

.ci/run runs the rows "3.5" and "newest".  The others take this command.  A row is told as "not run" where its Java or
Python is not on this machine.  Javas are looked for in JAVA_HOME, JAVA_HOME_21, JAVA_HOME_21_X64 and /usr/lib/jvm,
Pythons on the PATH and where pyenv puts them.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import REPOSITORY

NEWEST = "newest"
QUICK = ("tests/test_every_spark.py", "tests/test_sessions.py", "tests/test_digests.py")
ON_CONNECT = QUICK[:2]  # digests are of tables with MLlib's vectors, which need a classic session
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_PATIENCE = 120  # seconds for a Connect server to start


@dataclass(frozen=True)
class Row:
    """A combination.

    spark  : version of PySpark, 3.5 for example; of the client on Connect, whose server is the newest
    """

    name: str
    spark: str = NEWEST
    java: int = 17
    python: str = "3.11"
    connect: bool = False

    @property
    def folder(self) -> Path:
        return REPOSITORY / f".venv-matrix-{self.spark}-{self.python}"

    @property
    def environment(self) -> dict[str, str]:
        """What tests/run.sh takes from the environment."""
        spark = {} if self.spark == NEWEST else {"ANNSPARK_PYSPARK": f"pyspark[sql]=={self.spark}.*"}
        return {"ANNSPARK_VENV": str(self.folder)} | spark

    @property
    def told(self) -> str:
        session = "Connect" if self.connect else "classic"
        return f"{self.name:15} {self.spark:7} {session:8} {self.java:4}  {self.python:6}"


ROWS = (
    Row("3.5", spark="3.5"),
    Row("4.0", spark="4.0"),
    Row("4.1", spark="4.1"),
    Row("newest"),
    Row("java-21", java=21),
    Row("java-25", java=25),
    Row("python-3.12", python="3.12"),
    Row("python-3.13", python="3.13"),
    Row("connect", connect=True),
    Row("connect-4.0", spark="4.0", connect=True),  # the client of 3.5 cannot read observations
)
HEADER = f"{'row':15} {'Spark':7} {'session':8} {'Java':4}  {'Python':6} run"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(row.name for row in ROWS)}; all if none")
    parser.add_argument("--quick", action="store_true", help=f"run only {', '.join(QUICK)}")
    parser.add_argument("--delete", action="store_true", help="delete the environments at the end")
    given = parser.parse_args()
    if unknown := set(given.rows) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    outcomes = {row: run(row, given.quick) for row in ROWS if not given.rows or row.name in given.rows}
    for folder in {row.folder for row in outcomes} if given.delete else ():
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join([HEADER, *(f"{row.told} {outcome}" for row, outcome in outcomes.items())]))
    return int(any(outcome.startswith("FAILED") for outcome in outcomes.values()))


def run(row: Row, quick: bool) -> str:
    """Run a row, and return its outcome: what pytest has counted, or why it was not run."""
    java, python = java_home(row.java), python_of(row.python)
    if java is None or python is None:
        return f"not run: there is no {f'Java {row.java}' if java is None else f'Python {row.python}'} here"
    environment = {**os.environ, "JAVA_HOME": java, "PYTHON": python}
    if not row.connect:
        return _tested(row, environment, QUICK if quick else ())
    server = Row("server", python=row.python)
    script = "root=$PWD extras=test,connect; . .ci/environment.sh"
    subprocess.run(["sh", "-c", script], cwd=REPOSITORY, env=environment | server.environment, check=True)
    with connect_server(server.folder, environment) as remote:
        return _tested(row, environment | {"SPARK_REMOTE": remote}, ON_CONNECT)


def _tested(row: Row, environment: dict[str, str], files: Sequence[str]) -> str:
    """Run tests in a row's environment, show what they print, and return pytest's last line."""
    print(f"\n== {row.told}", flush=True)
    command = ["sh", "tests/run.sh", "-m", "spark35", *files]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment | row.environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    last = ["nothing was run", *done.stdout.split("\n")[:-1]][-1].strip("= ")
    return last if done.returncode == 0 else f"FAILED: {last}"


def java_home(version: int) -> str | None:
    """Return the folder of a Java of a version on this machine, None where there is none."""
    named = [os.environ.get(name) for name in ("JAVA_HOME", f"JAVA_HOME_{version}", f"JAVA_HOME_{version}_X64")]
    for home in (*filter(None, named), *map(str, sorted(Path("/usr/lib/jvm").glob("*")))):
        release = Path(home, "release")
        if release.is_file() and re.search(rf'^JAVA_VERSION="{version}\b', release.read_text(), re.MULTILINE):
            return home
    return None


def python_of(version: str) -> str | None:
    """Return a Python of a version on this machine, None where there is none."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in filter(None, (shutil.which(f"python{version}"), *map(str, of_pyenv))):
        if subprocess.run([python, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return python
    return None


@contextmanager
def connect_server(venv: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a Connect server of an environment's Spark on this machine within the block; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (home,) = venv.glob("lib/python*/site-packages/pyspark")
    own = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": str(venv / "bin" / "python"), "PYTHONPATH": str(REPOSITORY)}
    confs = {"spark.connect.grpc.binding.port": port, "spark.ui.enabled": "false", "spark.log.level": "OFF"}
    settings = [word for name, value in confs.items() for word in ("--conf", f"{name}={value}")]
    submit = str(home / "bin" / "spark-submit")
    command = [submit, "--master", "local[2]", *settings, "--class", SERVER, "spark-internal"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(command, cwd=folder, env=environment | own, start_new_session=True)
        try:
            _wait_for(port, server)
            yield f"sc://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _wait_for(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.5)
    raise RuntimeError("the Connect server has not started; it says why above")


if __name__ == "__main__":
    sys.exit(main())
