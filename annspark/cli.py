"""The command line: arguments in, one call, exit code out."""

import argparse
import locale
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, NoReturn

from annspark import __doc__ as purpose
from annspark import __version__
from annspark.config import CHOICES, RECALL, Settings, make_job, read_config
from annspark.errors import AnnsparkError, InputError, RecallMissed, SettingsError, known_failure, reason_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DONE, FAILED, BAD_SETTINGS, BAD_INPUT, MISSED = 0, 1, 2, 3, 4
_CODES = {SettingsError: BAD_SETTINGS, InputError: BAD_INPUT, RecallMissed: MISSED}
_SIGNALLED = 128  # plus the signal's number, as shells count
_SECONDS = 10  # to wait for Spark to end what it does


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 bad settings, 3 bad input, 4 recall missed, 1 anything else.

    After SIGINT it is 130, after SIGTERM 143.
    """
    given = vars(_parser().parse_args(argv))
    command, debug = _COMMANDS[given.pop("command")], given.pop("debug", False)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("annspark").setLevel(logging.INFO)
    if not debug:
        _quiet_java()
        logging.getLogger("DataFrameQueryContextLogger").disabled = True  # PySpark's, which prints traces as JSON
    try:
        with _signals_raise():
            command(given)
        return DONE
    except _Stopped as error:
        if error.spark is not None:
            _stop_spark(error.spark)
        print(f"annspark: {error}", file=sys.stderr)
        return _SIGNALLED + error.number
    except Exception as error:
        known = error if isinstance(error, AnnsparkError) else known_failure(error)
        if debug:
            traceback.print_exc()
        more = "" if debug else " Run again with --debug for the trace."
        print(f"annspark: {known or f'the job failed: {reason_of(error)}.{more}'}", file=sys.stderr)
        return next((code for kind, code in _CODES.items() if isinstance(known, kind)), FAILED)


def script() -> None:
    """Run a command as a process's entry point: a failure raises SystemExit, which wheel tasks need to see it."""
    code = main()
    if code:
        sys.exit(code)


def _build(given: dict[str, Any]) -> None:
    config, plan_only = given.pop("config", None), given.pop("plan", False)
    told = read_config(config) if config else {}
    for flag, other in (("probes", "recall"), ("recall", "probes")):
        if flag in given:  # a flag wins over the file's other way to say the same
            told.pop(other, None)
    job = make_job(told | given)
    spark = _session("annspark build", "annspark.pipeline", "matplotlib.figure")
    from annspark.pipeline import preview, run
    from annspark.report.text import preview_as_text, report_as_text

    print(preview_as_text(preview(spark, job)) if plan_only else report_as_text(run(spark, job)))


def _evaluate(given: dict[str, Any]) -> None:
    names = ("input", "neighbors", "format", "report", "scratch")
    places = {name: given.pop(name, None) for name in names}
    settings = Settings(**given)
    spark = _session("annspark evaluate", "annspark.evaluate", "matplotlib.figure")
    from annspark.evaluate import evaluate
    from annspark.report.text import report_as_text

    print(report_as_text(evaluate(spark, settings, **places)))


def _quiet_java() -> None:
    """Have the Java that this process starts keep its log to itself, unless somebody configured what it says."""
    settings = ("SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS")
    configured = "SPARK_CONF_DIR" in os.environ or any("log4j" in os.environ.get(name, "") for name in settings)
    own = Path(os.environ.get("SPARK_HOME") or "/nowhere", "conf", "log4j2.properties").exists()
    quiet = Path(__file__).with_name("log4j2.properties")
    if "PYSPARK_GATEWAY_PORT" in os.environ or configured or own or not quiet.exists():  # none in a zip
        return
    options = os.environ.get("SPARK_SUBMIT_OPTS", "")
    os.environ["SPARK_SUBMIT_OPTS"] = f"{options} -Dlog4j2.configurationFile={quiet.as_uri()}".strip()


def _session(name: str, *wanted: str) -> "SparkSession":
    """Return a session, and import the modules wanted next while Java starts, which leaves the other cores idle."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not under spark-submit: this process starts Spark, so its workers should run this Python.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if _would_be_ascii():
            os.environ["LC_ALL"] = "C.UTF-8"
    from pyspark.sql import SparkSession

    # After PySpark's own import, which would have to take turns with it.
    Thread(target=_import_modules, args=wanted, daemon=True).start()
    spark = SparkSession.builder.appName(name).getOrCreate()
    _raise_on_signals(spark)  # again, as Spark has a handler of its own for SIGINT
    return spark


def _would_be_ascii() -> bool:
    """Say whether Java would take file names for ASCII here, as under cron: it goes by the locale, unlike Python."""
    if sys.platform != "linux":
        return False
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")  # as Java does; it fails, for Java too, where the locale is not installed
        return locale.setlocale(locale.LC_CTYPE) in ("C", "POSIX")
    except locale.Error:
        return True
    finally:
        locale.setlocale(locale.LC_ALL, before)


class _Stopped(KeyboardInterrupt):  # which Py4J knows how to leave a call for
    def __init__(self, number: int, spark: "SparkSession | None") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; what was written aside is deleted.")
        self.number, self.spark = number, spark


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise _Stopped within the block, so that what was written aside is deleted."""
    if current_thread() is not main_thread():  # which alone may say so
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _raise_on_signals(None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _raise_on_signals(spark: "SparkSession | None") -> None:
    if current_thread() is not main_thread():
        return
    of_spark = signal.getsignal(signal.SIGINT)  # cancels all jobs, also where the session has no way to

    def stop(number: int, _: object) -> NoReturn:
        for one in (signal.SIGINT, signal.SIGTERM):  # once is enough, and cleaning up takes its time
            signal.signal(one, signal.SIG_IGN)
        # The trace of the call that is left, which Py4J logs under its own name and under none.
        logging.getLogger().addFilter(lambda record: record.name != "root")
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        if spark is not None:
            _in_time(spark.interruptAll)
            _in_time(lambda: callable(of_spark) and of_spark(signal.SIGINT, None))
        raise _Stopped(number, spark)

    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, stop)


def _stop_spark(spark: "SparkSession") -> None:
    """Stop the session, and delete what its tasks have written since that was deleted."""
    _in_time(spark.stop)
    with suppress(ImportError):
        from annspark.pipeline import sweep

        sweep()


def _in_time(work: Callable[[], object]) -> None:
    """Do what may fail or hang, in a thread of its own, as the main one's connection may still wait for an answer."""

    def quietly() -> None:
        with suppress(BaseException):
            work()

    thread = Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(_SECONDS)


def _import_modules(*names: str) -> None:
    for name in names:
        with suppress(Exception):  # who needs it will say what is wrong
            import_module(name)


_COMMANDS = {"build": _build, "evaluate": _evaluate}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="annspark", description=purpose)
    parser.add_argument("--version", action="version", version=f"annspark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_evaluate(commands)
    build = commands.add_parser(
        "build",
        help="find every user's nearest neighbors and publish the table",
        description="Find every user's approximate k nearest neighbors; publish the table and a report on its recall. "
        "A name with dots and no slash is a catalog table, anything else a path. Flags win over the config file.",
        argument_default=argparse.SUPPRESS,
    )
    add, default = build.add_argument, Settings()
    add("--input", metavar="PATH_OR_TABLE", help="the table of user vectors")
    add("--output", metavar="PATH_OR_TABLE", help="the table of neighbors to publish")
    _add_common(build)
    add("--recall", type=float, help=f"share of the exact neighbors to find, or nothing is published ({RECALL})")
    add("--probes", type=float, help="leaves a user goes to, on average, instead of those a recall needs")
    add("--trees", type=int, help="trees in the forest (1; as many as the recall needs for sparse vectors)")
    add("--leaf-rows", type=int, help=f"users a leaf should hold, never fewer than 4 k ({default.leaf_rows})")
    add("--split", choices=CHOICES["split"], help=f"how the planes of a tree are placed ({default.split})")
    add("--shape", choices=CHOICES["shape"], help=f"a row per user, or a row per neighbor ({default.shape})")
    add("--report", metavar="DIR", help="folder of report.json and report.html (<output>.report)")
    add("--top-up", action="store_true", help="if the recall is missed, add another tree instead of giving up")
    add("--plan", action="store_true", help="say what the job would find and cost, and publish nothing")
    add("--config", metavar="FILE.toml", help="a file of settings, named like these flags with _ for -")
    add("--max-distance", type=float, help="leave farther neighbors out of what is published")
    add("--links", choices=CHOICES["links"], help="publish only mutual neighbors, or those of either's list (all)")
    add("--overwrite", action="store_true", help="replace the output when it exists")
    return parser


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure the recall of any neighbor table",
        description="Measure the recall of any neighbor table, ours or another system's, against the vectors it was "
        "made from.  It may have a row per user with an array `neighbors` (of ids, or of structs with neighbor_id), or "
        "a row per neighbor with neighbor_id and rank or distance.  Distances are computed anew.",
        argument_default=argparse.SUPPRESS,
    )
    evaluate.add_argument("--input", metavar="PATH_OR_TABLE", required=True, help="the table of user vectors")
    evaluate.add_argument("--neighbors", metavar="PATH_OR_TABLE", required=True, help="the table to look at")
    _add_common(evaluate)
    evaluate.add_argument("--report", metavar="DIR", help="folder to write report.json and report.html to (none)")


def _add_common(command: argparse.ArgumentParser) -> None:
    add, default = command.add_argument, Settings()
    add("--id-col", help=f"column of user ids ({default.id_col})")
    add("--vector-col", help=f"column of vectors ({default.vector_col})")
    add("--values-col", help="column of the values of sparse vectors whose indices are in the vector column")
    add("--k", type=int, help=f"neighbors per user ({default.k})")
    add("--metric", choices=CHOICES["metric"], help=f"distance, or inner product ({default.metric})")
    add("--seed", type=int, help=f"same data and seed, same table ({default.seed})")
    add("--audit-users", type=int, help=f"users whose exact neighbors measure the recall ({default.audit_users})")
    add(
        "--on-bad-row",
        choices=CHOICES["on_bad_row"],
        help=f"stop at unusable rows, or leave them out ({default.on_bad_row})",
    )
    add("--format", help="file format of paths (parquet)")
    add("--scratch", metavar="DIR", help="shared folder for intermediate tables (cached in the session)")
    add(
        "--debug",
        action="store_true",
        help="when the command fails, print the trace as well; let Spark say what it logs",
    )
