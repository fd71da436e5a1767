"""The command line: arguments in, one call, exit code out."""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from annspark import __doc__ as purpose
from annspark import __version__
from annspark.config import CHOICES, Settings, make_job, read_config
from annspark.errors import InputError, SettingsError, first_line

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
        print(f"annspark: the job failed: {first_line(error)}", file=sys.stderr)
        return FAILED


def script() -> None:
    """Run a command as a process's entry point: a failure raises SystemExit, which wheel tasks need to see it."""
    code = main()
    if code:
        sys.exit(code)


def _build(given: dict[str, Any]) -> int:
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
    parser = argparse.ArgumentParser(prog="annspark", description=purpose)
    parser.add_argument("--version", action="version", version=f"annspark {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
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
    add("--id-col", help=f"column of user ids, integers or strings ({default.id_col})")
    add("--vector-col", help=f"column of vectors ({default.vector_col})")
    add("--k", type=int, help=f"neighbors per user ({default.k})")
    add("--metric", choices=CHOICES["metric"], help=f"distance; cosine is 1 - cos ({default.metric})")
    add(
        "--probes",
        type=float,
        help=f"leaves a user goes to, on average: more finds more, takes longer ({default.probes})",
    )
    add("--trees", type=int, help=f"trees in the forest ({default.trees})")
    add("--leaf-rows", type=int, help=f"users a leaf should hold, never fewer than 4 k ({default.leaf_rows})")
    add("--split", choices=CHOICES["split"], help=f"how the planes of a tree are placed ({default.split})")
    add("--seed", type=int, help=f"same data and seed, same table ({default.seed})")
    add("--shape", choices=CHOICES["shape"], help=f"a row per user, or a row per neighbor ({default.shape})")
    add("--format", help="file format of the paths read and written (parquet)")
    add("--report", metavar="DIR", help="folder of report.json (<output>.report)")
    add("--scratch", metavar="DIR", help="shared folder for intermediate tables (cached in the session)")
    add(
        "--on-bad-row",
        choices=CHOICES["on_bad_row"],
        help=f"stop at unusable rows, or leave them out ({default.on_bad_row})",
    )
    add("--audit-users", type=int, help=f"users whose exact neighbors measure the recall ({default.audit_users})")
    add("--config", metavar="FILE.toml", help="a file of settings, named like these flags with _ for -")
    add("--overwrite", action="store_true", help="replace the output when it exists")
    return parser
