"""The preview: plan a run for any number of rows and cores, and join some users to measure how fast the machine is."""

import time
from dataclasses import replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from annspark.core.calibrate import CALIBRATION_USERS
from annspark.core.cost import (
    MODEL_ERROR,
    RATES,
    Kernels,
    Work,
    count_bytes,
    count_core_seconds,
    find_limits,
)
from annspark.core.plan import (
    Workers,
    count_exact_users,
    count_limbs,
    count_merge_task_bytes,
    count_shuffle_bytes,
    count_task_bytes,
)
from annspark.core.sampling import draw_limit
from annspark.core.two_level import MOST_WANTED
from annspark.core.vectors import concatenate_rows
from annspark.errors import SettingsError, spark_errors_explained
from annspark.flow.grow import count_forest_sample, grow, leaves_for
from annspark.flow.speed import measure_kernels, measure_routing
from annspark.foresee import Future, as_it_is, count_drawn, foresee
from annspark.input.open import open_input
from annspark.job import Job, PlanFor
from annspark.nightly import ready_to_write
from annspark.output.layout import layout_of
from annspark.pipeline import exclude_pairs, find, plan_for, read_users, start_run, tune
from annspark.report import Leaves, Preview, Rows
from annspark.run import Run
from annspark.tables import IDS, LOWEST
from annspark.tuned import Tuned

_TRIED = (25_000, 25_000, 100_000)  # users that are joined in each trial; the first trial only warms up


@spark_errors_explained()
def preview(spark: SparkSession, job: Job, size: PlanFor) -> Preview:
    """Plan a run, join some of the users to measure how fast this machine is, and publish nothing.

    size : rows and cores to plan for; those of the input and of the session where they are left out
    """
    for name, value in (
        ("candidates", job.candidates),
        ("candidate_col", job.settings.candidate_col),
        ("within", job.settings.within),
    ):
        if value is not None:
            raise SettingsError(
                f"{name!r} is {value!r}, and a preview is of users among themselves. Leave one of them out."
            )
    with ready_to_write(spark, job, overwrite=True) as ready:
        run = start_run(spark, ready.stage, ready.stage)
        users = read_users(open_input(spark, job.input, job.format, version=job.input_version), job.settings, run)
        pairs = open_input(spark, job.exclude, job.format, role="exclude") if job.exclude else None
        rows = size.rows or users.rows
        drawn = count_drawn(users, rows, job.settings)
        tuned = tune(exclude_pairs(users, pairs, users.id_kind, job.settings, run), job.settings, run)
        workers = Workers(size.cores or run.cores, run.free_bytes)
        with run.clock.step("foresee", "planning the join") as facts:
            future = foresee(tuned, rows, drawn, workers, run)
            facts += [f"{future.rows:,} rows go to {future.probes.probes:.3g} leaves a tree"]
        with run.clock.step("try", "joining some users to see how fast it goes") as facts:
            kernels = _measure(tuned, future, run)
            waits = _try(tuned, kernels, run)
            facts += [f"{waits:.2f} times the seconds of idle cores"]
    return _preview_of(tuned, future, kernels, waits, workers, run)


def take_part(tuned: Tuned, want: int, run: Run) -> Tuned:
    """Return what is tuned for `want` of the users, about, with the leaf size and the probes of the whole."""
    users, samples = tuned.known.users, tuned.known.samples
    table = users.table.where(F.col(LOWEST) <= draw_limit(min(want, users.rows), users.rows))
    part = replace(users, table=table, rows=table.agg(F.sum(F.size(IDS))).collect()[0][0])
    forest = grow(part, samples.forest.vectors, tuned.settings, trees=len(tuned.plan.reach))
    known = replace(tuned.known, users=part, asking=part, neighbors=min(tuned.settings.k, part.rows - 1))
    return replace(tuned, known=known, forest=forest, plan=plan_for(known, forest, tuned.plan.probes, run))


def _measure(tuned: Tuned, future: Future, run: Run) -> Kernels:
    """Return what cores take to join vectors like these with as many probes as are planned."""
    samples = tuned.known.samples
    own = concatenate_rows([samples.routed.own, samples.forest.own])
    return measure_kernels(tuned.known.users, own, future.probes.probes, tuned.settings, run.cores)


def _work_of(tuned: Tuned, future: Future, run: Run) -> Work:
    """Return what a build has to do."""
    known, settings, plan = tuned.known, tuned.settings, future.plan
    n_calibrate = 0 if settings.recall_asked is None else CALIBRATION_USERS
    first_rows = len(known.first_rows.ids) if known.first_rows else 0
    route = measure_routing(known.users, known.samples.routed.own, future.forest, plan, run.cores)
    # Very many leaves are searched in groups where few are wanted: the time then grows as the root of their number.
    grouped = known.users.wire.sparse or future.forest.most_leaves(plan.probes) <= MOST_WANTED
    return Work(
        rows=future.rows,
        width=known.users.width,
        k=settings.k,
        exact=sum(count_exact_users(future.rows, settings.audit_users, n_calibrate)),
        pairs=plan.expected.pairs + first_rows,
        copies=plan.copies,
        route=route * (future.rows / future.placed) ** (0.5 if grouped else 1),
        grow=future.grow,
        limbs=0 if known.users.wire.sparse else count_limbs(leaves_for(future.rows, settings), known.users.width),
    )


def _try(tuned: Tuned, kernels: Kernels, run: Run) -> float:
    """Join two parts of the users; return how many times the seconds of idle cores that takes, and at least 1."""
    rows = tuned.known.users.rows
    for want in _TRIED if rows > _TRIED[0] else (rows,):
        part = take_part(tuned, want, run)
        start = time.perf_counter()
        find(part, layout_of(tuned.settings), run.stage, run.workers)
        spent = time.perf_counter() - start
    work = _work_of(part, as_it_is(part, run.workers, run), run)
    # Few rows stay in the caches and take less than the model says, by half at 100,000 rows; many do not.
    return max(1.0, spent / count_core_seconds(work, kernels, RATES)["join"].seconds(run.cores))


def _preview_of(tuned: Tuned, future: Future, kernels: Kernels, waits: float, workers: Workers, run: Run) -> Preview:
    """Return what a run would do."""
    known, settings, plan = tuned.known, tuned.settings, future.plan
    users, expected, probes, rows = known.users, plan.expected, future.probes, future.rows
    work = _work_of(tuned, future, run)

    def seconds_with(n_probes: float, factor: float) -> float:
        of_probes = replace(work, pairs=work.pairs * n_probes / probes.probes)
        spent = count_core_seconds(of_probes, kernels, RATES)
        return round(factor * waits * sum(step.seconds(workers.cores) for step in spent.values()), 1)

    planned = replace(users, rows=rows)
    needed = count_bytes(
        work,
        shuffled=count_shuffle_bytes(plan, rows, users.shipped_width, known.neighbors, users.id_bytes),
        task=max(
            count_task_bytes(plan, rows, users.shipped_width, known.neighbors),
            count_merge_task_bytes(rows, plan.copies, known.neighbors, users.id_bytes, workers),
        ),
        sampled=count_forest_sample(planned, settings),
        leaves=future.leaves,
        id_bytes=users.id_bytes,
        cores=workers.cores,
    )
    return Preview(
        rows=Rows(
            read=users.read,
            valid=users.rows,
            written=users.rows,
            dropped=users.dropped,
            examples=users.examples,
            short=0,
        ),
        planned=rows,
        cores=workers.cores,
        calibration=tuned.calibration,
        probes=probes,
        pairs_per_user=round(work.pairs, 1),
        copies_per_user=round(plan.copies, 3),
        leaves=Leaves(
            count=future.leaves,
            median_rows=expected.median_rows,
            p99_rows=expected.p99_rows,
            max_rows=expected.max_rows,
        ),
        partitions=plan.n_partitions,
        needed=needed,
        spent=count_core_seconds(work, kernels, RATES),
        waits=round(waits, 3),
        run_seconds=seconds_with(probes.probes, 1),
        least_seconds=seconds_with(probes.low, 1 - MODEL_ERROR),
        most_seconds=seconds_with(probes.high, 1 + MODEL_ERROR),
        limits=find_limits(
            needed,
            rows=rows,
            placed=future.placed,
            free=workers.free,
            per_partition=rows * plan.copies / plan.n_partitions,
            limbs=work.limbs,
        ),
        seconds=run.clock.total(),
    )
