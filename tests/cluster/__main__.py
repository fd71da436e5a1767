"""Try every fault in every step, many nights with random faults, or little memory: python -m tests.cluster --help."""

import argparse
import random
import tempfile
from pathlib import Path

from tests.cluster.faults import FAULTS
from tests.cluster.memory import hold
from tests.cluster.night import STEPS
from tests.cluster.soak import soak
from tests.cluster.standalone import standalone
from tests.cluster.trial import BROKEN, Trial, try_fault, undisturbed

_DISK = 96  # MB, of each worker


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="a fault to try; default: all")
    parser.add_argument("--step", action="append", choices=STEPS, help="a step to try it in; default: all")
    parser.add_argument("--times", type=int, default=1, help="how often to try each fault in each step")
    parser.add_argument("--soak", type=int, default=0, metavar="NIGHTS", help="run so many nights instead")
    parser.add_argument("--memory", metavar="SIZE", help="hold Python workers to so much instead, such as 1g")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--scratch", action="store_true", help="stage tables in a folder, not in the cache")
    parser.add_argument("--resume", action="store_true", help="the night after a killed driver goes on; with --scratch")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which faults strike")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, machines = Path(folder) / "place", Path(folder) / "cluster"
        place.mkdir()
        machines.mkdir()
        with standalone(machines) as cluster:
            if given.memory:
                return hold(cluster, place, given.memory, given.rows)
            cluster.shrink(_DISK)
            more = ("--scratch", str(place / "scratch")) if given.scratch else ()
            more += ("--resume",) if given.resume else ()
            if given.soak:
                return soak(cluster, place, given.soak, given.rows, random.Random(given.seed), *more)
            usual = undisturbed(cluster, place, given.rows, 32, *more)
            print(f"undisturbed: {usual.seconds:.0f} s, {usual.ended}", flush=True)
            trials = []
            for name in given.fault or FAULTS:
                for step in given.step or STEPS:
                    for number in range(given.times):
                        chance = random.Random(f"{name} {step} {number} {given.seed}")
                        trials.append(try_fault(cluster, usual, name, step, chance))
                        print(trials[-1], flush=True)
    print(as_table(trials))
    return int(any(trial.outcome == BROKEN for trial in trials))


def as_table(trials: list[Trial]) -> str:
    """Return a Markdown table: a line for each fault, step and outcome."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.fault, trial.step or "nothing to strike", trial.outcome), []).append(trial)
    heads = ["fault", "step", "tried", "outcome", "extra seconds", "table identical", "next night went on from"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (fault, step, outcome), of_kind in groups.items():
        extra = sum(trial.extra for trial in of_kind) / len(of_kind)
        identical = {BROKEN: "no: " + "; ".join(trial.why for trial in of_kind)}.get(outcome, "yes")
        resumed = ", ".join(dict.fromkeys(step for trial in of_kind for step in trial.resumed))
        lines.append(f"| {fault} | {step} | {len(of_kind)} | {outcome} | {extra:+.0f} | {identical} | {resumed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
