"""A trial: one night with one fault, and what became of the table."""

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.faults import FAULTS
from tests.cluster.night import STEPS, Night, digest, left_in, running, write_input
from tests.cluster.standalone import Cluster

TODAY, YESTERDAY = ("--seed", "0"), ("--seed", "1")
# Most of "read" passes before its first Python worker runs; the others may be over sooner than they usually are.
_OFTEN_IN = {"read": 0.3} | dict.fromkeys(STEPS[1:], 0.8)
SAME, FAILED, BROKEN = "same table", "failed, yesterday's table", "broken"


@dataclass(frozen=True)
class Usual:
    """Undisturbed nights, which those with faults are compared with.

    place     : has the input, in, and yesterday's table and report, yesterday and yesterday.report
    today     : digest of the table of an undisturbed night
    yesterday : digest of yesterday's table
    ended     : seconds of each step of the undisturbed night
    seconds   : of the undisturbed night
    more      : further arguments of the job
    """

    place: Path
    today: str
    yesterday: str
    ended: dict[str, float]
    seconds: float
    more: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """What became of a night.

    step    : in which the fault struck; "" when it struck nothing
    outcome : SAME, FAILED or BROKEN
    why     : what is broken, or the job's sentence
    code    : exit code
    extra   : seconds more than undisturbed, with those of the night after a killed driver
    resumed : steps that the night after a killed driver did not do again
    """

    fault: str
    step: str
    outcome: str
    why: str
    code: int
    extra: float
    resumed: tuple[str, ...] = ()


def undisturbed(cluster: Cluster, place: Path, rows: int, dim: int, *more: str) -> Usual:
    """Make an input, and run two nights without a fault: yesterday's and today's.

    more : further arguments of the job
    """
    write_input(place / "in", rows, dim)
    nights = []
    for seed in (YESTERDAY, TODAY):
        with running(cluster, place, *seed, *more) as night:
            pass
        assert night.code == 0, "\n".join(night.said)
        assert left_in(place, "yesterday", "yesterday.report") == []
        nights.append((digest(place / "out"), night))
        if seed is YESTERDAY:
            _copy(place, "out", "yesterday")
    (yesterday, _), (today, night) = nights
    assert today != yesterday
    return Usual(place, today, yesterday, dict(night.ended), night.seconds, more)


def try_fault(cluster: Cluster, usual: Usual, name: str, step: str, chance: random.Random) -> Trial:
    """Run a night in which a fault strikes at a random moment of a step, and look at what became of it."""
    try:
        return _try_fault(cluster, usual, name, step, chance)
    except TimeoutError as error:
        return Trial(name, step, BROKEN, str(error), code=-1, extra=0.0)


def _try_fault(cluster: Cluster, usual: Usual, name: str, step: str, chance: random.Random) -> Trial:
    fault, place = FAULTS[name], usual.place
    _copy(place, "yesterday", "out")
    struck = ""
    with running(cluster, place, *TODAY, *usual.more, conf=fault.conf) as night:
        if night.reaches(step):
            time.sleep(chance.random() * _OFTEN_IN[step] * usual.ended[step])
            struck, step = night.step, night.step
            with fault.strike(night, chance) as hit:
                struck = struck if hit else ""
                night.wait()
    outcome, why = _judge(usual, night, fault.kills)
    resumed: tuple[str, ...] = ()
    seconds = night.seconds
    if fault.kills and outcome != BROKEN:
        with running(cluster, place, *TODAY, *usual.more) as after:
            pass
        seconds += after.seconds
        recovered, problem = _judge(usual, after, killed=False)
        resumed = tuple(line.split()[1] for line in after.said if line.startswith("resume: "))
        if recovered != SAME:
            outcome, why = BROKEN, f"the night after: {problem}"
    return Trial(name, struck, outcome, why, int(night.code or 0), seconds - usual.seconds, resumed)


def _judge(usual: Usual, night: Night, killed: bool) -> tuple[str, str]:
    """Return the outcome of a night, and why.

    killed : the driver was killed, so that it could neither say why nor clean up
    """
    found = digest(usual.place / "out")
    reported = json.loads((usual.place / "out.report" / "report.json").read_text())["settings"]["seed"]
    expected = {usual.today: 0, usual.yesterday: 1}.get(found)
    left = left_in(usual.place, "yesterday", "yesterday.report")
    if expected is None:
        return BROKEN, "another table"
    if reported != expected:
        return BROKEN, f"the report is of seed {reported}, the table of seed {expected}"
    if night.code and "--resume" in usual.more:  # what finished steps have made is for the next night
        left = [name for name in left if not name.startswith("scratch/resume-")]
    if left and not killed:
        return BROKEN, f"left behind: {', '.join(left)}"
    if found == usual.today:
        return (SAME, "") if night.code == 0 or killed else (BROKEN, f"published, and exit code {night.code}")
    if night.code == 0:
        return BROKEN, "exit code 0, and nothing published"
    if not killed and not night.sentence:
        return BROKEN, "no clear error: " + " | ".join(night.said[-3:])
    return FAILED, "" if killed else night.sentence


def _copy(place: Path, source: str, target: str) -> None:
    for ending in ("", ".report"):
        shutil.rmtree(place / f"{target}{ending}", ignore_errors=True)
        shutil.copytree(place / f"{source}{ending}", place / f"{target}{ending}")
