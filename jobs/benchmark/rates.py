"""Measures and fits the rates of the cost model, RATES in annspark/core/cost.py. Linux only.

    python -m jobs.benchmark.rates --out rates.jsonl

Builds some small tables, and adds a line to the file for each: what the build had to do, and the core-seconds of its
steps.  Then it fits the rates to all lines of the file, and prints them beside predicted and measured core-seconds.
What is in the file already is not run again.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from jobs.benchmark import kernels as _one_thread  # noqa: F401  # first: it sees to one thread of linear algebra

import numpy as np  # isort: skip
from scipy.optimize import nnls

from annspark.core.calibrate import CALIBRATION_USERS
from annspark.core.centre_forest import grow_forest
from annspark.core.copies import route_vectors
from annspark.core.cost import Kernels, Rates, Work, count_core_seconds
from annspark.core.metric import prepare as prepare_vectors
from annspark.core.plan import Workers, count_leaves, count_sampled, plan_join
from annspark.flow.speed import time_kernels
from annspark.settings import Settings
from jobs.benchmark.core_seconds import build
from jobs.benchmark.sets import Data, prepare
from jobs.benchmark.systems import CORES

# Sets and settings that differ in rows, numbers, copies and neighbors.
BUILDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("synthetic:100000x64", {"probes": 2}),
    ("synthetic:300000x64", {"probes": 4}),
    ("synthetic:200000x256", {"probes": 2, "k": 30}),
    ("synthetic-text:150000x128", {"probes": 24}),
    ("synthetic:1000000x16", {"probes": 2}),
)
_STEPS = {"calibrate": "grow", "exit": "publish"}  # steps of a report that the model counts with others
_RESOLVED = 1.0  # core-seconds: reports tell whole seconds, so a shorter step may be measured as nothing
_JOINED, _ROUTED = 30_000, 4_000  # vectors by which kernels and routing are timed


@dataclass(frozen=True)
class Measured:
    """One build: what it had to do, what this machine's cores take for it, and the core-seconds of its steps."""

    source: str
    setting: dict[str, Any]
    work: Work
    kernels: Kernels
    spent: dict[str, float]


def main() -> None:
    """Measure what the file lacks, fit, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.rates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="file of the builds measured")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "annspark-bench")
    args = parser.parse_args()
    measured = read(args.out) if args.out.exists() else []
    for source, setting in BUILDS:
        if not any((one.source, one.setting) == (source, setting) for one in measured):
            measured.append(measure(source, setting, args.cache))
            with args.out.open("a") as file:
                file.write(json.dumps(asdict(measured[-1])) + "\n")
    rates = fit(measured)
    for field in fields(rates):
        value = getattr(rates, field.name)
        told = {name: round(each, 2) for name, each in value.items()} if isinstance(value, dict) else f"{value:.3g}"
        print(f"{field.name}={told},")
    print("\n| build | step | predicted core-seconds | measured |\n|---|---|---|---|")
    for one in measured:
        told = count_core_seconds(one.work, one.kernels, rates)
        for name, each in told.items():
            print(f"| {one.source} {one.setting} | {name} | {each.core_seconds:.1f} | {one.spent[name]:.1f} |")


def read(path: Path) -> list[Measured]:
    """Return the builds in a file."""
    lines = map(json.loads, path.read_text().splitlines())
    return [
        Measured(line["source"], line["setting"], Work(**line["work"]), Kernels(**line["kernels"]), line["spent"])
        for line in lines
    ]


def measure(source: str, setting: dict[str, Any], cache: Path) -> Measured:
    """Build once, and time the kernels by themselves."""
    built = build(prepare(source, cache), setting)
    spent: dict[str, float] = {}
    for name, _, by_kind in built.steps:
        of = _STEPS.get(name, name)
        spent[of] = spent.get(of, 0.0) + sum(by_kind.values())
    work, kernels = work_of(built.data, setting, built.report)
    return Measured(source, setting, work, kernels, spent)


def work_of(data: Data, setting: dict[str, Any], told: dict[str, Any]) -> tuple[Work, Kernels]:
    """Return what a build had to do, and the times of its kernels.

    told : the build's report
    """
    settings = Settings(**setting, metric=data.metric)
    vectors = prepare_vectors(np.load(data.folder / "vectors.npy"), data.metric)
    vectors = vectors[np.random.default_rng(0).permutation(data.rows)]
    n_leaves, dim = count_leaves(data.rows, settings.leaf_rows, settings.k), data.dim
    start = time.thread_time()
    forest = _grow(vectors[: count_sampled(data.rows, dim, n_leaves)], n_leaves, settings)
    grow = time.thread_time() - start
    probes, routed = settings.probes or 1, vectors[-_ROUTED:]
    plan = plan_join(forest, routed, probes, rows=data.rows, workers=Workers(CORES), k=settings.k)
    route_vectors(forest, plan, routed[:1])
    start = time.thread_time()
    route_vectors(forest, plan, routed)
    route = (time.thread_time() - start) / len(routed)
    few = vectors[:_JOINED]
    small = _grow(few, count_leaves(len(few), settings.leaf_rows, settings.k), settings)
    exact = settings.audit_users + (CALIBRATION_USERS if settings.recall_asked else 0)
    cost = told["cost"]
    work = Work(
        rows=data.rows,
        width=dim,
        k=settings.k,
        exact=exact,
        pairs=cost["pairs_per_user"],
        copies=cost["copies_per_user"],
        route=route,
        grow=grow,
        limbs=0,
    )
    return work, time_kernels(few, data.metric, small, probes, settings.k)


def _grow(sample: np.ndarray, n_leaves: int, settings: Settings) -> Any:
    return grow_forest(sample, n_leaves, trees=1, split=settings.split, seed=settings.seed, metric=settings.metric)


def fit(measured: list[Measured]) -> Rates:
    """Return the rates, none below 0, with the least squares of relative errors, step by step.

    Below a core-second the errors are absolute.

    The model is linear in the rates.  So the column of a rate is what the model tells with that rate alone at 1.
    """
    reference = float(np.mean([one.kernels.reference for one in measured]))
    names = [field.name for field in fields(Rates) if field.name not in ("reference", "fixed")]
    steps = list(measured[0].spent)
    nothing = Rates(reference=reference, fixed=dict.fromkeys(steps, 0.0), **dict.fromkeys(names, 0.0))
    alone = [replace(nothing, **{name: 1.0}) for name in names]
    found, fixed = dict.fromkeys(names, 0.0), {}
    for step in steps:

        def told(rates: Rates, step: str = step) -> np.ndarray:
            return np.array([count_core_seconds(one.work, one.kernels, rates)[step].core_seconds for one in measured])

        base, spent = told(nothing), np.array([one.spent[step] for one in measured])
        columns = np.stack([told(replace(nothing, fixed=nothing.fixed | {step: 1.0})), *map(told, alone)], axis=1)
        columns -= base[:, None]
        weight = np.maximum(spent, _RESOLVED)
        scale = np.maximum(np.abs(columns / weight[:, None]).max(axis=0), 1e-300)
        best, _ = nnls(columns / weight[:, None] / scale, (spent - base) / weight)
        fixed[step] = float(best[0] / scale[0])
        found |= {name: value for name, value in zip(names, (best / scale)[1:].tolist(), strict=True) if value > 0}
    return replace(nothing, fixed=fixed, **found)


if __name__ == "__main__":
    main()
