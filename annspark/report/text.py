"""The text: report.json, and a few lines for a person."""

import json
from dataclasses import asdict

from annspark.report.record import Preview, Report


def report_as_json(report: Report) -> str:
    """Return the text of report.json."""
    return json.dumps(asdict(report) | {"passed": report.passed}, indent=2, default=str) + "\n"


def report_as_text(report: Report) -> str:
    """Return a report in a few lines for a person."""
    rows, recall = report.rows, report.recall
    dropped = ", ".join(f"{reason} {n:,} (such as {rows.examples[reason]!r})" for reason, n in rows.dropped.items())
    counts = {"with fewer than k neighbors": rows.short, "with fewer than k published": rows.restricted}
    counts["in groups of k users or fewer"] = rows.in_small_groups
    counts["given neighbors from the whole table, as their leaves held too few"] = rows.widened
    short = "".join(f", {n:,} {what}" for what, n in counts.items() if n)
    steps = ", ".join(f"{name} {value:.1f}" for name, value in report.seconds.items() if name != "total")
    among = f" among {rows.indexed:,} indexed rows" if rows.indexed is not None else ""
    groups = f", within {rows.groups:,} groups" if rows.groups is not None else ""
    lines = [
        f"users    {rows.written:,} written of {rows.read:,} read{short}; dropped: {dropped or 'none'}",
        f"recall   {recall.mean:.4f} of the exact {recall.k} nearest{among}{groups} "
        f"({recall.low:.4f} to {recall.high:.4f}, 95 %, measured on {recall.users:,} users)",
        f"spread   5 % of users have a recall of {recall.p5:.2f} or less, {recall.below_half:.1%} one below 0.5",
    ]
    if report.calibration:
        goal = report.calibration
        lines.append(
            f"target   {goal.target:g} {'reached' if report.passed else 'MISSED'}: {goal.probes:g} probes, predicted "
            f"{goal.predicted:.4f} ({goal.low:.4f} to {goal.high:.4f})"
            + (f", {report.topped_up} tree added" if report.topped_up else "")
        )
    if report.precision:
        lines.append(
            f"digits   distances right to {report.precision.distance_error:.1g} of themselves, joined in "
            f"{report.precision.numbers}; {report.precision.recall_lost:.2%} of the neighbors lost to rounding"
        )
    if report.cost:
        lines.append(
            f"cost     {report.cost.pairs_per_user:,.0f} distances and {report.cost.copies_per_user:.2f} copies "
            f"a user, {report.cost.shuffle_bytes / 1e6:,.0f} MB shuffled, {report.cost.staged_bytes / 1e6:,.0f} MB of "
            "vectors in Java's heap or on disk"
        )
    if report.leaves:
        lines.append(f"leaves   {report.leaves.count:,}, the largest with {report.leaves.max_rows:,} users")
    return "\n".join([*lines, f"seconds  {report.seconds['total']:.1f} ({steps})"])


def preview_as_text(preview: Preview) -> str:
    """Return a preview in a few lines for a person."""
    goal, leaves = preview.calibration, preview.leaves
    told = f", {goal.predicted:.4f} predicted ({goal.low:.4f} to {goal.high:.4f})" if goal else ""
    return "\n".join(
        [
            f"users    {preview.rows.written:,} of {preview.rows.read:,} rows would be in the table",
            f"recall   {f'{goal.target:g} asked for' if goal else 'not asked for'}{told}: {preview.probes:g} probes",
            f"cost     {preview.pairs_per_user:,.0f} distances and {preview.copies_per_user:.2f} copies a user, "
            f"{preview.shuffle_bytes / 1e6:,.0f} MB to shuffle",
            f"leaves   {leaves.count:,}: half of them up to {leaves.median_rows:,} users, 99 % up to "
            f"{leaves.p99_rows:,}, the largest some {leaves.max_rows:,}",
            f"memory   {preview.task_bytes / 1e6:,.0f} MB a task and its libraries, {preview.partitions:,} partitions; "
            f"{preview.staged_bytes / 1e6:,.0f} MB of vectors in Java's heap or on disk",
            f"seconds  {preview.seconds['total']:.0f} so far, some {preview.join_seconds:.0f} more for the join, "
            "without writing the table",
            "Nothing was published.",
        ]
    )
