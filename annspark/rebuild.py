"""Rebuild: build the table of a finished night again, from its report."""

import json
import re
from typing import Any

from annspark import __version__
from annspark.allowed import settings_in
from annspark.errors import InputError, SettingsError, reason_of
from annspark.filesystem import open_place
from annspark.hide import HIDDEN
from annspark.job import Job, make_job
from annspark.settings import Settings

_OF_ONE_RUN = ("overwrite", "resume")  # they are about what that night found; this run has to be told
_BESIDE_OUTPUT = ("report", "index")  # they belong to the output that the report names
_NUMBERED = re.compile(r"(?:delta version|iceberg snapshot) (\d+)")  # as annspark.input.open tells a version
_MEASURED = ("rows", "recall", "calibration", "distances")  # the same for the same table, on any number of cores


def read_build_report(place: str) -> dict[str, Any]:
    """Return what the report.json of a finished build holds.

    Raises SettingsError for what is no such report, and for a report of another version of annspark.
    """
    where = f"--from-report {place!r}"
    try:
        system, inside = open_place(place)
        with system.open_input_stream(inside) as stream:
            told = json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{where} cannot be read as JSON ({reason_of(error)}). Give a report.json.") from error
    if not isinstance(told, dict) or not isinstance(told.get("settings"), dict) or "version" not in told:
        raise SettingsError(f"{where} is no report of annspark. Give the report.json of a build.")
    if told["version"] != __version__:
        raise SettingsError(
            f"{where} is of annspark {told['version']}, and this is {__version__}, whose table may be another one. "
            f"Install annspark {told['version']}, or build with the report's settings as flags."
        )
    if told["settings"].keys() != (settings_in(Job) | settings_in(Settings)).keys():
        raise SettingsError(f"{where} is of {_maker_of(told)}. Only a report of `annspark build` can be rebuilt.")
    if not told.get("passed"):
        raise SettingsError(f"{where} tells of a missed recall, so that night published no table. Give a report.json.")
    return told


def _maker_of(told: dict[str, Any]) -> str:
    settings = told["settings"]
    if "use" in told:
        return f"`annspark {told['use']}`"
    if "neighbors" in settings:
        return "`annspark evaluate`"
    if "rebuild_if_missed" in settings:
        return "`annspark update`, whose table also follows from the nights before"
    return "`annspark query`" if "index" in settings else "a call in Python, which names no input"


def job_of_report(told: dict[str, Any], given: dict[str, Any]) -> Job:
    """Return the job that builds a night's table again.

    An input with numbered versions is read in the version of that night.

    told  : what read_build_report has returned
    given : what the command line says: where and how to read and write

    Raises SettingsError for a given setting on which the table depends.
    """
    if changed := sorted(given.keys() & settings_in(Settings).keys()):
        raise SettingsError(
            f"{' and '.join(map(repr, changed))} given with --from-report: then the settings of the table are those of "
            "the report. Leave one of them out."
        )
    dropped = (*_OF_ONE_RUN, *(_BESIDE_OUTPUT if "output" in given else ()))
    values = {name: value for name, value in told["settings"].items() if name not in dropped}
    if "input" not in given and (found := _NUMBERED.fullmatch(told["input_version"] or "")):
        values["input_version"] = int(found[1])
    values |= given
    if concealed := [name for name, value in values.items() if HIDDEN in str(value)]:
        raise SettingsError(
            f"--from-report: the report does not show the credentials in {' and '.join(map(repr, concealed))}. Give "
            f"{' and '.join(f'--{name}' for name in concealed)} again."
        )
    return make_job(values)


def require_rows(told: dict[str, Any], rows: int) -> None:
    """Raise InputError where the input has another number of rows than it had."""
    if rows != told["rows"]["read"]:
        raise InputError(
            f"input: it has {rows:,} rows, and the report is of {told['rows']['read']:,}: the table would be another "
            "one. Give the rows of that night by --input, or build without --from-report."
        )


def require_same(told: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError where the reports on two tables tell that the tables are not the same.

    told : the report on the table that is built again
    now  : the report on the table that this run has built
    """
    different = [name for name in _MEASURED if _as_text(told[name]) != _as_text(now[name])]
    if not different:
        return
    before, here = told["versions"], now["versions"]
    changed = [f"{name} was {before.get(name)} and is {here[name]}" for name in here if before.get(name) != here[name]]
    why = ", ".join(changed) or "the rows of the input have changed since, or this is another kind of CPU"
    raise InputError(
        f"--from-report: the table is not that of the report, as {' and '.join(different)} differ: {why}. Nothing was "
        "published. Give the rows and the software of that night, or build without --from-report."
    )


def _as_text(measured: Any) -> str:
    """Return a part of a report as JSON, without the ids of dropped rows, any of which may be an example."""
    if isinstance(measured, dict):
        measured = {name: value for name, value in measured.items() if name != "examples"}
    return json.dumps(measured)
