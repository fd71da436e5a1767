"""The report on a run: a record, and the record as text, as a page and as files beside the table.

record.py knows none of the others. text.py and store.py read records. page.py draws what report.json holds and knows no
record. Only store.py draws pages and writes files. This module gives users the record and the ways to show it in one.
"""

import json
from dataclasses import dataclass

from annspark.report import page, record, text
from annspark.report.record import Cost, Leaves, Preview, Rows, versions

__all__ = ["Cost", "Leaves", "Preview", "Report", "Rows", "versions"]


@dataclass(frozen=True, kw_only=True)
class Report(record.Report):
    """The record that users get, which shows itself."""

    def as_text(self) -> str:
        """Return the report in a few lines for a person."""
        return text.report_as_text(self)

    def as_json(self) -> str:
        """Return the text of report.json."""
        return text.report_as_json(self)

    def _repr_html_(self) -> str | None:
        """Return the page for a notebook; None where the libraries that draw it are not installed."""
        return page.render_fragment(json.loads(self.as_json())) if page.can_render() else None
