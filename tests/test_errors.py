"""What Spark's errors say, on classic and Connect sessions, becomes one sentence."""

import pytest

from annspark.errors import (
    AnnsparkError,
    ClusterError,
    InputError,
    SettingsError,
    is_java_lost,
    known_failure,
    reason_of,
    spark_errors_explained,
)

AT = "\n\tat org.apache.spark.sql.errors.QueryExecutionErrors$.some(QueryExecutionErrors.scala:920)\n"
CLASSIC = "An error occurred while calling o170.collectToPython.\n: org.apache.spark.SparkException: {}" + AT + "{}"
CONNECT = "{}\n\nJVM stacktrace:\norg.apache.spark.SparkException" + AT + "{}"
OLD = "An error occurred while calling o17.collect.\n: org.apache.spark.SparkException: "
OLD += "Job aborted due to stage failure: "
OLD += "Task 1 in stage 2.0 failed 1 times, most recent failure: Lost task 1.0 in stage 2.0 (TID 3) (host executor "
OLD += "driver): "
OLD += "org.apache.spark.SparkException: {}" + AT + "{}"
FILE = "file:///a/my b/z.parquet"
READ = f"[FAILED_READ_FILE.NO_HINT] Encountered error while reading file {FILE}.  SQLSTATE: KD001"
READ_OLD = f"Encountered error while reading file {FILE}. Details:"
MISMATCH = READ.replace("NO_HINT", "PARQUET_COLUMN_DATA_TYPE_MISMATCH")
GONE = f"[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file {FILE}. File does not exist. It is"


@pytest.mark.parametrize("session", [CLASSIC, CONNECT, OLD])
@pytest.mark.parametrize(
    ("said", "cause", "parts"),
    [
        (READ, "java.lang.RuntimeException: z is not a Parquet file. Expected", ["z is not a Parquet", "--format"]),
        (READ_OLD, "java.io.IOException: can not read class PageHeader", ["can not read class PageHeader", "damaged"]),
        (MISMATCH, "a.b.XException: column: [user_id], physicalType: BINARY, logicalType: bigint",
         ["column 'user_id' is BINARY, where the table has bigint"]),
        (GONE, "java.io.FileNotFoundException: File z does not exist", ["gone since the table was opened"]),
        (READ, "org.apache.hadoop.security.AccessControlException: Permission denied: user=x", ["right to read"]),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_with_what_is_wrong(session, said, cause, parts):
    found = known_failure(RuntimeError(session.format(said, f"Caused by: {cause}\n\t... 1 more\n")))
    assert isinstance(found, InputError)
    assert str(found).startswith(f"file {FILE!r} cannot be read: ")
    assert [part for part in parts if part not in str(found)] == []
    assert "\n" not in str(found)


def test_a_file_of_scratch_is_not_the_inputs():
    found = known_failure(RuntimeError(CLASSIC.format(GONE.replace("/a/my b", "/s/annspark-0123456789ab"), "")))
    assert isinstance(found, ClusterError)


WORKER = 'An exception was thrown from the Python worker:\nTraceback (most recent call last):\n  File "x.py"\n{}\n'


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        (OLD.format("x", "Caused by: a.b.IOException: No space left on device\n"), ["disk is full", "spark.local.dir"]),
        (OLD.format("a.OutOfMemoryError: Java heap space", ""), ["Java ran out of memory", "spark.driver.memory"]),
        (OLD.format("Python worker exited unexpectedly (crashed). Consider setting 'a'", ""), ["died", "memory"]),
        (WORKER.format("ModuleNotFoundError: No module named 'pyarrow'"), ["has no pyarrow", "PYSPARK_PYTHON"]),
        (WORKER.format("x.PySparkImportError: [PACKAGE_NOT_INSTALLED] PyArrow >= 18.0.0 must be installed; however"),
         ["has no PyArrow", "PYSPARK_PYTHON"]),
        (WORKER.format("x.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 "
                       "than that in driver: 3.11, PySpark"), ["Python 3.9 and the driver Python 3.11", "PYSPARK"]),
        (WORKER.format("MemoryError: Unable to allocate 5 GiB"), ["Python ran out of memory (MemoryError: Unable"]),
        (WORKER.format("numpy._core._exceptions._ArrayMemoryError: Unable to allocate"), ["pyspark.memory"]),
        (WORKER.format("pyarrow.lib.ArrowMemoryError: malloc of size 64 failed"), ["spark.executor.pyspark.memory"]),
        (CLASSIC.format("Exception thrown in awaitResult: ", "Caused by: a.b.SparkException: Python worker exited "
                        "unexpectedly (crashed). Consider setting 'a' or'b' to 'true' for the better traceback\n"),
         ["a Python worker died (Python worker exited unexpectedly (crashed)), most"]),
        (CLASSIC.format("Job aborted", "Caused by: java.io.EOFException\n\tat java.base/java.io.Data.readInt(D.java)"
                        "\n\tat org.apache.spark.api.python.PythonWorkerFactory.create(P.scala:1)"), ["worker died"]),
        (OLD.format("System memory 9 must be at least 10", ""), ["Java ran out of memory", "spark.driver.memory"]),
        (CLASSIC.format("Cannot run program \"python9\": error=2", ""), ["cannot run 'python9'", "PYSPARK_PYTHON"]),
        (CLASSIC.format("Cannot call methods on a stopped SparkContext", ""), ["session has ended"]),
    ],
)  # fmt: skip
def test_what_spark_lacks_is_said_with_what_to_do(said, parts):
    found = known_failure(RuntimeError(said))
    assert type(found) is ClusterError
    assert [part for part in parts if part not in str(found)] == []
    assert "\n" not in str(found)


@pytest.mark.parametrize("session", [CLASSIC, CONNECT, OLD])
@pytest.mark.parametrize("kind", [InputError, SettingsError])
def test_an_error_of_ours_that_a_worker_raises_arrives_as_it_is(session, kind):
    raised = WORKER.format(
        f"OSError: gone\n\nDuring handling\n\nannspark.errors.{kind.__name__}: index: its file is gone."
    )
    found = known_failure(RuntimeError(session.format(raised, "Caused by: a.IOException: No space left on device\n")))
    assert type(found) is kind
    assert str(found) == "index: its file is gone."


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "RuntimeError"),
        ("one line", "one line"),
        (CLASSIC.format("[SOME.CLASS] It went wrong. SQLSTATE: KD001", "Caused by: a.EOFException\n"), "It went wrong"),
        (CONNECT.format("(a.b.XException) It went wrong", "Caused by: a.C: deep\nCaused by: a.D: deeper\n"),
         "It went wrong (deeper)"),
        (OLD.format("It went wrong", ""), "It went wrong"),
        (WORKER.format("ValueError: no\n\nDuring handling\n\nKeyError: 'x'"), "KeyError: 'x'"),
    ],
)  # fmt: skip
def test_the_reason_of_any_error_is_one_line(said, reason):
    assert reason_of(RuntimeError(said)) == reason
    assert known_failure(RuntimeError(said)) is None


class Py4JError(Exception):
    """Named as Py4J's own."""


class Py4JJavaError(Py4JError):
    """Asks Java for its text."""

    def __str__(self):
        raise ConnectionRefusedError("Connection refused")


@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError(111, "Connection refused"), Py4JError("Answer from Java is empty"), Py4JJavaError()],
)
def test_a_java_that_has_ended_is_told_as_that(error):
    found = known_failure(error)
    assert type(found) is ClusterError
    assert "Java has ended" in str(found)
    assert "spark.driver.memory" in str(found)
    assert is_java_lost(error)


@pytest.mark.parametrize(("name", "how"), [("pyspark", "pip install 'annspark[spark]'"), ("scipy", "the executors")])
def test_a_module_that_is_missing_is_named_with_what_to_install(name, how):
    told = str(known_failure(ModuleNotFoundError(f"No module named {name!r}", name=name)))
    assert f"has no {name}" in told
    assert how in told


def test_an_error_that_came_of_a_lost_java_is_one_of_a_lost_java():
    error = ClusterError("something else")
    error.__context__ = ConnectionResetError(104, "reset")
    assert is_java_lost(error)
    assert is_java_lost(RuntimeError(CLASSIC.format("Job 1 cancelled because SparkContext was shut down", "")))
    assert not is_java_lost(RuntimeError(CLASSIC.format("It went wrong", "")))


def test_only_what_is_known_is_told_anew():
    with pytest.raises(ZeroDivisionError), spark_errors_explained():
        _ = 1 / 0
    with pytest.raises(ClusterError) as caught, spark_errors_explained():
        raise OSError(28, "No space left on device")
    assert isinstance(caught.value.__cause__, OSError)
    own = AnnsparkError("No space left on device")
    with pytest.raises(AnnsparkError) as caught, spark_errors_explained():
        raise own
    assert caught.value is own
