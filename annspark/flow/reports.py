"""The report's files: report.json and report.html beside the table, and those of earlier nights below them."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from annspark.errors import first_line
from annspark.flow import files
from annspark.page import can_render, render_page
from annspark.report import Report

logger = logging.getLogger("annspark")
_EARLIER = "earlier"
_SHOWN = 60  # earlier reports the page shows the trend of


@contextmanager
def reports_once_done(folder: str, report: Report) -> Iterator[None]:
    """Write report.json, the same under its date in earlier/, and report.html; they appear when the block ends well."""
    with ExitStack() as stack:
        for path, text in _pages(folder, report, "report"):
            stack.enter_context(files.text_once_done(path, text))
        yield
    try:
        for name in ("missed.json", "missed.html"):  # of a night before
            if files.exists(f"{folder}/{name}"):
                files.remove(f"{folder}/{name}")
    except Exception as error:  # the table is published by now
        logger.warning("report: %s/missed.* could not be deleted (%s); delete it by hand.", folder, first_line(error))


def write_missed(folder: str, report: Report) -> None:
    """Write missed.json and missed.html, beside the report on the table that stays, as far as that can be done."""
    try:
        for path, text in _pages(folder, report, "missed"):
            with files.text_once_done(path, text):
                pass
    except Exception as error:  # that the recall was missed is the news
        logger.warning("report: the missed recall could not be written to %s (%s).", folder, first_line(error))


def _pages(folder: str, report: Report, name: str) -> list[tuple[str, str]]:
    dated = f"{folder}/{_EARLIER}/{report.created.replace(':', '')}.json"
    pages = [(f"{folder}/{name}.json", report.as_json()), (dated, report.as_json())]
    if not can_render():
        logger.info("report: no %s.html without Jinja2 and matplotlib: pip install 'annspark[report]'", name)
        return pages
    try:
        pages.append((f"{folder}/{name}.html", render_page(report, _earlier(folder))))
    except Exception as error:  # a picture must not cost a good night
        logger.warning("report: %s.html could not be drawn (%s); %s.json has it all.", name, first_line(error), name)
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
