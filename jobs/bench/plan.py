"""Which runs, in what order, and which are not worth making."""

from collections.abc import Iterator

from bench.ladders import SYSTEMS, as_text
from bench.record import OK, Run

# The highest recall in the tables is 0.99: a dearer setting than one that finds this much has nothing to add.
ENOUGH = 0.996


def order(sets: list[str], systems: list[str], repeats: int) -> Iterator[tuple[int, str, str, int]]:
    """Yield repeat, set, system and rung: the systems take turns, so that a slow hour of the machine hits them all."""
    for repeat in range(1, repeats + 1):
        for data in sets:
            for rung in range(max(len(SYSTEMS[system].ladder) for system in systems)):
                for system in systems:
                    if rung < len(SYSTEMS[system].ladder):
                        yield repeat, data, system, rung


def is_pointless(earlier: list[Run], data: str, system: str, rung: int) -> bool:
    """Say whether a setting that was no dearer failed or ran out of time, or a cheaper one found enough."""
    rungs = {as_text(setting): number for number, setting in enumerate(SYSTEMS[system].ladder)}
    ours = [run for run in earlier if (run.set, run.system) == (data, system) and run.setting in rungs]
    failed = any(run.status != OK and rungs[run.setting] <= rung for run in ours)
    return failed or any(run.recall >= ENOUGH and rungs[run.setting] < rung for run in ours)
