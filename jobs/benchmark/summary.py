"""The tables: medians of the repeats, seconds at a recall between the settings tried, and both as Markdown."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from jobs.benchmark.runs import OK, Run
from jobs.benchmark.systems import SYSTEMS, as_text

# A thousand users with ten neighbors each: what they cannot tell from a recall of 1.
RESOLUTION = 1e-4
RECALLS = (0.90, 0.95, 0.99)
HEAD = """# Benchmark of {date}

{cpu} ({vectors}), {cores_used} cores for every system, {memory_gb} GB; {versions}.

Seconds from a fresh process to a finished table of every user's 10 nearest (in brackets without start-up: interpreter,
imports, compiling, Spark's start), between the settings tried, medians of the runs; "<=" where the cheapest setting
finds more already.  Memory is the peak of all processes together ({memory_counted}), in the first table that of the
fastest setting from a recall of 0.95 on.  annspark's audit, which no other system makes, counts in its seconds.
"""


@dataclass(frozen=True)
class Point:
    """A setting's medians."""

    setting: str
    recall: float
    seconds: float


@dataclass(frozen=True)
class Reading:
    """Seconds at a recall, and the settings they lie between; at_most when already the cheapest finds more."""

    seconds: float
    below: str | None
    above: str

    @property
    def at_most(self) -> bool:
        """Say whether no setting tried is below."""
        return self.below is None


def seconds_at(recall: float, points: list[Point]) -> Reading | None:
    """Return the seconds at a recall, or None where no setting reaches it: never a guess beyond what was tried.

    Between its neighbors the logarithm of the seconds goes straight along -log(1 - recall).  A setting that another
    beats in both takes no part.
    """
    best = [one for one in points if not any(_beats(other, one) for other in points)]
    best.sort(key=lambda one: one.recall)
    above = next((one for one in best if one.recall >= recall), None)
    if above is None:
        return None
    below = max((one for one in best if one.recall < recall), key=lambda one: one.recall, default=None)
    if below is None:
        return Reading(above.seconds, None, above.setting)
    part = (_scale(recall) - _scale(below.recall)) / (_scale(above.recall) - _scale(below.recall))
    seconds = below.seconds * (above.seconds / below.seconds) ** part
    return Reading(seconds, below.setting, above.setting)


def _beats(one: Point, other: Point) -> bool:
    if (one.recall, one.seconds) == (other.recall, other.seconds):
        return one.setting < other.setting  # of two alike one stays
    return one.recall >= other.recall and one.seconds <= other.seconds


def _scale(recall: float) -> float:
    return -math.log(max(1 - recall, RESOLUTION))


@dataclass(frozen=True)
class Row:
    """A setting's medians over its runs; start-up is what is not work: interpreter, imports, compiling, Spark.

    The audit, which only annspark has, is a part of the work.
    """

    setting: str
    recall: float
    seconds: float
    work: float
    peak_mb: float
    audit: float
    runs: int

    @property
    def startup(self) -> float:
        """Return the seconds before, between and after the work."""
        return self.seconds - self.work


def rows_of(runs: list[Run], data: str, system: str) -> list[Row]:
    """Return a system's settings on a set, in the order of its ladder."""
    rows = []
    for setting in map(as_text, SYSTEMS[system].ladder):
        own = [run for run in runs if (run.set, run.system, run.setting, run.status) == (data, system, setting, OK)]
        if own:
            names = ("recall", "seconds", "work", "peak_mb")
            audit = median(run.phases.get("audit", 0.0) for run in own)
            rows.append(Row(setting, *(median(getattr(run, name) for run in own) for name in names), audit, len(own)))
    return rows


def failures(runs: list[Run], data: str, system: str) -> list[str]:
    """Return, in words, the settings that failed or ran out of time."""
    own = [run for run in runs if (run.set, run.system) == (data, system) and run.status != OK]
    return list(dict.fromkeys(f"{run.setting}: {run.status}" for run in own))


def readings(rows: list[Row], recall: float) -> tuple[Reading | None, Reading | None]:
    """Return the seconds at a recall, from a fresh process and of the work alone."""
    return tuple(
        seconds_at(recall, [Point(row.setting, row.recall, getattr(row, name)) for row in rows])
        for name in ("seconds", "work")
    )


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
