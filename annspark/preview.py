"""The preview: plan the join, and join some of the users to measure how fast the machine is."""

import time
from dataclasses import replace

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from annspark.core.plan import (
    count_shuffle_bytes,
    count_staged_bytes,
    count_task_bytes,
)
from annspark.core.sampling import draw_limit
from annspark.errors import SettingsError, spark_errors_explained
from annspark.flow.grow import grow
from annspark.input.open import open_input
from annspark.job import Job
from annspark.nightly import ready_to_write
from annspark.output.layout import layout_of
from annspark.pipeline import find, fit, plan_for, start_run
from annspark.report import Leaves, Preview, Rows
from annspark.run import Run
from annspark.tables import IDS, LOWEST
from annspark.tuned import Tuned

_TRIED = (25_000, 25_000, 100_000)  # users that are joined in each trial; the first trial only warms up


@spark_errors_explained()
def preview(spark: SparkSession, job: Job) -> Preview:
    """Plan the join, join some of the users to measure how fast this machine is, and publish nothing."""
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
        vectors = open_input(spark, job.input, job.format)
        pairs = open_input(spark, job.exclude, None, role="exclude") if job.exclude else None
        tuned = fit(vectors, job.settings, run, pairs)
        with run.clock.step("try", "joining some users to see how fast it goes") as facts:
            tried = _try(tuned, run)
            facts += [f"{users:,} users in {seconds:.1f} s" for users, seconds in tried]
    users, plan, most, first_rows = tuned.known.users, tuned.plan, tuned.known.neighbors, tuned.known.first_rows
    return Preview(
        rows=Rows(
            read=users.read,
            valid=users.rows,
            written=users.rows,
            dropped=users.dropped,
            examples=users.examples,
            short=0,
        ),
        calibration=tuned.calibration,
        probes=plan.probes,
        pairs_per_user=round(plan.expected.pairs + (len(first_rows.ids) if first_rows else 0), 1),
        copies_per_user=round(plan.copies, 3),
        shuffle_bytes=count_shuffle_bytes(plan, users.rows, users.width, most, users.id_bytes),
        leaves=Leaves(
            count=plan.n_leaves,
            median_rows=plan.expected.median_rows,
            p99_rows=plan.expected.p99_rows,
            max_rows=plan.expected.max_rows,
        ),
        partitions=plan.n_partitions,
        staged_bytes=count_staged_bytes(users.rows, users.width),
        task_bytes=count_task_bytes(plan, users.rows, users.width),
        join_seconds=round(extrapolate(tried, users.rows), 1),
        seconds=run.clock.total(),
    )


def take_part(tuned: Tuned, want: int, run: Run) -> Tuned:
    """Return an tuned of about `want` of the users, with the leaf size and the probes of the whole tuned."""
    users, samples = tuned.known.users, tuned.known.samples
    table = users.table.where(F.col(LOWEST) <= draw_limit(min(want, users.rows), users.rows))
    part = replace(users, table=table, rows=table.agg(F.sum(F.size(IDS))).collect()[0][0])
    forest = grow(part, samples.forest.vectors, tuned.settings, trees=len(tuned.plan.reach))
    known = replace(tuned.known, users=part, asking=part, neighbors=min(tuned.settings.k, part.rows - 1))
    return replace(tuned, known=known, forest=forest, plan=plan_for(known, forest, tuned.plan.probes, run))


def _try(tuned: Tuned, run: Run) -> list[tuple[int, float]]:
    """Join a small and a larger part of the users; return the number of users and the seconds of each trial."""
    tried = []
    rows = tuned.known.users.rows
    for want in _TRIED if rows > _TRIED[0] else (rows,):
        part = take_part(tuned, want, run)
        start = time.perf_counter()
        find(part, layout_of(tuned.settings), run.stage, run.cores)
        tried.append((part.known.users.rows, time.perf_counter() - start))
    return tried


def extrapolate(tried: list[tuple[int, float]], rows: int) -> float:
    """Return the seconds that a join of this many rows will take.

    seconds = seconds of the last trial + seconds per row * (rows - users of the last trial)

    tried : users and seconds of each trial
    """
    users, seconds = tried[-1]
    if len(tried) < 2 or rows <= users or users <= tried[-2][0]:
        return seconds * max(1.0, rows / users)
    users_before, seconds_before = tried[-2]
    # At least half of the last trial's seconds per row, because the difference of two times is noisy.
    each = max((seconds - seconds_before) / (users - users_before), seconds / users / 2)
    return seconds + each * (rows - users)
