"""The report on a use: what was asked, what was found, and what a reader must know before using the table."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark import __version__
from annspark.hide import hidden_values
from annspark.job import folder_name_if_any
from annspark.run import Run
from annspark.spark.cluster import count_cores
from annspark.spark.staging import staging
from annspark.spark.steps import Steps


@dataclass(frozen=True, kw_only=True)
class UseReport:
    """What a use has found.

    use      : its name
    settings : what was asked
    facts    : counts and measures by name; the docstring of each use lists its own
    warnings : sentences on what the table cannot tell
    seconds  : of each step, and the total
    """

    use: str
    version: str
    created: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: dict[str, float]

    def as_text(self) -> str:
        """Return the report in a few lines for a person."""
        lines = [f"{name.replace('_', ' '):24} {_shown(value)}" for name, value in self.facts.items()]
        steps = ", ".join(f"{name} {spent:.1f}" for name, spent in self.seconds.items() if name != "total")
        warned = [f"WARNING: {sentence}" for sentence in self.warnings]
        return "\n".join([*lines, f"{'seconds':24} {self.seconds['total']:.1f} ({steps})", *warned])

    def as_json(self) -> str:
        """Return the text of report.json, without credentials in settings."""
        return json.dumps(asdict(self) | {"settings": hidden_values(self.settings)}, indent=2, default=str) + "\n"


@dataclass(frozen=True)
class Used:
    """The table that a use makes, and the report on it."""

    table: DataFrame
    report: UseReport


def tell(use: str, settings: Any, run: Run, facts: dict[str, Any], warnings: list[str]) -> UseReport:
    """Return the report of a use that is done."""
    return UseReport(
        use=use,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asdict(settings),
        facts=facts,
        warnings=tuple(warnings),
        seconds=run.clock.total(),
    )


def with_asked(report: UseReport, asked: dict[str, Any]) -> UseReport:
    """Return a report that also says what was asked beside the settings: the places of a job."""
    return replace(report, settings=asked | report.settings)


def use_in_session(use: Callable[[Run], Used], spark: SparkSession, scratch: str | PathLike[str] | None) -> Used:
    """Run a use for a notebook: its table stays cached, or in scratch, and all others are deleted."""
    with staging(folder_name_if_any("scratch", scratch), spark) as stage:
        return use(Run(count_cores(spark), stage, partial(stage, keep=True), Steps(spark)))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
