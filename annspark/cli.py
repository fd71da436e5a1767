"""The command line: parse the arguments, call the package, return an exit code."""

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any, NoReturn

from annspark import __doc__ as purpose
from annspark import __version__
from annspark.allowed import settings_in
from annspark.errors import AnnsparkError, InputError, RecallMissed, SettingsError, known_failure, reason_of
from annspark.flags import FOLDER, PLACE, add_debug, add_flag
from annspark.hide import hidden
from annspark.job import (
    FitJob,
    Job,
    PlanFor,
    QueryJob,
    UpdateJob,
    make_fit_job,
    make_job,
    make_query_job,
    make_update_job,
    read_config,
)
from annspark.rebuild import job_of_report, read_build_report
from annspark.settings import Settings
from annspark.spark.memory import count_killed
from annspark.start.death import explain_death
from annspark.start.session import prepare, quiet_java, start_session
from annspark.uses.commands import add_uses
from annspark.uses.jobs import JOBS, make_use_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DONE, FAILED, BAD_SETTINGS, BAD_INPUT, MISSED = 0, 1, 2, 3, 4
_CODES = {SettingsError: BAD_SETTINGS, InputError: BAD_INPUT, RecallMissed: MISSED}
_SIGNALLED = 128  # plus the number of the signal: the exit code in shells
_SECONDS = 10  # seconds to wait for Spark to stop
_FLAGS = settings_in(Job) | settings_in(Settings)
_OF_EVALUATE = (
    *("id_col", "vector_col", "values_col", "vector_cols", "k", "metric", "seed", "audit_users", "on_bad_row"),
    *("within", "format", "scratch"),
)
_OF_FIT = (
    *("id_col", "vector_col", "values_col", "vector_cols", "k", "metric", "recall", "probes", "trees", "leaf_rows"),
    *("split", "seed", "candidate_col", "on_bad_row", "audit_users"),
)
_OF_QUERY = (
    *("id_col", "vector_col", "values_col", "k", "recall", "probes", "same_ids", "shape", "on_bad_row", "audit_users"),
    "max_distance",
)
# Pairs of which a flag wins over either in the file: they exclude each other.
_EITHER = (("probes", "recall"), ("vector_col", "vector_cols"))
_OF_UPDATE = ("on_bad_row", "audit_users", "top_up")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 bad settings, 3 bad input, 4 recall missed, 1 anything else.

    After SIGINT it is 130, after SIGTERM 143.
    """
    given = vars(_parser().parse_args(argv))
    command, debug = _COMMANDS[given.pop("command")], given.pop("debug", False)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("annspark").setLevel(logging.INFO)
    killed = count_killed()
    if not debug:
        quiet_java()
        logging.getLogger("DataFrameQueryContextLogger").disabled = True  # of PySpark, which prints traces as JSON
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
            print(hidden(traceback.format_exc()), end="", file=sys.stderr)
        code = next((code for kind, code in _CODES.items() if isinstance(known, kind)), FAILED)
        more = "" if known or debug else " Run again with --debug for the trace."
        if code == FAILED and count_killed() > killed:
            more += " Meanwhile the kernel killed a process of this machine for want of memory."
        told = known or f"the job failed: {hidden(reason_of(error))}."
        print(f"annspark: {told}{more}", file=sys.stderr)
        return code


def script() -> None:
    """Run a command as the entry point of a process; a failure raises SystemExit, without which wheel tasks miss it."""
    code = main()
    if code:
        sys.exit(code)


def _build(given: dict[str, Any]) -> None:
    config, plan_only = given.pop("config", None), given.pop("plan", False)
    told = read_build_report(given.pop("from_report")) if "from_report" in given else None
    size = {name: given.pop(name) for name in settings_in(PlanFor) if name in given}
    if size and not plan_only:
        raise SettingsError(
            f"{' and '.join(f'--{name}' for name in size)} given without --plan. Add --plan to see what a build of "
            "that size would cost, or leave them out to build."
        )
    planned = PlanFor(**size)
    job = job_of_report(told, given) if told else make_job(_configured(config, given) | given)
    reads = [place for place in (job.input, job.candidates, job.exclude) if place]
    with _session("build", reads, "annspark.nightly", "annspark.preview", "matplotlib.figure") as spark:
        from annspark.nightly import publish_neighbors
        from annspark.preview import preview
        from annspark.report.text import preview_as_text, report_as_text

        if plan_only:
            print(preview_as_text(preview(spark, job, planned)))
        else:
            print(report_as_text(publish_neighbors(spark, job, told)))


def _configured(config: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the config file, without those that a flag excludes."""
    configured = read_config(config) if config else {}
    for pair in _EITHER:
        for flag, other in (pair, pair[::-1]):
            if flag in given:
                configured.pop(other, None)
    return configured


def _fit(given: dict[str, Any]) -> None:
    job = make_fit_job(given)
    with _session("fit", [job.input], "annspark.nightly") as spark:
        from annspark.nightly import publish_index
        from annspark.saved.manifest import manifest_as_text

        print(manifest_as_text(publish_index(spark, job)))


def _query(given: dict[str, Any]) -> None:
    job = make_query_job(given)
    reads = [place for place in (job.input, job.exclude) if place]
    with _session("query", reads, "annspark.nightly", "matplotlib.figure") as spark:
        from annspark.nightly import publish_queries
        from annspark.report.text import report_as_text

        print(report_as_text(publish_queries(spark, job)))


def _update(given: dict[str, Any]) -> None:
    job = make_update_job(given)
    reads = [place for place in (job.input, job.exclude) if place]
    with _session("update", reads, "annspark.nightly", "matplotlib.figure") as spark:
        from annspark.nightly import publish_update
        from annspark.report.text import report_as_text

        print(report_as_text(publish_update(spark, job)))


def _info(given: dict[str, Any]) -> None:
    from annspark.saved.manifest import find_index, manifest_as_text, read_manifest

    print(manifest_as_text(read_manifest(find_index(given["index"]))))


def _evaluate(given: dict[str, Any]) -> None:
    names = ("input", "neighbors", "format", "report", "scratch")
    places = {name: given.pop(name, None) for name in names}
    settings = Settings(**given)
    reads = [places["input"], places["neighbors"]]
    with _session("evaluate", reads, "annspark.evaluate", "matplotlib.figure") as spark:
        from annspark.evaluate import evaluate
        from annspark.report.text import report_as_text

        print(report_as_text(evaluate(spark, settings, **places)))


def _use(use: str, given: dict[str, Any]) -> None:
    job = make_use_job(use, given)
    reads = [place for name in ("neighbors", *job.beside) if (place := getattr(job, name))]
    with _session(use, reads, "annspark.nightly_uses") as spark:
        from annspark.nightly_uses import publish_use

        print(publish_use(spark, job).as_text())


@contextmanager
def _session(command: str, reads: Sequence[str], *modules: str) -> Iterator["SparkSession"]:
    """Yield a session, and import the modules needed next while Java starts, when the other cores are idle.

    An error within the block because Java has ended becomes one that says why.

    reads : paths and catalog tables that will be read
    """
    prepare(reads)
    # Started after the import of PySpark, because imports in two threads would take turns.
    Thread(target=_import_modules, args=modules, daemon=True).start()
    spark = start_session(f"annspark {command}")
    _raise_on_signals(spark)  # again, because Spark has set its own handler for SIGINT
    try:
        yield spark
    except Exception as error:
        if death := explain_death(error, reads):
            raise death from error
        raise


class _Stopped(KeyboardInterrupt):  # Py4J ends a call cleanly on a KeyboardInterrupt
    def __init__(self, number: int, spark: "SparkSession | None") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; what was written aside is deleted.")
        self.number, self.spark = number, spark


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Make SIGINT and SIGTERM raise _Stopped within the block, so that what was written aside is deleted."""
    if current_thread() is not main_thread():  # only the main thread may set handlers
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
    of_spark = signal.getsignal(signal.SIGINT)  # Spark's: cancels all jobs, also in sessions without interruptAll

    def stop(number: int, _: object) -> NoReturn:
        for stopping in (signal.SIGINT, signal.SIGTERM):  # a second signal must not interrupt the cleaning up
            signal.signal(stopping, signal.SIG_IGN)
        # Py4J logs the trace of the interrupted call, under its own name and in the root logger.
        logging.getLogger().addFilter(lambda record: record.name != "root")
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        if spark is not None:
            _in_time(spark.interruptAll)
            _in_time(lambda: callable(of_spark) and of_spark(signal.SIGINT, None))
        raise _Stopped(number, spark)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _stop_spark(spark: "SparkSession") -> None:
    """Stop the session, and delete what its tasks have written after the first cleaning up."""
    _in_time(spark.stop)
    with suppress(ImportError):
        from annspark.nightly import sweep

        sweep()


def _in_time(work: Callable[[], object]) -> None:
    """Call a function that may fail or hang, for at most _SECONDS.

    It runs in a thread of its own, because the main thread's connection to Java may still wait for an answer.
    """

    def quietly() -> None:
        with suppress(BaseException):
            work()

    thread = Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(_SECONDS)


def _import_modules(*names: str) -> None:
    for name in names:
        with suppress(Exception):  # the import that needs the module will raise the error
            import_module(name)


_COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    **{"build": _build, "fit": _fit, "query": _query, "update": _update, "info": _info, "evaluate": _evaluate},
    **{use: partial(_use, use) for use in JOBS},
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # which repeats arguments that it does not know
        super().error(hidden(message))


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(prog="annspark", description=purpose)
    parser.add_argument("--version", action="version", version=f"annspark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fit(commands)
    _add_query(commands)
    _add_update(commands)
    _add_info(commands)
    _add_evaluate(commands)
    add_uses(commands)
    build = commands.add_parser(
        "build",
        help="find every user's nearest neighbors and publish the table",
        description="Find every user's approximate k nearest neighbors; publish the table and a report on its recall. "
        "A name with dots and no slash is a catalog table, anything else a path. Flags win over the config file.",
        argument_default=argparse.SUPPRESS,
    )
    for name, setting in _FLAGS.items():
        add_flag(build, name, setting)
    build.add_argument(
        "--plan",
        action="store_true",
        help="Print what the job would find and cost, here or with --rows and --cores, and join some users to time the "
        "machine. Publish nothing.",
    )
    for name, setting in settings_in(PlanFor).items():
        add_flag(build, name, setting)
    source = build.add_mutually_exclusive_group()
    source.add_argument(
        "--config",
        metavar="FILE.toml",
        help="A TOML file of settings, named like these flags, with _ instead of -.",
    )
    source.add_argument(
        "--from-report",
        metavar="REPORT.json",
        help="The report.json of a finished build, whose table is built again: from the same input, with the same "
        "settings. Places may be given anew by their flags. Nothing is published where the table is not the same.",
    )
    add_debug(build)
    return parser


def _add_fit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    fit = commands.add_parser(
        "fit",
        help="make an index of a table, and save it",
        description="Make an index of the rows of a table and save it in a folder. `annspark query` and open_index ask "
        "it for neighbors; `annspark build --index` saves one beside a neighbor table.",
        argument_default=argparse.SUPPRESS,
    )
    for name, setting in (settings_in(FitJob) | {name: _FLAGS[name] for name in _OF_FIT}).items():
        add_flag(fit, name, setting)
    add_debug(fit)


def _add_query(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    query = commands.add_parser(
        "query",
        help="find the neighbors of a table's rows in a saved index",
        description="Find the nearest indexed rows of every row of another table; publish the table and a report on "
        "its recall. What is not given is as it was when the index was made.",
        argument_default=argparse.SUPPRESS,
    )
    for name, setting in (settings_in(QueryJob) | {name: _FLAGS[name] for name in _OF_QUERY}).items():
        of_index = name in _OF_QUERY and name not in ("same_ids", "max_distance")
        add_flag(query, name, replace(setting, default=None, unset="that of the index") if of_index else setting)
    add_debug(query)


def _add_update(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    update = commands.add_parser(
        "update",
        help="bring table and index to what the rows are now",
        description="Compare a table of vectors with the index that `annspark build --index` has kept. Join what is "
        "new or changed, and publish table and index anew, both or none. The table is the one that a join of all rows "
        "in the same forest gives. What is not given is as it was when the index was made.",
        argument_default=argparse.SUPPRESS,
    )
    for name, setting in (settings_in(UpdateJob) | {name: _FLAGS[name] for name in _OF_UPDATE}).items():
        of_index = replace(setting, default=None, unset="that of the index") if name in _OF_UPDATE else setting
        add_flag(update, name, of_index)
    add_debug(update)


def _add_info(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    info = commands.add_parser(
        "info", help="print what a saved index holds", description="Print what a saved index holds. It needs no Spark."
    )
    info.add_argument("--index", metavar=FOLDER, required=True, help="Folder of the index.")
    add_debug(info)


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure the recall of any neighbor table",
        description="Measure the recall of any neighbor table, ours or another system's, against the vectors it was "
        "made from.  It may have a row per user with an array `neighbors` (of ids, or of structs with neighbor_id), or "
        "a row per neighbor with neighbor_id and rank or distance.  Distances are computed anew.",
        argument_default=argparse.SUPPRESS,
    )
    add = evaluate.add_argument
    add("--input", metavar=PLACE, required=True, help=_FLAGS["input"].help)
    add("--neighbors", metavar=PLACE, required=True, help="Table of neighbors to audit.")
    for name in _OF_EVALUATE:
        add_flag(evaluate, name, _FLAGS[name])
    add("--report", metavar=FOLDER, help=f"{_FLAGS['report'].help} Default: none, they are not written.")
    add_debug(evaluate)
