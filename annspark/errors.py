"""Errors that a caller can act on: every message says where, what was found, what is allowed and what to do next."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


class AnnsparkError(Exception):
    """The base of annspark's errors; itself raised for a defect of annspark."""


class SettingsError(AnnsparkError, ValueError):
    """A setting or argument is wrong; nothing was read or written."""


class InputError(AnnsparkError, ValueError):
    """The input table cannot be used as it is; nothing was written."""


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
# Files that a run of annspark wrote, see staging and publish.
_OURS = re.compile(r"/annspark-[0-9a-f]{12}/|\.pending-[0-9a-f]{12}/")
_TYPES = re.compile(r"column: \[(.+?)\], physicalType: (.+?), logicalType: (.+)")
_SET_PYTHON = "Set PYSPARK_PYTHON (spark.pyspark.python), before the session starts, to"
_MORE_FOR_PYTHON = (
    "Leave Python more (spark.executor.memoryOverhead, or a machine of its own), or run fewer tasks at once "
    "(spark.executor.cores, local[N])"
)
# Patterns in the text of Spark's errors, and the message for each.  The first pattern found counts.  {0}, {1} are its
# groups, {name} is the first of them that is not empty, {reason} is reason_of the error.
_KNOWN = {
    r"No space left on device|Disk quota exceeded": (
        "a disk is full ({reason}). Make room where Spark keeps its files (spark.local.dir), where scratch lies and "
        "where the output goes, and run again"
    ),
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
    r"Python worker exited unexpectedly|Python worker failed to connect back|[Ee]xit code:? 137|OOMKilled": (
        f"a Python worker died ({{reason}}), most often for want of memory. {_MORE_FOR_PYTHON}"
    ),
    r"OutOfMemoryError|Java heap space|GC overhead limit|SPARK_OUT_OF_MEMORY|UNABLE_TO_ACQUIRE_MEMORY": (
        "Java ran out of memory ({reason}). Give it more: spark.driver.memory on one machine, spark.executor.memory on "
        "a cluster"
    ),
    r"bigger than (?:local maxResultSize|spark\.driver\.maxResultSize)": (
        "the driver may not collect as much as it has to ({reason}). Raise spark.driver.maxResultSize, to 2g for "
        "example"
    ),
    r"\bMemoryError\b": f"Python ran out of memory ({{reason}}). {_MORE_FOR_PYTHON}",
    r"stopped SparkContext|SparkContext was shut down|SESSION_CLOSED|Answer from Java side is empty": (
        "the Spark session has ended ({reason}). Start a new one, read the table anew, and run again"
    ),
}


def reason_of(error: BaseException) -> str:
    """Return the message of an error in one line; for Spark's errors without the call, and with the deepest cause.

    Both classic sessions and Connect give the JVM's trace as text.
    """
    text = str(error).strip()
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
    message = re.sub(r"(?: Consider setting '.*| *SQLSTATE: \w+)$", "", message).strip().rstrip(".")
    if (cause := _deepest_cause(text)) and cause not in text.partition("\n\tat ")[0]:
        message = f"{message} ({cause})"
    return message if len(message) <= 500 else message[:497] + "..."


def _deepest_cause(text: str) -> str:
    causes = [found for found in _CAUSE.findall(text) if "Job aborted" not in found]
    return causes[-1].strip().rstrip(".") if causes else ""


def known_failure(error: BaseException) -> AnnsparkError | None:
    """Return an error that says what Spark failed at and what to do next; None for a failure that is not known."""
    text = str(error)
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
        return ClusterError(f"this Python has no {error.name}: install it on the driver and the executors.")
    for pattern, sentence in _KNOWN.items():
        found = re.search(pattern, text)
        if found:
            groups = found.groups()
            name = next((group for group in groups if group), None)
            return ClusterError(sentence.format(*groups, name=name, reason=reason_of(error)) + ".")
    return None


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
