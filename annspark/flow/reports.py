"""The report's files: report.json and report.html beside the table, and those of earlier nights below them."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from annspark.flow import files
from annspark.page import can_render, render_page
from annspark.report import Report

logger = logging.getLogger("annspark")
_EARLIER = "earlier"
_SHOWN = 60  # earlier reports the page shows the trend of


@contextmanager
def reports_once_done(folder: str, report: Report) -> Iterator[None]:
    """Write report.json, the same under its date in earlier/, and report.html; they appear when the block ends well."""
    dated = f"{folder}/{_EARLIER}/{report.created.replace(':', '')}.json"
    with ExitStack() as stack:
        for path, text in (*_pages(folder, report, "report"), (dated, report.as_json())):
            stack.enter_context(files.text_once_done(path, text))
        yield


def write_missed(folder: str, report: Report) -> None:
    """Write missed.json and missed.html, beside the report on the table that stays."""
    for path, text in _pages(folder, report, "missed"):
        with files.text_once_done(path, text):
            pass


def _pages(folder: str, report: Report, name: str) -> list[tuple[str, str]]:
    pages = [(f"{folder}/{name}.json", report.as_json())]
    if can_render():
        pages.append((f"{folder}/{name}.html", render_page(report, _earlier(folder))))
    else:
        logger.info("report: no %s.html without Jinja2 and matplotlib: pip install 'annspark[report]'", name)
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
