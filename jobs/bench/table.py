"""results.md: per set, what each system takes at a recall, and then every setting."""

from typing import Any

from bench.interpolate import Reading
from bench.record import Run
from bench.summary import Row, failures, readings, rows_of

RECALLS = (0.90, 0.95, 0.99)
HEAD = """# Benchmark of {date}

{cpu} ({vectors}), {cores_used} cores for every system, {memory_gb} GB; {versions}.

Seconds from a fresh process to a finished table of every user's 10 nearest (in brackets without start-up: interpreter,
imports, compiling, Spark's start), between the settings tried, medians of the runs; "<=" where the cheapest setting
finds more already.  Memory is the peak of all processes together ({memory_counted}), in the first table that of the
fastest setting from a recall of 0.95 on.  annspark's audit, which no other system makes, counts in its seconds.
"""


def as_markdown(told: dict[str, Any], runs: list[Run]) -> str:
    """Return the tables of all sets; told is what results.json holds beside the runs."""
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    parts = [HEAD.format(date=told["date"], versions=versions, **told["machine"])]
    for name, data in told["sets"].items():
        systems = list(dict.fromkeys(run.system for run in runs if run.set == name))
        if systems:
            parts.append(f"## {name}: {data['rows']:,} x {data['dim']}, {data['metric']}\n")
            parts += [_targets(runs, name, systems), _settings(runs, name, systems)]
    return "\n".join(parts)


def _targets(runs: list[Run], data: str, systems: list[str]) -> str:
    lines = ["| system | " + " | ".join(f"s at {recall:.2f}" for recall in RECALLS) + " | start-up s | peak MB | |"]
    lines += ["|---" * (len(RECALLS) + 4) + "|"]
    for system in systems:
        rows, bad = rows_of(runs, data, system), "; ".join(failures(runs, data, system))
        cells = [_cell(rows, recall) for recall in RECALLS] if rows else ["-"] * len(RECALLS)
        extra = [f"{min(row.startup for row in rows):.1f}", f"{_memory(rows):,.0f}"] if rows else ["-", "-"]
        name = f"**{system}**" if system == "annspark" else system
        lines.append("| " + " | ".join([name, *cells, *extra, bad.replace("|", "/")]) + " |")
    return "\n".join(lines) + "\n"


def _cell(rows: list[Row], recall: float) -> str:
    cold, warm = readings(rows, recall)
    if cold is None or warm is None:
        return f"not reached (best {max(row.recall for row in rows):.4f})"
    return f"{_seconds(cold)} ({_seconds(warm)}), {_between(cold)}"


def _seconds(reading: Reading) -> str:
    return f"{'<= ' if reading.at_most else ''}{reading.seconds:.1f}"


def _between(reading: Reading) -> str:
    return reading.above if reading.below is None else f"{reading.below} .. {reading.above}"


def _memory(rows: list[Row]) -> float:
    """Return the peak of the fastest setting at 0.95, or of all where none reaches it."""
    reached = [row for row in rows if row.recall >= RECALLS[1]]
    last = min(reached, key=lambda row: row.seconds) if reached else max(rows, key=lambda row: row.peak_mb)
    return last.peak_mb


def _settings(runs: list[Run], data: str, systems: list[str]) -> str:
    lines = ["| system | setting | recall | s | work s | start-up s | audit s | peak MB | runs |", "|---" * 9 + "|"]
    for system in systems:
        for row in rows_of(runs, data, system):
            numbers = f"{row.recall:.4f} | {row.seconds:.1f} | {row.work:.1f} | {row.startup:.1f} | {row.audit:.1f}"
            lines.append(f"| {system} | {row.setting} | {numbers} | {row.peak_mb:,.0f} | {row.runs} |")
    return "\n".join(lines) + "\n"
