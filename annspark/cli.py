"""The command line: arguments in, one call, exit code out."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from annspark import __version__
from annspark.errors import InputError, SettingsError

DONE, FAILED, BAD_SETTINGS, BAD_INPUT = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 bad settings, 3 bad input, 1 anything else."""
    given = vars(_parser().parse_args(argv))
    given.pop("command")
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING)
    logging.getLogger("annspark").setLevel(logging.INFO)
    try:
        return _build(given)
    except SettingsError as error:
        print(f"annspark: {error}", file=sys.stderr)
        return BAD_SETTINGS
    except InputError as error:
        print(f"annspark: {error}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        traceback.print_exc()
        first_line = str(error).partition("\n")[0]
        print(f"annspark: the job failed and published nothing: {first_line}", file=sys.stderr)
        return FAILED


def _build(given: dict[str, Any]) -> int:
    from annspark.config import make_job, read_config

    config = given.pop("config", None)
    job = make_job((read_config(config) if config else {}) | given)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        # Not under spark-submit: this process starts Spark, so its workers should run this Python.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    from annspark.pipeline import run

    report = run(SparkSession.builder.appName("annspark build").getOrCreate(), job)
    print(report.as_text())
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="annspark", description=__import__("annspark").__doc__)
    parser.add_argument("--version", action="version", version=f"annspark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build",
        help="find every user's nearest neighbors and publish the table",
        description="Find every user's approximate k nearest neighbors; publish the table and a report on its recall. "
        "A name with dots and no slash is a catalog table, anything else a path. Flags win over the config file.",
        argument_default=argparse.SUPPRESS,
    )
    add = build.add_argument
    add("--input", metavar="PATH_OR_TABLE", help="the table of user vectors")
    add("--output", metavar="PATH_OR_TABLE", help="the table of neighbors to publish")
    add("--id-col", help="column of user ids, integers or strings (user_id)")
    add("--vector-col", help="column of vectors (vector)")
    add("--k", type=int, help="neighbors per user (10)")
    add("--metric", choices=["cosine", "euclidean"], help="distance (cosine, that is 1 - cos)")
    add("--probes", type=int, help="leaves a user visits: more finds more and takes longer (8)")
    add("--trees", type=int, help="trees in the forest (1)")
    add("--leaf-rows", type=int, help="users a leaf should hold (512)")
    add("--split", choices=["two_means", "two_points"], help="how the planes of a tree are placed (two_means)")
    add("--seed", type=int, help="same data and seed, same table (0)")
    add("--shape", choices=["nested", "long"], help="a row per user, or a row per neighbor (nested)")
    add("--format", help="file format of the paths read and written (parquet)")
    add("--report", metavar="DIR", help="folder of report.json (<output>.report)")
    add("--scratch", metavar="DIR", help="shared folder for intermediate tables (cached in the session)")
    add("--on-bad-row", choices=["fail", "drop"], help="stop at unusable rows, or leave them out (fail)")
    add("--audit-users", type=int, help="users whose exact neighbors measure the recall (1000)")
    add("--config", metavar="FILE.toml", help="a file of settings, named like these flags with _ for -")
    add("--overwrite", action="store_true", help="replace the output when it exists")
    return parser
