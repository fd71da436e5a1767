"""The text: report.json, and a few lines for a person."""

import json
from dataclasses import asdict

from annspark.hide import hidden_values
from annspark.report.record import Preview, Report


def report_as_json(report: Report) -> str:
    """Return the text of report.json, without credentials in settings."""
    told = asdict(report) | {"settings": hidden_values(report.settings), "passed": report.passed}
    return json.dumps(told, indent=2, default=str) + "\n"


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
    lines.append(f"seconds  {report.seconds['total']:.1f} ({steps})")
    asked = {name: value for name, value in hidden_values(report.settings).items() if name in ("input", "seed")}
    if report.input_version:
        asked["input"] = f"{asked['input']} ({report.input_version})"
    made = asked | {"annspark": report.version} | report.versions | report.cluster
    return "\n".join([*lines, f"made     {', '.join(f'{name} {value}' for name, value in made.items())}"])


def preview_as_text(preview: Preview) -> str:
    """Return a preview in a few lines for a person."""
    goal, leaves, needed, spent = preview.calibration, preview.leaves, preview.needed, preview.spent
    told = f", {goal.predicted:.4f} predicted ({goal.low:.4f} to {goal.high:.4f})" if goal else ""
    probes = preview.probes
    grown = preview.planned > preview.rows.written
    # The calibration is of the rows that were read, the probes are of those that are planned for.
    of_input = f" {goal.probes:g} probes for the input's rows," if goal and grown else ""
    between = f" ({probes.low:.3g} to {probes.high:.3g}) for {preview.planned:,}" if grown else ""
    number = f"{of_input} {probes.probes:.3g}" if grown else f" {probes.probes:g}"
    steps = ", ".join(f"{name} {preview.waits * each.seconds(preview.cores):.0f}" for name, each in spent.items())
    work = ", ".join(f"{name} {each.core_seconds:.0f}" for name, each in spent.items())
    total = sum(each.core_seconds for each in spent.values())
    lines = [
        f"users    {preview.rows.written:,} of {preview.rows.read:,} rows would be in the table",
        f"planned  {preview.planned:,} rows, {preview.cores:,} cores",
        f"recall   {f'{goal.target:g} asked for' if goal else 'not asked for'}{told}:{number} probes{between}",
        f"cost     {preview.pairs_per_user:,.0f} distances and {preview.copies_per_user:.2f} copies a user, "
        f"{needed.shuffled / 1e6:,.0f} MB to shuffle",
        f"leaves   {leaves.count:,}: half of them up to {leaves.median_rows:,} users, 99 % up to "
        f"{leaves.p99_rows:,}, the largest some {leaves.max_rows:,}; {needed.broadcast / 1e6:,.0f} MB to broadcast",
        f"memory   {needed.worker / 1e6:,.0f} MB in a Python worker, {preview.partitions:,} partitions, "
        f"{needed.java / 1e6:,.0f} MB for Java's heap, {needed.staged / 1e6:,.0f} MB of intermediate tables",
        f"work     {total:,.0f} core-seconds ({work})",
        f"seconds  some {preview.run_seconds:,.0f} ({preview.least_seconds:,.0f} to {preview.most_seconds:,.0f}) for a "
        f"run ({steps}), {preview.seconds['total']:.0f} for this plan; a trial took {preview.waits:.2f} times as long "
        "as on idle cores",
        *(f"limit    {limit}" for limit in preview.limits),
    ]
    return "\n".join([*lines, "Nothing was published."])
