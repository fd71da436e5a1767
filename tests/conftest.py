import os
import sys

import pytest

from tests.helpers import JAVA_OPTIONS, REPOSITORY, clustered, make_table

os.environ.setdefault("SPARK_SUBMIT_OPTS", JAVA_OPTIONS)  # for the session here and those of processes tests start


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

    session = (
        SparkSession.builder.master("local[2]")
        .appName("annspark tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.codegen.cache.maxEntries", "10000")  # the tests' queries are more than the 100 kept else
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
