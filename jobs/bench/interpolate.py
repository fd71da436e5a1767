"""Seconds at a recall between the settings tried."""

import math
from dataclasses import dataclass

# A thousand users with ten neighbors each: what they cannot tell from a recall of 1.
RESOLUTION = 1e-4


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
