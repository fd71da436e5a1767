"""The straight line: read, sample, grow, calibrate, route, join, merge, audit, publish."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from annspark import __version__
from annspark.config import MOST_LEAF_ROWS, Job, Settings, require_folder_name
from annspark.core.best import Nearest
from annspark.core.calibrate import (
    CALIBRATED,
    MOST_PROBES,
    MOST_TREES,
    Calibration,
    Chances,
    choose_probes,
    choose_trees,
    settings_to_meet,
)
from annspark.core.centre_forest import Forest
from annspark.core.column_forest import ColumnForest
from annspark.core.metric import METRICS
from annspark.core.plan import (
    SHOWN,
    AnyForest,
    Plan,
    count_known,
    count_leaves,
    count_limbs,
    count_merge_partitions,
    count_sampled,
    count_shuffle_bytes,
    count_task_bytes,
    plan_join,
)
from annspark.errors import RecallMissed, spark_errors_told
from annspark.flow.audit import Audit, audit_neighbors, noise_of
from annspark.flow.calibrate import place_neighbors
from annspark.flow.complete import find_more, find_short
from annspark.flow.exact import find_exact
from annspark.flow.few import Few, meet_few, pick_few
from annspark.flow.grow import grow, grow_limbs
from annspark.flow.join import join_partitions
from annspark.flow.merge import merge_neighbors, told_lists
from annspark.flow.read import Users, in_double, read_vectors
from annspark.flow.reports import reports_once_done, require_folder, write_missed
from annspark.flow.route import ship_vectors
from annspark.flow.sample import Sample, sample_vectors
from annspark.flow.trial import extrapolate, try_join
from annspark.input.given import require_table
from annspark.input.source import is_collated, type_of_ids
from annspark.output import publish
from annspark.output.collate import collated, uncollated
from annspark.output.layout import count_users, require_complete, shaped
from annspark.output.links import restrict_links
from annspark.report import Cost, Leaves, Preview, Report, Rows, versions
from annspark.spark import files, leftovers
from annspark.spark.cluster import count_cores, start_beside, start_workers
from annspark.spark.meter import Meter, read_meter, watch_joined, watch_merged, watch_shipped
from annspark.spark.staging import Stage, staging
from annspark.steps import Steps, logger

_MUCH_LOST = 0.005  # share of the neighbors lost to rounding from which on it is worth a warning


@dataclass(frozen=True)
class Result:
    """The neighbor table and the report on it."""

    table: DataFrame
    report: Report


@spark_errors_told()
def build_neighbors(
    vectors: DataFrame,
    *,
    k: int = 10,
    id_col: str = "user_id",
    vector_col: str = "vector",
    values_col: str | None = None,
    metric: str = "cosine",
    recall: float | None = None,
    probes: float | None = None,
    trees: int | None = None,
    leaf_rows: int = 512,
    split: str = "two_means",
    seed: int = 0,
    shape: str = "nested",
    on_bad_row: str = "fail",
    audit_users: int = 1000,
    top_up: bool = False,
    max_distance: float | None = None,
    links: str = "all",
    scratch: str | PathLike[str] | None = None,
) -> Result:
    """Return every user's approximate k nearest neighbors and a report with their measured recall.

    vectors     : DataFrame of any session, classic or Connect; ids of any type that has an order, vectors arrays of
                  numbers or MLlib vectors; sparse ones also map<int, float>, struct<indices, values> or sets array<int>
    values_col  : column of the values (array) of sparse vectors whose indices (array) are in vector_col
    metric      : "cosine" (distance 1 - cos), "euclidean", "inner_product" (the largest first), "manhattan", "hamming"
                  (vectors of 0 and 1, or binary of bits) or "jaccard" (sets, or vectors as for hamming); sparse vectors
                  have no manhattan, hamming
    recall      : share of the exact neighbors to find; 0.95 unless probes are given
    probes      : leaves a user goes to in each tree, on average, instead of as many as the recall needs
    trees       : trees in the forest: 1 for dense vectors, as more probes are usually cheaper than more trees; as many
                  as the recall needs for sparse ones
    leaf_rows   : users a leaf should hold; never fewer than 4 k
    split       : "two_means" or "two_points", how the planes of a tree are placed
    shape       : "nested" (a row per user: id, neighbors array<struct<neighbor_id, distance>>) or "long" (a row per
                  neighbor: id, rank, neighbor_id, distance)
    on_bad_row  : "fail", or "drop" to leave unusable rows out and count them in the report
    audit_users : users whose exact neighbors are computed to measure the recall
    top_up      : when the audit shows that the recall was missed, add another tree and merge instead of raising
    max_distance: leave farther neighbors out, once the recall has been measured
    links       : "all", "mutual" (only neighbors that name each other) or "either" (neighbors that name the user too)
    scratch     : folder for intermediate tables, on file systems the executors share; None caches them in the session

    The table has every valid id once, with k neighbors or as many as there are others, in the order of (distance,
    neighbor_id), nobody their own neighbor; the same data and seed give the same table, however they are partitioned.
    It stays cached, or in scratch, until the caller unpersists or deletes it.

    Raises SettingsError for settings and InputError for data that cannot be used, RecallMissed, which carries the
    report, when the audit shows that the recall asked for was not reached, and ClusterError when Spark lacks memory,
    disk space or what its Python workers need.
    """
    vectors = require_table(vectors)
    settings = Settings(
        k=k,
        id_col=id_col,
        vector_col=vector_col,
        values_col=values_col,
        metric=metric,
        recall=recall,
        probes=probes,
        trees=trees,
        leaf_rows=leaf_rows,
        split=split,
        seed=seed,
        shape=shape,
        on_bad_row=on_bad_row,
        audit_users=audit_users,
        top_up=top_up,
        max_distance=max_distance,
        links=links,
    )
    with staging(require_folder_name("scratch", scratch), vectors.sparkSession) as stage:
        start_beside(vectors.sparkSession, start_workers, vectors.sparkSession)
        keep = partial(stage, keep=True)
        result, advice = _build(vectors, settings, asdict(settings), stage, keep, Steps())
        _require_recall(result.report, advice)
    return result


@spark_errors_told()
def run(spark: SparkSession, job: Job) -> Report:
    """Read the job's input, and publish the neighbor table and its report together; both appear whole or not at all."""
    with _ready_to_write(spark, job, job.overwrite) as (target, stage):
        start_beside(spark, start_workers, spark)
        vectors = publish.open_input(spark, job.input, job.format)
        publish.require_apart(spark, target, vectors, job.input)
        pending: list[publish.Pending] = []

        def keep(table: DataFrame) -> DataFrame:
            pending.append(publish.write_pending(table, target, job.format))
            return pending[-1].table

        clock = Steps()
        result, advice = _build(vectors, job.settings, _asked(job), stage, keep, clock)
        folder = _report_folder(job, target)
        if not result.report.passed:
            write_missed(folder, result.report)
            _require_recall(result.report, advice)
        quietly = partial(publish.undisturbed, target)
        with clock.step("publish") as facts, reports_once_done(folder, result.report, quietly):
            publish.commit(pending[-1])
            facts += [target.place, f"report in {folder}"]
    return result.report


@contextmanager
def _ready_to_write(spark: SparkSession, job: Job, overwrite: bool) -> Iterator[tuple[publish.Target, Stage]]:
    """Prove before any work that all the job writes to can be written; leave nothing aside when the block ends."""
    target = publish.check_target(spark, job.output, overwrite)
    folder = _report_folder(job, target)
    files.require_whole_name(spark, "report", folder)
    require_folder(folder, job.report)
    with publish.aside(spark, target), staging(job.scratch, spark) as stage:
        publish.require_format(spark, target, job.format, job.settings.shape)
        yield target, stage


def sweep() -> None:
    """Delete once more what failed runs of this process wrote aside; until it is stopped, Spark may write it anew."""
    leftovers.sweep()


def _report_folder(job: Job, target: publish.Target) -> str:
    return job.report or target.report


@spark_errors_told()
def preview(spark: SparkSession, job: Job) -> Preview:
    """Go as far as the plan of the join, join some users to see how fast this machine is, and publish nothing."""
    clock = Steps()
    with _ready_to_write(spark, job, overwrite=True) as (_, stage):
        start_beside(spark, start_workers, spark)
        vectors = publish.open_input(spark, job.input, job.format)
        ready = _prepare(vectors, job.settings, stage, clock)
        users, plan = ready.users, ready.plan
        with clock.step("try", "joining some users to see how fast it goes") as facts:
            tried = try_join(users, ready.samples, job.settings, plan, ready.cores)
            facts += [f"{one.users:,} users in {one.seconds:.1f} s" for one in tried]
    return Preview(
        rows=Rows(users.read, users.rows, users.rows, users.dropped, users.examples, 0),
        calibration=ready.calibration,
        probes=plan.probes,
        pairs_per_user=round(plan.expected.pairs + (len(ready.few.ids) if ready.few else 0), 1),
        copies_per_user=round(plan.copies, 3),
        shuffle_bytes=count_shuffle_bytes(plan, users.rows, users.width, ready.most, users.id_bytes),
        leaves=Leaves(plan.n_leaves, plan.expected.median_rows, plan.expected.p99_rows, plan.expected.max_rows),
        partitions=plan.n_partitions,
        task_bytes=count_task_bytes(plan, users.rows, users.width),
        join_seconds=round(extrapolate(tried, users.rows), 1),
        seconds=clock.total(),
    )


def _asked(job: Job) -> dict[str, Any]:
    return {name: value for name, value in asdict(job).items() if name != "settings"} | asdict(job.settings)


def _require_recall(report: Report, advice: str) -> None:
    """Raise RecallMissed, with what to do about it, when the audit rules the recall asked for out."""
    if report.passed or report.calibration is None:
        return
    recall, goal = report.recall, report.calibration
    raise RecallMissed(
        f"audit: recall {recall.mean:.4f} ({recall.low:.4f} to {recall.high:.4f}) of {recall.users:,} users, "
        f"{goal.target:g} was asked for, {goal.predicted:.4f} predicted for {goal.probes:g} probes. Nothing was "
        f"published. {advice}",
        report,
    )


def _advise(ready: "_Ready", measured: float | None) -> str:
    """Return what would reach a recall that was, or will be, missed, as far as calibration can tell."""
    if ready.calibration is None or ready.chances is None:
        return ""
    chosen, sample = (ready.calibration, len(ready.plan.reach)), ready.samples["plan"].vectors
    found = settings_to_meet(ready.grown, sample, ready.chances, chosen, measured)
    if found and isinstance(ready.grown, ColumnForest):  # whose trees follow from the recall, which probes replace
        advice = f"Set probes to {found[0]:g} and trees to {found[1]}"
    elif found:
        advice = f"Set probes to {found[0]:g}"
    elif isinstance(ready.grown, Forest) and max(ready.grown.sizes) > MOST_PROBES:
        advice = f"Set trees to {2 * len(ready.plan.reach)}"
    elif (rows := ready.users.rows) <= MOST_LEAF_ROWS:
        advice = f"More probes or trees would not do. Set leaf_rows to {rows} (one leaf, which is exact, if slow)"
    else:
        return "More probes or trees would not do. Ask for less."
    return f"{advice}, or ask for less."


def _advise_on_rounding(audited: Audit, calibration: Calibration | None) -> str:
    """Return what to do where the recall asked for was missed by what float32 cannot tell; "" where it was not."""
    recall, lost = audited.recall.mean, audited.precision.recall_lost
    if calibration is None or recall + lost < calibration.target:
        return ""
    return (
        f"Rounding took {lost:.4f} of it: other neighbors than the exact ones are as near as float32 can tell, which "
        f"neither probes nor leaf_rows change. Set recall to {math.floor(100 * recall) / 100:g}, or leave out all but "
        "one of vectors that are nearly the same."
    )


@dataclass(frozen=True)
class _Ready:
    """What is known before the join.

    few     : sparse rows whom everybody meets, the shortest of all, where those are nearest to what shares nothing
    grown   : with more trees than the forest that was chosen of it, where it says how many are needed
    chances : that neighbors are met in its trees; None where no recall was asked for
    """

    users: Users
    samples: dict[str, Sample]
    few: Few | None
    grown: AnyForest
    chances: Chances | None
    forest: AnyForest
    audit_nearest: Nearest
    calibration: Calibration | None
    plan: Plan
    cores: int
    most: int


def _build(
    vectors: DataFrame,
    settings: Settings,
    asked: dict[str, Any],
    stage: Stage,
    keep: Callable[[DataFrame], DataFrame],
    clock: Steps,
) -> tuple[Result, str]:
    """Walk the line; keep materialises a finished table, and everything after reads what it returns.

    Returns the result, and what to do if the recall was missed.
    """
    asked_for, settings = settings, settings.found
    kind = type_of_ids(vectors, settings)
    plain = is_collated(kind)  # inside, such ids are plain strings
    if plain:
        settings = uncollated(settings)
    publish_found, keep = keep, stage if asked_for.restricted or plain else keep
    ready = _prepare(vectors, settings, stage, clock)
    users, plan, calibration = ready.users, ready.plan, ready.calibration
    doing = f"routing to {plan.probes:.3g} leaves a tree, joining in {plan.n_partitions} partitions, merging"
    with clock.step("join", doing) as facts:
        table, seen = _join(ready, ready.forest, plan, settings, keep)
        facts += [f"{users.rows:,} users"]
    audited = _audit(table, ready, settings, clock)
    topped_up, n_leaves, restricted, measured = 0, plan.n_leaves, 0, audited.recall.mean
    if settings.top_up and calibration and audited.recall.high < calibration.target:
        with clock.step("top up", "growing another tree, joining and merging its neighbors with those found"):
            forest = _grow(users, ready.samples["forest"], settings, first_tree=len(plan.reach), trees=1)
            shown = ready.samples["plan"].vectors
            plan = plan_join(forest, shown, plan.probes, rows=users.rows, cores=ready.cores, width=users.width)
            table, more = _join(ready, forest, plan, settings, keep, table)
            sums = {name: seen[name] + more[name] for name in ("pairs", "copies", "shuffle_bytes", "widened")}
            seen = more | sums | {"max_rows": max(seen["max_rows"], more["max_rows"])}
            n_leaves += plan.n_leaves
        audited = _audit(table, ready, settings, clock)
        topped_up = 1
    if asked_for.restricted:
        with clock.step("links") as facts:
            asked_links, finish = (uncollated(asked_for), stage) if plain else (asked_for, publish_found)
            table, restricted = restrict_links(table, users.rows, ready.most, asked_links, finish)
            facts += [f"{restricted:,} users have fewer than {ready.most:,}"]
    if plain:
        table = publish_found(collated(table, kind, asked_for))
        table.count()  # what it is made from goes with this block
    report = Report(
        version=__version__,
        versions=versions(vectors.sparkSession.version),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asked,
        rows=Rows(
            users.read,
            users.rows,
            seen["written"],
            users.dropped,
            users.examples,
            seen["short"],
            seen["widened"],
            restricted,
        ),
        recall=audited.recall,
        calibration=calibration,
        topped_up=topped_up,
        distances=audited.distances,
        precision=audited.precision,
        cost=Cost(round(seen["pairs"] / users.rows, 1), round(seen["copies"] / users.rows, 3), seen["shuffle_bytes"]),
        leaves=Leaves(n_leaves, plan.expected.median_rows, plan.expected.p99_rows, seen["max_rows"]),
        seconds=clock.total(),
    )
    if report.passed:
        return Result(table, report), ""
    return Result(table, report), _advise_on_rounding(audited, calibration) or _advise(ready, measured)


def _prepare(vectors: DataFrame, settings: Settings, stage: Stage, clock: Steps) -> _Ready:
    """Check the input, grow the forest, find out how many probes the recall needs, and plan the join."""
    with clock.step("read") as facts:
        cores = count_cores(vectors.sparkSession)
        users = read_vectors(vectors, settings, stage, cores)
        facts += [f"{users.rows:,} users of {users.wire.dim:,} numbers", f"{users.read - users.rows:,} rows dropped"]
    most, target = min(settings.k, users.rows - 1), settings.target
    with clock.step("sample") as facts:
        n_leaves = count_leaves(users.rows, settings.leaf_rows, settings.k)
        audited, calibrated = count_known(users.rows, settings.audit_users, 0 if target is None else CALIBRATED)
        want = {
            "audit": audited,
            "calibrate": calibrated,
            "plan": SHOWN,
            "forest": count_sampled(users.rows, users.width, count_limbs(n_leaves, users.width) or n_leaves),
        }
        users, samples = sample_vectors(users, want)
        facts += [f"{sum(len(sample.ids) for sample in samples.values()):,} users"]
    audit, known = samples["audit"], samples["calibrate"]
    # The cluster has nothing to do while the driver grows the forest.
    searched = start_beside(vectors.sparkSession, find_exact, users, [audit, known], most)
    by_length = users.wire.sparse and np.isinf(METRICS[settings.metric].unrelated) and n_leaves > 1
    picked = start_beside(vectors.sparkSession, pick_few, users, settings.k) if by_length else None
    with clock.step("grow") as facts:
        grown = _grow(users, samples["forest"], settings, first_tree=0, trees=_count_trees(users, settings))
        facts += [f"{sum(grown.sizes):,} leaves"]
    with clock.step("calibrate") as facts:
        audit_nearest, known_nearest = searched.result()
        if users.coordinates.need_double(audit.own, audit_nearest.radius, noise_of(audit, users)):
            users = in_double(users)
            facts += ["neighbors too near for float32: vectors travel in float64"]
        facts += [f"exact neighbors of {len(audit.ids) + len(known.ids):,} users"]
        shown, forest, calibration, chances = samples["plan"].vectors, grown, None, None
        few = picked.result() if picked else None
        if target is not None:
            all_meet = few.hashes if few else None
            chances = place_neighbors(users, known, known_nearest, grown, all_meet)
            if isinstance(grown, ColumnForest) and settings.trees is None:
                forest, calibration = choose_trees(grown, shown, chances, target, users.rows)
            else:
                if isinstance(grown, ColumnForest) and settings.trees is not None:
                    forest = grown.first(settings.trees)
                calibration = choose_probes(forest, shown, chances.first(len(forest.sizes)), target)
            facts += [f"predicted {calibration.predicted:.4f} for the {target:g} asked for"]
        probes = calibration.probes if calibration else settings.probes or 1
        if n_leaves == 1:
            probes = 1
        plan = plan_join(forest, shown, probes, rows=users.rows, cores=cores, width=users.width)
    ready = _Ready(users, samples, few, grown, chances, forest, audit_nearest, calibration, plan, cores, most)
    if calibration and calibration.high < calibration.target:
        logger.warning(
            "calibrate: recall %.4f (%.4f to %.4f) is predicted for the most probes there are, %g was asked for. %s",
            *(calibration.predicted, calibration.low, calibration.high, calibration.target, _advise(ready, None)),
        )
    return ready


def _grow(users: Users, sample: Sample, settings: Settings, *, first_tree: int, trees: int) -> AnyForest:
    n_leaves = count_leaves(users.rows, settings.leaf_rows, settings.k)
    n_limbs = 0 if users.wire.sparse else count_limbs(n_leaves, users.width)
    forest = grow(sample.vectors, n_limbs or n_leaves, settings, rows=users.rows, first_tree=first_tree, trees=trees)
    return grow_limbs(users, forest, n_leaves, settings) if n_limbs and isinstance(forest, Forest) else forest


def _count_trees(users: Users, settings: Settings) -> int:
    """Return how many trees to grow; of columns as many as may be wanted, when there is a recall to reach."""
    if users.wire.sparse and settings.target is not None:
        return max(settings.trees or 1, MOST_TREES)
    return settings.trees or (2 if users.wire.sparse else 1)


def _join(
    ready: _Ready,
    forest: AnyForest,
    plan: Plan,
    settings: Settings,
    keep: Callable[[DataFrame], DataFrame],
    earlier: DataFrame | None = None,
) -> tuple[DataFrame, dict[str, Any]]:
    """Return the table and what was seen while it was made.

    earlier : a table whose neighbors are merged with those found
    """
    users, cores, meter = ready.users, ready.cores, Meter()
    few = ready.few if earlier is None else None
    copies = plan.copies + (earlier is not None) + (few is not None)
    merge_in = count_merge_partitions(users.rows, copies, settings.k, users.id_bytes, cores)
    shipped = watch_shipped(ship_vectors(users.table, forest, plan, users.wire, users.coordinates), meter, users.wire)
    joined = join_partitions(shipped, plan, merge_in, users.wire, users.coordinates, settings.k)
    candidates = watch_joined(joined, meter)
    if earlier is not None:
        told = told_lists(earlier, users, merge_in, settings)
        candidates = candidates.select(*told.columns).unionByName(told)
    if few is not None:
        told = meet_few(users, few, None, merge_in, settings.k)
        candidates = candidates.select(*told.columns).unionByName(told)
    neighbors = watch_merged(merge_neighbors(candidates, merge_in, settings.k), ready.most, meter)
    table = keep(shaped(neighbors, settings))
    written = count_users(table, settings)
    seen = read_meter(meter, users.id_bytes, ready.most, users.rows, written) | {"widened": 0}
    if few is not None:
        seen["pairs"] += users.rows * len(few.ids)
        seen["shuffle_bytes"] += round(users.rows * (settings.k + 1) * (4 + users.id_bytes))
    # A user without neighbors has no row of the long shape.
    require_complete(written + (seen["lonely"] if settings.shape == "long" else 0), users.rows)
    if seen["short"]:
        table = _widen(table, seen["short"], ready, settings, keep, merge_in)
        written = count_users(table, settings)
        require_complete(written, users.rows)
        seen |= {"widened": seen["short"], "short": 0}
    return table, seen | {"written": written}


def _widen(
    table: DataFrame,
    count: int,
    ready: _Ready,
    settings: Settings,
    keep: Callable[[DataFrame], DataFrame],
    merge_in: int,
) -> DataFrame:
    """Return the table with whole lists for those whose leaves held too few others."""
    users = ready.users
    short = find_short(table, users, ready.most, count, settings)
    told = told_lists(table, users, merge_in, settings)
    shown = ready.samples["plan"].vectors
    candidates = find_more(users, short, shown, merge_in, settings).unionByName(told)
    return keep(shaped(merge_neighbors(candidates, merge_in, settings.k), settings))


def _audit(table: DataFrame, ready: _Ready, settings: Settings, clock: Steps) -> Audit:
    with clock.step("audit") as facts:
        found = audit_neighbors(table, ready.samples["audit"], ready.audit_nearest, ready.users, settings)
        facts += [f"recall@{found.recall.k} {found.recall.mean:.4f} of {found.recall.users:,} users"]
    if found.precision.recall_lost > _MUCH_LOST:
        logger.warning(
            "audit: %.1f %% of the neighbors are lost to rounding: distances (inner products) of neighbors differ by "
            "less than float32 holds of them. Take away what all vectors share, such as the mean of every column, or "
            "leave out all but one of vectors that are nearly the same.",
            100 * found.precision.recall_lost,
        )
    return found
