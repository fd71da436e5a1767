"""The files: report.json and report.html beside the table, and the reports of earlier nights in a folder below."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from annspark.errors import SettingsError, reason_of
from annspark.report.page import can_render, render_page
from annspark.report.record import Report
from annspark.report.text import report_as_json
from annspark.spark import files

logger = logging.getLogger("annspark")
_EARLIER = "earlier"
_SHOWN = 60  # earlier reports in the page's trend, at most


def require_folder(folder: str, given: str | None) -> None:
    """Raise SettingsError when a run could not write its report to the folder.

    given : the folder as the user wrote it; None when the user gave none
    """
    given = given or folder
    files.require_writable("report", given, folder)
    if files.exists(f"{folder}/{_EARLIER}"):
        files.require_writable("report", given, f"{folder}/{_EARLIER}")
    for name in ("report.json", "report.html"):
        if files.kind_of(f"{folder}/{name}") == "folder":
            raise SettingsError(f"report {given!r}: {name} is a folder there. Choose another folder, or remove it.")


@contextmanager
def reports_once_done(
    folder: str, report: Report, quietly: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Write report.json, a dated copy of it in earlier/, and report.html; they appear when the block ends well.

    quietly : the block runs and the files appear within this context
    """
    written = _files(folder, report, "report")  # Drawing takes time. The page is drawn before the quiet begins.
    with quietly(), ExitStack() as stack:
        for path, text in written:
            stack.enter_context(files.text_once_done(path, text))
        yield
    try:
        for name in ("missed.json", "missed.html"):  # An earlier night may have left them.
            if files.exists(f"{folder}/{name}"):
                files.remove(f"{folder}/{name}")
    except Exception as error:  # The table is published by now.
        logger.warning("report: %s/missed.* could not be deleted (%s); delete it by hand.", folder, reason_of(error))


def write_missed(folder: str, report: Report) -> None:
    """Write missed.json, a dated copy of it in earlier/, and missed.html; a file that cannot be written is a warning.

    The report on the table that is still published stays beside them.
    """
    try:
        for path, text in _files(folder, report, "missed"):
            with files.text_once_done(path, text):
                pass
    except Exception as error:  # The caller raises the missed recall, which matters more.
        logger.warning("report: the missed recall could not be written to %s (%s).", folder, reason_of(error))


def _files(folder: str, report: Report, name: str) -> list[tuple[str, str]]:
    """Return the path and the text of every file to write."""
    told = report_as_json(report)
    dated = f"{folder}/{_EARLIER}/{report.created.replace(':', '')}.json"
    found = [(f"{folder}/{name}.json", told), (dated, told)]
    if not can_render():
        logger.info("report: no %s.html without Jinja2 and matplotlib: pip install 'annspark[report]'", name)
        return found
    try:
        found.append((f"{folder}/{name}.html", render_page(json.loads(told), _earlier(folder))))
    except Exception as error:  # A page that cannot be drawn must not stop a good run.
        logger.warning("report: %s.html could not be drawn (%s); %s.json has it all.", name, reason_of(error), name)
    return found


def _earlier(folder: str) -> list[dict[str, Any]]:
    """Return what the last reports of earlier nights hold, oldest first, without those that cannot be read."""
    found = []
    for path in files.list_folder(f"{folder}/{_EARLIER}")[-_SHOWN:]:
        try:
            found.append(json.loads(files.read_text(path)))
        except (OSError, ValueError) as error:
            logger.warning("report: %s cannot be read (%s); the trend goes without it.", path, error)
    return [one for one in found if isinstance(one, dict)]
