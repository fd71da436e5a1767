"""The pipeline: read, sample, grow, calibrate, route, join, merge, complete, audit."""

import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from annspark import __version__
from annspark.advice import advise, advise_on_rounding
from annspark.core.calibrate import CALIBRATION_USERS, MOST_TREES
from annspark.core.forest import Forest
from annspark.core.metric import METRICS
from annspark.core.plan import (
    PLAN_SAMPLE,
    Plan,
    count_exact_users,
    count_merge_partitions,
    plan_join,
)
from annspark.errors import RecallMissed, spark_errors_explained
from annspark.flow.audit import Audit, audit_neighbors, noise_of
from annspark.flow.calibrate import calibrate
from annspark.flow.complete import find_more, find_short
from annspark.flow.exact import find_exact
from annspark.flow.first_rows import compare_with_first_rows, pick_first_rows
from annspark.flow.grow import count_forest_sample, grow, leaves_for
from annspark.flow.join import join_partitions
from annspark.flow.merge import merge_neighbors, table_as_candidates
from annspark.flow.read import Users, in_double, read_vectors
from annspark.flow.route import ship_vectors
from annspark.flow.sample import Samples, sample_vectors
from annspark.index import Found, Index, Known
from annspark.input.given import require_table
from annspark.input.source import type_of_ids
from annspark.job import require_folder_name
from annspark.output.finish import count_shorter, finish
from annspark.output.layout import Layout, count_users, laid_out, layout_of, require_complete
from annspark.report import Cost, Leaves, Report, Rows, versions
from annspark.run import Run
from annspark.settings import Settings, make_settings, takes_settings
from annspark.spark.cluster import count_cores, start_beside, start_workers
from annspark.spark.meter import Meter, read_meter, watch_joined, watch_merged, watch_shipped
from annspark.spark.staging import Stage, Store, staging
from annspark.spark.types import is_collated

logger = logging.getLogger("annspark")
_MUCH_LOST = 0.005  # warn when rounding loses more than this share of the neighbors


@dataclass(frozen=True)
class Result:
    """The neighbor table and the report on it."""

    table: DataFrame
    report: Report


@spark_errors_explained()
@takes_settings
def build_neighbors(vectors: DataFrame, *, scratch: str | PathLike[str] | None = None, **settings: Any) -> Result:
    """Return every user's approximate k nearest neighbors and a report with their measured recall.

    vectors     : DataFrame of a classic or a Connect session. Ids are of any type that has an order. Vectors are arrays
                  of numbers or MLlib vectors; sparse ones also map<int, float>, struct<indices, values>, or sets
                  array<int>
    {settings}
    scratch     : Folder for intermediate tables, on file systems the executors share. Default: none, they are cached in
                  the session.

    The distance of the metric cosine is 1 - cos. hamming needs vectors of 0 and 1, or binary of bits; jaccard needs
    sets, or vectors as for hamming. Sparse vectors cannot be compared by manhattan or hamming.

    The nested table has the columns id and neighbors, array<struct<neighbor_id, distance>>. The long table has the
    columns id, rank, neighbor_id and distance. Either has every valid id, with min(k, number of other users) neighbors
    in the order of (distance, neighbor_id). No user is its own neighbor. The same data and seed give the same table,
    however the data is partitioned. The table stays cached, or in scratch, until the caller unpersists or deletes it.

    Raises SettingsError for settings that cannot be used, InputError for data that cannot be used, RecallMissed, which
    has the report, when the audit shows that the recall asked for was not reached, and ClusterError when Spark lacks
    memory, disk space or what its Python workers need.
    """
    vectors = require_table(vectors)
    asked = make_settings(settings, "scratch")
    with staging(require_folder_name("scratch", scratch), vectors.sparkSession) as stage:
        run = start_run(vectors.sparkSession, stage, partial(stage, keep=True))
        result, advice = build(vectors, asked, asdict(asked), run)
        require_recall(result.report, advice)
    return result


def build(vectors: DataFrame, settings: Settings, asked: dict[str, Any], run: Run) -> tuple[Result, str]:
    """Build and audit the neighbor table: run every step of the pipeline.

    asked   : settings as the report gives them
    returns : the table with its report, and advice for a missed recall, "" where it was reached
    """
    kind, layout = type_of_ids(vectors, settings), layout_of(settings)
    finish_after = settings.changes_lists or is_collated(kind)
    # The table that find returns is the finished one, unless neighbors are left out of it or ids are changed first.
    found_layout, store = (layout.nested, run.stage) if finish_after else (layout, run.keep)
    index = fit(vectors, settings, run)
    plan = index.plan
    doing = f"routing to {plan.probes:.3g} leaves a tree, joining in {plan.n_partitions} partitions, merging"
    with run.clock.step("join", doing) as facts:
        found = find(index, found_layout, store, run.cores)
        facts += [f"{found.counts.written:,} users"]
    audit = first_audit = audit_found(found, index, run)
    if settings.top_up and index.calibration and audit.recall.high < index.calibration.target:
        found = top_up(found, index, store, run)
        audit = audit_found(found, index, run)
    table, fewer = finish_found(found, index, kind, run) if finish_after else (found.table, 0)
    report = Report(
        version=__version__,
        versions=versions(vectors.sparkSession.version),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asked,
        rows=_rows_of(found, index, fewer),
        recall=audit.recall,
        calibration=index.calibration,
        topped_up=int(audit is not first_audit),
        distances=audit.distances,
        precision=audit.precision,
        cost=_cost_of(found, index),
        leaves=_leaves_of(found),
        seconds=run.clock.total(),
    )
    advice = "" if report.passed else advise_on_rounding(audit, index) or advise(index, first_audit.recall.mean)
    return Result(table, report), advice


def fit(vectors: DataFrame, settings: Settings, run: Run) -> Index:
    """Read the input, grow the forest, choose the probes that reach the recall asked for, and plan the join."""
    spark = vectors.sparkSession
    with run.clock.step("read") as facts:
        users = read_vectors(vectors, settings, run.stage, run.cores)
        facts += [f"{users.rows:,} users of {users.wire.dim:,} numbers", f"{users.read - users.rows:,} rows dropped"]
    neighbors, n_leaves = min(settings.k, users.rows - 1), leaves_for(users.rows, settings)
    with run.clock.step("sample") as facts:
        users, samples = _draw_samples(users, settings)
        facts += [f"{samples.count():,} users"]
    # These two run on the cluster while the driver grows the forest.
    searching = start_beside(spark, find_exact, users, [samples.audit, samples.calibrate], neighbors)
    by_length = users.wire.sparse and np.isinf(METRICS[settings.metric].unrelated) and n_leaves > 1
    picking = start_beside(spark, pick_first_rows, users, settings.k) if by_length else None
    with run.clock.step("grow") as facts:
        grown = grow(users, samples.forest.vectors, settings, trees=_count_trees(users.wire.sparse, settings))
        facts += [f"{sum(grown.sizes):,} leaves"]
    with run.clock.step("calibrate") as facts:
        audited, nearest = searching.result()
        if users.coordinates.need_double(samples.audit.own, audited.radius, noise_of(samples.audit, users)):
            users = in_double(users)
            facts += ["neighbors too near for float32: vectors travel in float64"]
        facts += [f"exact neighbors of {len(samples.audit.ids) + len(samples.calibrate.ids):,} users"]
        first_rows = picking.result() if picking else None
        known = Known(users=users, samples=samples, audited=audited, first_rows=first_rows, neighbors=neighbors)
        hashes = first_rows.hashes if first_rows else None
        chosen = calibrate(users, samples.calibrate, nearest, grown, samples.routed.vectors, settings, hashes)
        goal = chosen.calibration
        if goal:
            facts += [f"predicted {goal.predicted:.4f} for the {goal.target:g} asked for"]
        probes = (goal.probes if goal else settings.probes or 1) if n_leaves > 1 else 1
        plan = plan_for(known, chosen.forest, probes, run.cores)
    index = Index(
        settings=settings,
        known=known,
        forest=chosen.forest,
        grown=grown,
        home_distances=chosen.home_distances,
        calibration=goal,
        plan=plan,
    )
    _warn_of_low_recall(index)
    return index


def _draw_samples(users: Users, settings: Settings) -> tuple[Users, Samples]:
    """Return the users with the coordinates that suit them, and samples of them."""
    n_calibrate = 0 if settings.recall_asked is None else CALIBRATION_USERS
    n_audit, n_calibrate = count_exact_users(users.rows, settings.audit_users, n_calibrate)
    # The audit's users come first, so they have the smallest hashes: the audit reads few rows of the found table.
    counts = [n_audit, n_calibrate, PLAN_SAMPLE, count_forest_sample(users, settings)]
    users, (audit, calibrate, routed, forest) = sample_vectors(users, counts)
    return users, Samples(audit=audit, calibrate=calibrate, routed=routed, forest=forest)


def plan_for(known: Known, forest: Forest, probes: float, cores: int) -> Plan:
    """Return where the leaves of a forest are joined."""
    users = known.users
    return plan_join(forest, known.samples.routed.vectors, probes, rows=users.rows, cores=cores, width=users.width)


def _warn_of_low_recall(index: Index) -> None:
    """Log a warning when the predicted recall is below the one asked for, with the advice for that."""
    goal = index.calibration
    if goal and goal.high < goal.target:
        logger.warning(
            "calibrate: recall %.4f (%.4f to %.4f) is predicted for the most probes there are, %g was asked for. %s",
            *(goal.predicted, goal.low, goal.high, goal.target, advise(index, None)),
        )


def find(index: Index, layout: Layout, store: Store, cores: int, earlier: Found | None = None) -> Found:
    """Return the nearest of the users that each user is compared with in the forest, and complete short lists.

    layout  : layout of the table
    store   : computes and stores the table
    earlier : neighbors found before, which are merged with the new ones
    """
    users, plan, first_rows, k = index.known.users, index.plan, index.known.first_rows, index.settings.k
    copies = plan.copies + (earlier is not None) + (first_rows is not None)
    n_merge_partitions = count_merge_partitions(users.rows, copies, k, users.id_bytes, cores)
    meter = Meter()
    shipped = ship_vectors(users.table, index.forest, plan, users.wire, users.coordinates)
    shipped = watch_shipped(shipped, meter, users.wire)
    joined = join_partitions(shipped, plan, n_merge_partitions, users.wire, users.coordinates, k)
    candidates = [watch_joined(joined, meter)]
    if earlier is not None:
        candidates += [
            table_as_candidates(earlier.table, earlier.layout, users, n_merge_partitions, index.settings.seed)
        ]
    if first_rows is not None:
        candidates += [compare_with_first_rows(users, first_rows, None, n_merge_partitions, k)]
    merged = watch_merged(merge_neighbors(candidates, n_merge_partitions, k), index.known.neighbors, meter)
    table = store(laid_out(merged, layout))
    counts = read_meter(meter, users.id_bytes, index.known.neighbors, users.rows, count_users(table, layout))
    if first_rows is not None:
        counts = counts.with_first_rows(len(first_rows.ids), users.rows, (k + 1) * (4 + users.id_bytes))
    # A long table has no row for a user without neighbors.
    require_complete(counts.written + (counts.without_neighbors if layout.long else 0), users.rows)
    found = Found(table=table, layout=layout, counts=counts, plan=plan, n_leaves=plan.n_leaves)
    return complete(found, index, store, n_merge_partitions) if counts.short else found


def complete(found: Found, index: Index, store: Store, n_merge_partitions: int) -> Found:
    """Return the neighbors, with full lists for the users that the forest compared with too few others."""
    known, settings, counts = index.known, index.settings, found.counts
    users, layout = known.users, found.layout
    short = find_short(found.table, layout, users, known.neighbors, counts.short, settings.seed)
    candidates = [
        find_more(users, short, known.samples.routed.vectors, n_merge_partitions, settings.k),
        table_as_candidates(found.table, layout, users, n_merge_partitions, settings.seed),
    ]
    meter = Meter()
    merged = watch_merged(merge_neighbors(candidates, n_merge_partitions, settings.k), known.neighbors, meter)
    table = store(laid_out(merged, layout))
    written = count_users(table, layout)
    require_complete(written, users.rows)
    still_short = meter.merged.get["short"]
    completed = counts.short - still_short
    return replace(found, table=table, counts=replace(counts, written=written, completed=completed, short=still_short))


def audit_found(found: Found, index: Index, run: Run) -> Audit:
    """Compare the table with the exact neighbors of the sampled users; log a warning when rounding lost many."""
    known = index.known
    with run.clock.step("audit") as facts:
        audit = audit_neighbors(
            found.table, found.layout, known.samples.audit, known.audited, known.users, index.settings
        )
        facts += [f"recall@{audit.recall.k} {audit.recall.mean:.4f} of {audit.recall.users:,} users"]
    if audit.precision.recall_lost > _MUCH_LOST:
        logger.warning(
            "audit: %.1f %% of the neighbors are lost to rounding: distances (inner products) of neighbors differ by "
            "less than float32 holds of them. Take away what all vectors share, such as the mean of every column, or "
            "leave out all but one of vectors that are nearly the same.",
            100 * audit.precision.recall_lost,
        )
    return audit


def top_up(found: Found, index: Index, store: Store, run: Run) -> Found:
    """Return the neighbors merged with those found in one more tree."""
    users, samples = index.known.users, index.known.samples
    with run.clock.step("top up", "growing another tree, joining and merging its neighbors with those found"):
        forest = grow(users, samples.forest.vectors, index.settings, trees=1, first_tree=len(index.plan.reach))
        plan = plan_for(index.known, forest, index.plan.probes, run.cores)
        # The users have been compared with the first rows already.
        another = replace(index, known=replace(index.known, first_rows=None), forest=forest, plan=plan)
        more = find(another, found.layout, store, run.cores, found)
    return replace(more, counts=more.counts.after(found.counts), n_leaves=found.n_leaves + more.n_leaves)


def finish_found(found: Found, index: Index, kind: T.DataType, run: Run) -> tuple[DataFrame, int]:
    """Return the table to publish, and how many of its users have fewer neighbors than a user can have.

    kind : type of the published ids
    """
    neighbors, layout = index.known.neighbors, layout_of(index.settings)
    with run.clock.step("finish") as facts:
        table = run.keep(finish(found.table, found.layout, layout, index.settings, kind))
        # Counting computes the table now, because the tables it is made from are deleted when the run ends.
        fewer = count_shorter(table, layout, neighbors, index.known.users.rows)
        facts += [f"{fewer:,} users have fewer than {neighbors:,}"]
    return table, fewer


def _rows_of(found: Found, index: Index, fewer: int) -> Rows:
    users, counts = index.known.users, found.counts
    return Rows(
        read=users.read,
        valid=users.rows,
        written=counts.written,
        dropped=users.dropped,
        examples=users.examples,
        short=counts.short,
        widened=counts.completed,
        restricted=fewer,
    )


def _cost_of(found: Found, index: Index) -> Cost:
    counts, rows = found.counts, index.known.users.rows
    return Cost(
        pairs_per_user=round(counts.pairs / rows, 1),
        copies_per_user=round(counts.copies / rows, 3),
        shuffle_bytes=counts.shuffle_bytes,
    )


def _leaves_of(found: Found) -> Leaves:
    expected = found.plan.expected
    return Leaves(
        count=found.n_leaves,
        median_rows=expected.median_rows,
        p99_rows=expected.p99_rows,
        max_rows=found.counts.max_rows,
    )


def _count_trees(sparse: bool, settings: Settings) -> int:
    """Return how many trees to grow: for sparse rows with a recall to reach, as many as calibration may choose."""
    if sparse and settings.recall_asked is not None:
        return max(settings.trees or 1, MOST_TREES)  # trees beyond those asked for only serve the advice on a miss
    return settings.trees or (2 if sparse else 1)


def start_run(spark: SparkSession, stage: Stage, keep: Store) -> Run:
    """Return a new run, and start Python's workers while the driver reads the schema of the input."""
    start_beside(spark, start_workers, spark)
    return Run(count_cores(spark), stage, keep)


def require_recall(report: Report, advice: str) -> None:
    """Raise RecallMissed, with the advice, when the upper bound of the audited recall is below the recall asked for."""
    if report.passed or report.calibration is None:
        return
    recall, goal = report.recall, report.calibration
    raise RecallMissed(
        f"audit: recall {recall.mean:.4f} ({recall.low:.4f} to {recall.high:.4f}) of {recall.users:,} users, "
        f"{goal.target:g} was asked for, {goal.predicted:.4f} predicted for {goal.probes:g} probes. Nothing was "
        f"published. {advice}",
        report,
    )
