"""The command line: arguments in, one call, exit code out."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from annspark import __doc__ as purpose
from annspark import __version__
from annspark.config import CHOICES, RECALL, Settings, make_job, read_config
from annspark.errors import AnnsparkError, InputError, RecallMissed, SettingsError, known_failure, reason_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DONE, FAILED, BAD_SETTINGS, BAD_INPUT, MISSED = 0, 1, 2, 3, 4
_CODES = {SettingsError: BAD_SETTINGS, InputError: BAD_INPUT, RecallMissed: MISSED}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 bad settings, 3 bad input, 4 recall missed, 1 anything else."""
    given = vars(_parser().parse_args(argv))
    command, debug = _COMMANDS[given.pop("command")], given.pop("debug", False)
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("annspark").setLevel(logging.INFO)
    if not debug:
        _quiet_java()
    try:
        command(given)
        return DONE
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

    print((preview(spark, job) if plan_only else run(spark, job)).as_text())


def _evaluate(given: dict[str, Any]) -> None:
    names = ("input", "neighbors", "format", "report", "scratch")
    places = {name: given.pop(name, None) for name in names}
    settings = Settings(**given)
    spark = _session("annspark evaluate", "annspark.evaluate", "matplotlib.figure")
    from annspark.evaluate import evaluate

    print(evaluate(spark, settings, **places).as_text())


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
    from pyspark.sql import SparkSession

    # After PySpark's own import, which would have to take turns with it.
    Thread(target=_import_modules, args=wanted, daemon=True).start()
    return SparkSession.builder.appName(name).getOrCreate()


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
