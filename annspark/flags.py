"""Flags: how a setting becomes a flag of a command."""

import argparse
from typing import Any

from annspark.allowed import Column, Flag, Folder, Number, OneOf, PathOrTable, Setting, Share, Weights, Whole

# What usages show for a value.
PLACE, FOLDER, COLUMN, _WEIGHTS = "PATH_OR_TABLE", "DIR", "COLUMN", "COLUMN=WEIGHT,..."


def add_flag(command: argparse.ArgumentParser, name: str, setting: Setting) -> None:
    """Add the flag of a setting; the settings' record checks its value, with better messages than argparse's."""
    more: dict[str, Any] = {}
    match setting.allowed:
        case Whole():
            more = {"type": int}
        case Number() | Share():
            more = {"type": float}
        case OneOf(names):
            more = {"choices": names}
        case Flag():
            more = {"action": "store_true"}
        case PathOrTable():
            more = {"metavar": PLACE}
        case Folder():
            more = {"metavar": FOLDER}
        case Column():
            more = {"metavar": COLUMN}
        case Weights():
            more = {"metavar": _WEIGHTS, "type": _weights_in}
    is_number = isinstance(setting.allowed, Whole | Number | Share)  # the usage shows the allowed values of the others
    text = setting.text if is_number else f"{setting.help} Default: {setting.default_text}."
    command.add_argument(f"--{name.replace('_', '-')}", help=text.replace("%", "%%"), **more)


def _weights_in(text: str) -> dict[str, float]:
    """Return the columns and weights in a text such as profile=0.8,tags=0.2; a name may hold =, and no comma."""
    weights = {}
    for one in text.split(","):
        name, _, weight = one.rpartition("=")
        if name in weights:
            raise argparse.ArgumentTypeError(f"{name!r} comes twice")
        try:
            weights[name] = float(weight)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{one!r} is not COLUMN=WEIGHT, such as profile=0.8") from error
    return weights


def add_debug(command: argparse.ArgumentParser) -> None:
    """Add the flag that every command has."""
    command.add_argument(
        "--debug",
        action="store_true",
        help="If the command fails, also print the trace and Spark's log.",
    )
