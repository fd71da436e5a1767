"""The record of a run."""

from dataclasses import dataclass, field
from typing import Any

OK = "ok"


@dataclass(frozen=True)
class Run:
    """One process from start to exit; work is its seconds less start-up and compilation, told what annspark reports."""

    set: str
    system: str
    setting: str
    repeat: int
    status: str
    seconds: float
    peak_mb: float
    work: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    recall: float = 0.0
    half_width: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
