"""The report: a frozen record of what a run did; JSON, text and the page are derived from it."""

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from annspark.core.calibrate import Calibration
from annspark.core.recall import Precision, Recall


@dataclass(frozen=True)
class Rows:
    """Rows of the input and the output.

    short      : users with fewer neighbors than k and the table allow
    widened    : users whose leaves held too few others, so that their lists hold neighbors from everywhere
    restricted : users with fewer neighbors because of max_distance or links
    """

    read: int
    valid: int
    written: int
    dropped: dict[str, int]
    examples: dict[str, Any]
    short: int
    widened: int = 0
    restricted: int = 0


@dataclass(frozen=True)
class Cost:
    """Distances computed, and copies and bytes shipped between partitions (payload, before compression)."""

    pairs_per_user: float
    copies_per_user: float
    shuffle_bytes: int


@dataclass(frozen=True)
class Leaves:
    """Leaves over all trees, the users at home in half of them at most and in 99 % at most (estimated from a sample),
    and the users at home in the largest."""

    count: int
    median_rows: int
    p99_rows: int
    max_rows: int


@dataclass(frozen=True)
class Spread:
    """Distances of the audited users' neighbors of one rank: 5th, 50th and 95th percentile."""

    rank: int
    p5: float
    median: float
    p95: float


@dataclass(frozen=True)
class Report:
    """What a run did; the fields are those of report.json.

    version     : annspark's
    versions    : of Python, Spark, NumPy and PyArrow on the driver
    created     : when the run ended, ISO 8601, UTC
    settings    : as they were asked for
    recall      : as audited
    calibration : the recall asked for and what was predicted; None when probes were given instead
    topped_up   : trees added because the first table missed the target
    distances   : by rank, of the audited users
    precision   : what rounding takes; None when the table was made elsewhere
    cost, leaves: None when the table was made elsewhere and only evaluated
    seconds     : total first, then by step
    """

    version: str
    versions: dict[str, str]
    created: str
    settings: dict[str, Any]
    rows: Rows
    recall: Recall
    calibration: Calibration | None
    topped_up: int
    distances: tuple[Spread, ...]
    precision: Precision | None
    cost: Cost | None
    leaves: Leaves | None
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        """Say whether the audit leaves room for the recall asked for; True when none was asked for."""
        return self.calibration is None or self.recall.high >= self.calibration.target

    def _repr_html_(self) -> str | None:
        """Show the report as a page does, in a notebook."""
        from annspark.page import can_render, render_fragment

        return render_fragment(self) if can_render() else None

    def as_json(self) -> str:
        """Return report.json's text."""
        return json.dumps(asdict(self) | {"passed": self.passed}, indent=2, default=str) + "\n"

    def as_text(self) -> str:
        """Return the report in a few lines for a person."""
        rows, recall = self.rows, self.recall
        dropped = ", ".join(f"{reason} {n:,} (such as {rows.examples[reason]!r})" for reason, n in rows.dropped.items())
        counts = {"with fewer than k neighbors": rows.short, "with fewer than k published": rows.restricted}
        counts["given neighbors from everywhere, their leaves being too small"] = rows.widened
        short = "".join(f", {n:,} {what}" for what, n in counts.items() if n)
        steps = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items() if name != "total")
        lines = [
            f"users    {rows.written:,} written of {rows.read:,} read{short}; dropped: {dropped or 'none'}",
            f"recall   {recall.mean:.4f} of the exact {recall.k} nearest "
            f"({recall.low:.4f} to {recall.high:.4f}, 95 %, measured on {recall.users:,} users)",
            f"spread   5 % of users have a recall of {recall.p5:.2f} or less, {recall.below_half:.1%} one below 0.5",
        ]
        if self.calibration:
            goal = self.calibration
            lines.append(
                f"target   {goal.target:g} {'reached' if self.passed else 'MISSED'}: {goal.probes:g} probes, predicted "
                f"{goal.predicted:.4f} ({goal.low:.4f} to {goal.high:.4f})"
                + (f", {self.topped_up} tree added" if self.topped_up else "")
            )
        if self.precision:
            lines.append(
                f"digits   distances right to {self.precision.distance_error:.1g} of themselves, joined in "
                f"{self.precision.numbers}; {self.precision.recall_lost:.2%} of the neighbors lost to rounding"
            )
        if self.cost:
            lines.append(
                f"cost     {self.cost.pairs_per_user:,.0f} distances and {self.cost.copies_per_user:.2f} copies "
                f"a user, {self.cost.shuffle_bytes / 1e6:,.0f} MB shuffled"
            )
        if self.leaves:
            lines.append(f"leaves   {self.leaves.count:,}, the largest with {self.leaves.max_rows:,} users")
        return "\n".join([*lines, f"seconds  {self.seconds['total']:.1f} ({steps})"])


def versions(spark: str) -> dict[str, str]:
    """Return the versions of what a run ran on; spark is the session's."""
    return {"python": platform.python_version(), "spark": spark} | {
        name: version(name) for name in ("numpy", "pyarrow")
    }


@dataclass(frozen=True)
class Preview:
    """What a run would do, told before it does; as Report, with estimates.

    task_bytes   : memory of a Python worker beside its libraries
    join_seconds : for routing, joining and merging all users, without writing the table; seconds is what was spent
                   so far
    """

    rows: Rows
    calibration: Calibration | None
    probes: float
    pairs_per_user: float
    copies_per_user: float
    shuffle_bytes: int
    leaves: Leaves
    partitions: int
    task_bytes: int
    join_seconds: float
    seconds: dict[str, float]

    def as_text(self) -> str:
        """Return the preview in a few lines for a person."""
        goal, leaves = self.calibration, self.leaves
        told = f", {goal.predicted:.4f} predicted ({goal.low:.4f} to {goal.high:.4f})" if goal else ""
        return "\n".join(
            [
                f"users    {self.rows.written:,} of {self.rows.read:,} rows would be in the table",
                f"recall   {f'{goal.target:g} asked for' if goal else 'not asked for'}{told}: {self.probes:g} probes",
                f"cost     {self.pairs_per_user:,.0f} distances and {self.copies_per_user:.2f} copies a user, "
                f"{self.shuffle_bytes / 1e6:,.0f} MB to shuffle",
                f"leaves   {leaves.count:,}: half of them up to {leaves.median_rows:,} users, 99 % up to "
                f"{leaves.p99_rows:,}, the largest some {leaves.max_rows:,}",
                f"memory   {self.task_bytes / 1e6:,.0f} MB a task and its libraries, {self.partitions:,} partitions",
                f"seconds  {self.seconds['total']:.0f} so far, some {self.join_seconds:.0f} more for the join, "
                "without writing the table",
                "Nothing was published.",
            ]
        )
