"""The report's files: report.json and report.html beside the table, and those of earlier nights below them."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from annspark.errors import SettingsError, reason_of
from annspark.page import can_render, render_page
from annspark.report import Report
from annspark.spark import files

logger = logging.getLogger("annspark")
_EARLIER = "earlier"
_SHOWN = 60  # earlier reports the page shows the trend of


def require_folder(folder: str, given: str | None) -> None:
    """Raise SettingsError when the report's files could not be written to the folder.

    given : as the user gave it, if the user did
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
    """Write report.json, the same under its date in earlier/, and report.html; they appear when the block ends well.

    quietly : within it the block is run and the files appear
    """
    pages = _pages(folder, report, "report")  # drawn before, as that takes its time
    with quietly(), ExitStack() as stack:
        for path, text in pages:
            stack.enter_context(files.text_once_done(path, text))
        yield
    try:
        for name in ("missed.json", "missed.html"):  # of a night before
            if files.exists(f"{folder}/{name}"):
                files.remove(f"{folder}/{name}")
    except Exception as error:  # the table is published by now
        logger.warning("report: %s/missed.* could not be deleted (%s); delete it by hand.", folder, reason_of(error))


def write_missed(folder: str, report: Report) -> None:
    """Write missed.json and missed.html, beside the report on the table that stays, as far as that can be done."""
    try:
        for path, text in _pages(folder, report, "missed"):
            with files.text_once_done(path, text):
                pass
    except Exception as error:  # that the recall was missed is the news
        logger.warning("report: the missed recall could not be written to %s (%s).", folder, reason_of(error))


def _pages(folder: str, report: Report, name: str) -> list[tuple[str, str]]:
    dated = f"{folder}/{_EARLIER}/{report.created.replace(':', '')}.json"
    pages = [(f"{folder}/{name}.json", report.as_json()), (dated, report.as_json())]
    if not can_render():
        logger.info("report: no %s.html without Jinja2 and matplotlib: pip install 'annspark[report]'", name)
        return pages
    try:
        pages.append((f"{folder}/{name}.html", render_page(report, _earlier(folder))))
    except Exception as error:  # a picture must not cost a good night
        logger.warning("report: %s.html could not be drawn (%s); %s.json has it all.", name, reason_of(error), name)
    return pages


def _earlier(folder: str) -> list[dict[str, Any]]:
    """Return the reports of earlier nights, oldest first; what cannot be read is left out."""
    found = []
    for path in files.list_folder(f"{folder}/{_EARLIER}")[-_SHOWN:]:
        try:
            found.append(json.loads(files.read_text(path)))
        except (OSError, ValueError) as error:
            logger.warning("report: %s cannot be read (%s); the trend goes without it.", path, error)
    return [one for one in found if isinstance(one, dict)]
