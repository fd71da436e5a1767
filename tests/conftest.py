import os
import sys
from importlib.util import find_spec

import pytest

from tests.helpers import JAVA_OPTIONS, REPOSITORY, clustered, make_table

# For the session here and those of processes that tests start.
os.environ.setdefault("SPARK_SUBMIT_OPTS", JAVA_OPTIONS)
os.environ.setdefault("ANNSPARK_JAVA_ARCHIVE", "off")  # writing it takes longer than most tests

# "all" with --all of run.sh: everything is there, or it is an error. "strict": a skipped test is an error.
CHOSEN = os.environ.get("ANNSPARK_TESTS", "")
NEEDED = {
    "grpc": "Spark Connect (pyspark[connect] of Spark 4; of Spark 3.5 run -m spark35 instead)",
    "faiss": "faiss-cpu (extra test)",
    "scipy": "SciPy (extra test)",
    "psutil": "psutil (extra test)",
    "jinja2": "Jinja2 (extra test)",
    "matplotlib": "Matplotlib (extra test)",
    "sklearn": "scikit-learn (extra test)",
    "moto": "moto (extra test)",
    "umap": "umap-learn (extra uses)",
    "openTSNE": "openTSNE (extra uses)",
    "hdbscan": "hdbscan (extra uses)",
    "scanpy": "scanpy (extra uses)",
    "leidenalg": "igraph and leidenalg (extra uses)",
    "pynndescent": "pynndescent (extra uses)",
    "duckdb": "DuckDB (extra uses)",
}


def pytest_configure():
    missing = [name for module, name in NEEDED.items() if CHOSEN == "all" and find_spec(module) is None]
    if CHOSEN == "all" and not sys.platform.startswith("linux"):
        missing.append("Linux, whose /proc some tests read")
    if missing:
        raise pytest.UsageError(f"--all needs {'; '.join(missing)}. Without --all the tests run.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Put tests that take long first, so that no process of pytest waits for the last of them."""
    for item in items:
        if item.get_closest_marker("process"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("process") is None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.getplugin("terminalreporter")  # the one process that tells has it
    if CHOSEN and reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, exitstatus):
    if CHOSEN and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("ERROR: tests were skipped, which is no success here.", red=True)
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and terminalreporter.stats.get("deselected"):
        terminalreporter.write_line("No test was run: those chosen, if there are any, are slow ones, which --all adds.")


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """One Spark session for all tests that ask for it; tests/core never does."""
    session = make_session(str(tmp_path_factory.mktemp("warehouse")))
    yield session
    session.stop()


def make_session(warehouse: str):
    """Return a new Spark session of two cores, whose catalog's tables are in a folder."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    # Workers import annspark from where the tests do.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    from pyspark.sql import SparkSession

    if remote := os.environ.get("SPARK_REMOTE"):  # tests/matrix.py sets it
        return SparkSession.builder.remote(remote).config("spark.sql.shuffle.partitions", "2").getOrCreate()
    session = (
        SparkSession.builder.master("local[2]")
        .appName("annspark tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.codegen.cache.maxEntries", "10000")  # the tests' queries are more than the 100 kept else
        .config("spark.python.daemon.module", "tests.python_daemon")  # workers start and end their tasks at once
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", warehouse)
        .config("spark.sql.catalogImplementation", "in-memory")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    return session


@pytest.fixture
def vectors(spark):
    """Return a maker of tables of seeded vectors: vectors(n, dim, seed=..., partitions=...)."""

    def make(n: int, dim: int = 16, *, seed: int = 0, partitions: int = 4):
        return make_table(spark, clustered(n, dim, seed=seed), partitions=partitions)

    return make


@pytest.fixture(scope="module")
def stage(spark):
    """Return what stages tables in the session's cache until the module's tests are over."""
    from annspark.spark.staging import staging

    with staging(None) as stage:
        yield stage
