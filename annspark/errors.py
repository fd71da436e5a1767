"""Errors that a caller can act on: every message says where, what was found, what is allowed and what to do next."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from annspark.hide import hidden


class AnnsparkError(Exception):
    """The base of annspark's errors; itself raised for a defect of annspark. Its message shows no credentials."""

    def __init__(self, message: str = "") -> None:
        super().__init__(hidden(message))


class SettingsError(AnnsparkError, ValueError):
    """A setting or argument is wrong; nothing was read or written."""


class InputError(AnnsparkError, ValueError):
    """The input table cannot be used as it is; nothing was written."""


class Unlike(InputError):
    """The vectors are of another kind or length than those they are compared with."""


class BuildNeeded(InputError):
    """Tonight's rows do not fit the index that is to be updated; table and index have to be built anew."""


class ClusterError(AnnsparkError, RuntimeError):
    """Spark lacks memory, disk space or what its Python workers need; nothing was published."""


class RecallMissed(AnnsparkError):
    """The interval of the audited recall is below the recall asked for; the table was not published.

    report : the Report on the run
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


_CAUSE = re.compile(r"^Caused by: [\w.$]+: (.+)$", re.MULTILINE)
_PYTHONS = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Warning|Interrupt|Exit)\b.*)$", re.MULTILINE)
# What precedes a message: the method called, the task and job that failed, the Java class and Spark's error class.
_BEFORE = re.compile(
    r"^(?:: |\([\w.$]+\) |[\w.$]+(?:Exception|Error|Throwable)[\w.$]*: "
    r"|Job aborted due to stage failure: .*?\): |\[[A-Z][\w.]+\] )"
)
_READ = re.compile(
    r"(?:reading file|Could not read footer for file:|converted in file) +(\S.*?)(?:[.:](?:\s|$)|\s*$)", re.MULTILINE
)
_OWN = re.compile(r"\bannspark\.errors\.(InputError|SettingsError): (\S.*)")  # raised in a Python worker
# Files that a run of annspark wrote, see staging, steps and publish.
_OURS = re.compile(r"/annspark-[0-9a-f]{12}/|/resume-[0-9a-f]{12}/|\.pending-[0-9a-f]{12}/")
_TYPES = re.compile(r"column: \[(.+?)\], physicalType: (.+?), logicalType: (.+)")
# What Spark says while Java shuts it down.
_ENDING = r"SparkContext was shut down|dagScheduler\(\)|BlockManagerEndpoint|stopped SparkContext"
_SET_PYTHON = "Set PYSPARK_PYTHON (spark.pyspark.python), before the session starts, to"
_MORE_FOR_PYTHON = (
    "Leave Python more (raise spark.executor.pyspark.memory where it is set, otherwise spark.executor.memoryOverhead, "
    "or take a machine of its own), or run fewer tasks at once (spark.executor.cores, local[N])"
)
# Patterns in the text of Spark's errors, and the message for each.  The first pattern found counts.  {0}, {1} are its
# groups, {name} is the first of them that is not empty, {reason} is reason_of the error.
_KNOWN = {
    r"No space left on device|Disk quota exceeded": (
        "a disk is full ({reason}). Make room where Spark keeps its files (spark.local.dir), where scratch lies and "
        "where the output goes, and run again"
    ),
    r"\b_?(?:Array|Arrow)?MemoryError\b": f"Python ran out of memory ({{reason}}). {_MORE_FOR_PYTHON}",
    r"No module named '([^']+)'|(\w+) >= [\w.]+ must be installed": (
        f"the Python of Spark's workers has no {{name}}. {_SET_PYTHON} one that has annspark, NumPy and PyArrow, or "
        "install it there"
    ),
    r"different version: *([\d.]+) than that in driver: *([\d.]+)": (
        f"Spark's workers run Python {{0}} and the driver Python {{1}}. {_SET_PYTHON} one of the driver's version"
    ),
    r"Cannot run program \"([^\"]+)\"": (
        f"Spark's workers cannot run {{0!r}}. {_SET_PYTHON} a Python that is there on every machine"
    ),
    r"OutOfMemoryError|Java heap space|GC overhead limit|SPARK_OUT_OF_MEMORY|UNABLE_TO_ACQUIRE_MEMORY"
    r"|System memory \d+ must be at least": (
        "Java ran out of memory ({reason}). Give it more: spark.driver.memory on one machine, spark.executor.memory on "
        "a cluster"
    ),
    # The last is a worker that died before Spark handed it a task.
    r"Python worker exited unexpectedly|Python worker failed to connect back|[Ee]xit code:? 137|OOMKilled"
    r"|java\.io\.EOFException(?:\s+at \S+)*?\s+at org\.apache\.spark\.api\.python": (
        f"a Python worker died ({{reason}}), most often for want of memory. {_MORE_FOR_PYTHON}"
    ),
    r"bigger than (?:local maxResultSize|spark\.driver\.maxResultSize)": (
        "the driver may not collect as much as it has to ({reason}). Raise spark.driver.maxResultSize, to 2g for "
        "example"
    ),
    rf"{_ENDING}|SESSION_CLOSED": (
        "the Spark session has ended ({reason}). Start a new one, read the table anew, and run again"
    ),
}


def reason_of(error: BaseException) -> str:
    """Return the message of an error in one line; for Spark's errors without the call, and with the deepest cause.

    Both classic sessions and Connect give the JVM's trace as text.
    """
    text = _text_of(error).strip()
    raised = _PYTHONS.findall(text) if "Traceback (most recent call last)" in text else []
    if raised:  # an exception in a Python worker
        return " ".join(raised[-1].split())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and re.match(r"An error occurred while calling |An exception was thrown", lines[0]):
        lines = lines[1:] or lines
    if not lines:
        return type(error).__name__
    message = lines[0]
    while (rest := _BEFORE.sub("", message)) != message and rest:
        message = rest
    if (cause := _deepest_cause(text)) and cause not in text.partition("\n\tat ")[0]:
        message = cause if message.startswith("Exception thrown in awaitResult") else f"{message} ({cause})"
    message = re.sub(r" Consider setting '.*$| *SQLSTATE: \w+", "", message).strip().rstrip(".")
    return message if len(message) <= 500 else message[:497] + "..."


def _deepest_cause(text: str) -> str:
    causes = [found for found in _CAUSE.findall(text) if "Job aborted" not in found]
    return causes[-1].strip().rstrip(".") if causes else ""


def known_failure(error: BaseException) -> AnnsparkError | None:
    """Return an error that says what Spark failed at and what to do next; None for a failure that is not known."""
    text = _text_of(error)
    if own := _OWN.search(text):
        return {"InputError": InputError, "SettingsError": SettingsError}[own[1]](own[2].strip())
    read = _READ.search(text)
    if read:
        file = read[1]
        if not _OURS.search(file):
            return InputError(f"file {file!r} cannot be read: {_wrong_with_file(text, error)}")
        return ClusterError(
            f"file {file!r}, which annspark wrote, cannot be read: {reason_of(error)}. Run again, and see that nobody "
            "cleans that folder meanwhile."
        )
    if isinstance(error, ModuleNotFoundError):
        if error.name == "pyspark":  # annspark does not bring it, as a cluster has its own
            return ClusterError("this Python has no pyspark. Where there is no cluster, pip install 'annspark[spark]'.")
        return ClusterError(f"this Python has no {error.name}: install it on the driver and the executors.")
    if _is_cut(error):
        return ClusterError(
            f"Spark's Java has ended ({reason_of(error)}), most often for want of memory. Give it more "
            "(spark.driver.memory), or take a machine with more. Then start a new session, and run again."
        )
    for pattern, sentence in _KNOWN.items():
        found = re.search(pattern, text)
        if found:
            groups = found.groups()
            name = next((group for group in groups if group), None)
            return ClusterError(sentence.format(*groups, name=name, reason=reason_of(error)) + ".")
    return None


def is_java_lost(error: BaseException) -> bool:
    """Say whether an error, or one that it came of, is of a session whose Java is ending or has ended."""
    came_of: BaseException | None = error
    while came_of is not None:
        if _is_cut(came_of) or re.search(_ENDING, _text_of(came_of)):
            return True
        came_of = came_of.__cause__ or came_of.__context__
    return False


def _is_cut(error: BaseException) -> bool:
    """Say whether an error is of a connection to Java that is cut: of Py4J, without the text of an error of Java."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    of_py4j = "Py4JError" in kinds and ("Py4JJavaError" not in kinds or not _text_of(error))
    return of_py4j or isinstance(error, ConnectionError)


def _text_of(error: BaseException) -> str:
    """Return the text of an error; "" where Java has it and has ended."""
    with suppress(Exception):
        return str(error)
    return ""


def _wrong_with_file(text: str, error: BaseException) -> str:
    kinds = _TYPES.search(text)
    if kinds:
        return (
            f"its column {kinds[1]!r} is {kinds[2]}, where the table has {kinds[3]}. Write all files with the same "
            "types, or read them one by one and cast."
        )
    if re.search("FILE_NOT_EXIST|FileNotFoundException|does not exist", text):
        return "it is gone since the table was opened. Open the table anew, when nobody is writing it."
    cause = _deepest_cause(text) or reason_of(error)
    if re.search("Permission denied|AccessControlException|AccessDenied", text):
        return f"{cause}. Ask for the right to read it."
    if re.search("is not a Parquet file|footer|Malformed ORC file|not an ORC file|magic number", text):
        return (
            f"{cause}. It is of another format, or a part of it is missing: write it again or take it away, or name "
            "the format of all files (--format)."
        )
    return f"{cause}. It is damaged: write it again, or take it away."


@contextmanager
def spark_errors_explained() -> Iterator[None]:
    """Raise InputError or ClusterError in place of an error of Spark whose reason is known."""
    try:
        yield
    except AnnsparkError:
        raise
    except Exception as error:
        known = known_failure(error)
        if known is None:
            raise
        raise known from error
