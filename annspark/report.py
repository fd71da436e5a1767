"""The report: a frozen record of what a run did; JSON and text are derived from it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from annspark.core.recall import Recall


@dataclass(frozen=True)
class Rows:
    """Rows of the input and the output; short counts users with fewer neighbors than k and the table allow."""

    read: int
    valid: int
    written: int
    dropped: dict[str, int]
    examples: dict[str, Any]
    short: int


@dataclass(frozen=True)
class Cost:
    """Distances computed, and copies and bytes shipped between partitions (payload, before compression)."""

    pairs_per_user: float
    copies_per_user: float
    shuffle_bytes: int


@dataclass(frozen=True)
class Leaves:
    """Leaves over all trees, and the users living in the largest."""

    count: int
    max_rows: int


@dataclass(frozen=True)
class Report:
    """What a run did; the fields are those of report.json."""

    version: str
    settings: dict[str, Any]
    rows: Rows
    recall: Recall
    cost: Cost
    leaves: Leaves
    seconds: dict[str, float]

    def as_json(self) -> str:
        """Return report.json's text."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"

    def as_text(self) -> str:
        """Return the report in a few lines for a person."""
        rows, recall, cost = self.rows, self.recall, self.cost
        dropped = ", ".join(f"{reason} {n:,} (such as {rows.examples[reason]!r})" for reason, n in rows.dropped.items())
        short = f", {rows.short:,} with fewer than k neighbors" if rows.short else ""
        steps = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items() if name != "total")
        return "\n".join(
            [
                f"users    {rows.written:,} written of {rows.read:,} read{short}; dropped: {dropped or 'none'}",
                f"recall   {recall.mean:.4f} of the exact {recall.k} nearest "
                f"({recall.low:.4f} to {recall.high:.4f}, 95 %, measured on {recall.users:,} users)",
                f"cost     {cost.pairs_per_user:,.0f} distances and {cost.copies_per_user:.2f} copies a user, "
                f"{cost.shuffle_bytes / 1e6:,.0f} MB shuffled",
                f"leaves   {self.leaves.count:,}, the largest with {self.leaves.max_rows:,} users",
                f"seconds  {self.seconds['total']:.1f} ({steps})",
            ]
        )
