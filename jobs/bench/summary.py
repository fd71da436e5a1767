"""Medians: what the repeats of a setting have in common, and what a system took at a recall."""

from dataclasses import dataclass
from statistics import median

from bench.interpolate import Point, Reading, seconds_at
from bench.ladders import SYSTEMS, as_text
from bench.record import OK, Run


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
