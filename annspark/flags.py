"""Flags: how a setting becomes a flag of a command."""

import argparse
from typing import Any

from annspark.allowed import Column, Flag, Folder, Number, OneOf, PathOrTable, Setting, Share, Whole

PLACE, FOLDER, COLUMN = "PATH_OR_TABLE", "DIR", "COLUMN"  # what usages show for a value


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
    is_number = isinstance(setting.allowed, Whole | Number | Share)  # the usage shows the allowed values of the others
    text = setting.text if is_number else f"{setting.help} Default: {setting.default_text}."
    command.add_argument(f"--{name.replace('_', '-')}", help=text.replace("%", "%%"), **more)


def add_debug(command: argparse.ArgumentParser) -> None:
    """Add the flag that every command has."""
    command.add_argument(
        "--debug",
        action="store_true",
        help="If the command fails, also print the trace and Spark's log.",
    )
