"""The pipeline: read, sample, grow, calibrate, route, join, merge, complete, audit."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark import __version__
from annspark.advice import advise, advise_on_rounding
from annspark.core.calibrate import CALIBRATION_USERS, MOST_TREES
from annspark.core.coordinates import Coordinates
from annspark.core.forest import Forest
from annspark.core.metric import METRICS
from annspark.core.plan import (
    PLAN_SAMPLE,
    Plan,
    Workers,
    count_exact_users,
    count_kept,
    count_merge_partitions,
    count_staged_bytes,
    count_task_bytes,
    plan_join,
)
from annspark.errors import RecallMissed
from annspark.flow.audit import Audit, audit_neighbors, noise_of
from annspark.flow.calibrate import calibrate
from annspark.flow.complete import find_more, find_short
from annspark.flow.exact import find_exact_once
from annspark.flow.exclude import with_excluded
from annspark.flow.first_rows import compare_with_first_rows, pick_first_rows
from annspark.flow.groups import with_groups, with_too_small
from annspark.flow.grow import count_forest_sample, grow, leaves_for
from annspark.flow.join import join_partitions
from annspark.flow.merge import merge_neighbors, table_as_candidates
from annspark.flow.read import Users, in_double, read_vectors
from annspark.flow.route import ship_vectors
from annspark.flow.sample import Samples, sample_vectors
from annspark.output.finish import count_shorter, finish
from annspark.output.layout import Layout, count_users, laid_out, layout_of, require_complete
from annspark.report import Cost, Leaves, Report, Rows, versions
from annspark.run import Run
from annspark.settings import Settings
from annspark.spark.block import id_type
from annspark.spark.cluster import cluster_of, count_cores, start_beside, start_workers
from annspark.spark.meter import (
    Counts,
    Meter,
    read_meter,
    require_observations,
    watch_joined,
    watch_merged,
    watch_shipped,
)
from annspark.spark.staging import Stage, Store
from annspark.spark.steps import Steps, store_once
from annspark.spark.types import is_collated
from annspark.tables import DISTANCE, NEIGHBORS, USER_ID
from annspark.tuned import Found, Kept, Known, Tuned

logger = logging.getLogger("annspark")
_MUCH_LOST = 0.005  # warn when rounding loses more than this share of the neighbors


@dataclass(frozen=True)
class Result:
    """The neighbor table and the report on it."""

    table: DataFrame
    report: Report


@dataclass(frozen=True)
class Outcome:
    """What a join of all users has led to.

    advice : for a missed recall, "" where it was reached
    kept   : what an index keeps of the join; None where nothing is kept
    """

    result: Result
    advice: str
    kept: Kept | None


def build_tuned(tuned: Tuned, asked: dict[str, Any], run: Run, *, keep: bool = False) -> Outcome:
    """Find the neighbors of all users of a tuned index, and audit the table.

    asked : settings as the report gives them
    keep  : keep of the join what an update of the index needs
    """
    plan = tuned.plan
    doing = f"routing to {plan.probes:.3g} leaves a tree, joining in {plan.n_partitions} partitions, merging"
    with run.clock.step("join", doing) as facts:
        layout, store, _ = where_found(tuned, run)
        if keep:  # the lists of an index are not kept with the steps, so that another run has to find them again
            found = find(tuned, layout, store, run.workers, stage=run.stage)
        else:
            found = find_once(run.steps, tuned, layout, partial(find, tuned, layout, store, run.workers))
        facts += [f"{found.counts.written:,} users"]
    return finish_build(found, tuned, asked, run)


def where_found(tuned: Tuned, run: Run) -> tuple[Layout, Store, bool]:
    """Return place_of_found for users among themselves."""
    return place_of_found(run, tuned.settings, tuned.known.users.id_kind)


def finish_build(found: Found, tuned: Tuned, asked: dict[str, Any], run: Run) -> Outcome:
    """Audit the neighbors found, add a tree where that is asked for, and finish the table.

    asked : settings as the report gives them
    """
    settings, kept, (_, store, finish_after) = tuned.settings, found.kept, where_found(tuned, run)
    audit = first_audit = audit_found(found, tuned, run)
    if settings.top_up and tuned.calibration and audit.recall.high < tuned.calibration.target:
        found = top_up(found, tuned, store, run)
        audit = audit_found(found, tuned, run)
    table, fewer = finish_found(found, tuned, run) if finish_after else (found.table, 0)
    report = report_on(found, audit, tuned, fewer, asked, run, int(audit is not first_audit))
    advice = "" if report.passed else advise_on_rounding(audit, tuned) or advise(tuned, first_audit.recall.mean)
    return Outcome(Result(table, report), advice, kept)


def place_of_found(run: Run, settings: Settings, *kinds: T.DataType) -> tuple[Layout, Store, bool]:
    """Return the layout of the table that is found, what stores it, and whether finish makes the published one of it.

    It does where neighbors are left out or ids are changed, and where the table that is found is kept for the next run.

    kinds : types of the published ids
    """
    layout = layout_of(settings)
    if run.steps.folder:
        return layout.nested, run.steps.store, True
    if settings.changes_lists or any(map(is_collated, kinds)):
        return layout.nested, run.stage, True
    return layout, run.keep, False


def find_once(steps: Steps, tuned: Tuned, layout: Layout, compute: Callable[[], Found]) -> Found:
    """Return the neighbors that an earlier run has found, or find them and keep them for the next run.

    layout  : layout of the table
    compute : finds them, and stores the table with the steps where these are kept
    """
    if kept := steps.load("join"):
        assert kept.table is not None
        counts = Counts(**kept.facts)
        return Found(table=kept.table, layout=layout, counts=counts, plan=tuned.plan, n_leaves=tuned.plan.n_leaves)
    found = compute()
    steps.save("join", has_table=True, facts=asdict(found.counts))
    return found


def fit(vectors: DataFrame, settings: Settings, run: Run, exclude: DataFrame | None = None) -> Tuned:
    """Read the input, grow the forest, choose the probes that reach the recall asked for, and plan the join.

    exclude : pairs that must not be in the table, see with_excluded
    """
    users = with_groups(read_users(vectors, settings, run), settings, run.stage)
    return tune(exclude_pairs(users, exclude, users.id_kind, settings, run), settings, run)


def read_users(
    vectors: DataFrame,
    settings: Settings,
    run: Run,
    role: str = "input",
    like: Users | None = None,
    *,
    contents: bool = False,
) -> Users:
    """Read a table; role, like and contents are as for read_vectors."""
    with run.clock.step("read") as facts:
        keep = partial(store_once, run.steps, f"read-{role}", run.stage)
        users = read_vectors(
            vectors, settings, run.stage, run.cores, role=role, like=like, keep=keep, contents=contents
        )
        what = "users" if role == "input" else role
        facts += [f"{users.rows:,} {what} of {users.wire.dim:,} numbers", f"{users.read - users.rows:,} rows dropped"]
    return users


def exclude_pairs(
    users: Users, exclude: DataFrame | None, neighbors: T.DataType, settings: Settings, run: Run
) -> Users:
    """Return users that know whom they must not be given; arguments are those of with_excluded."""
    if exclude is None:
        return users
    with run.clock.step("exclude") as facts:
        users = with_excluded(users, exclude, neighbors, settings, run.stage, run.cores)
        facts += [f"{users.excluded:,} pairs, at most {users.most_excluded:,} of one user"]
    return users


def most_neighbors(users: Users, settings: Settings) -> int:
    """Return the most neighbors that a user can have among the users."""
    return min(settings.k, (users.groups.largest if users.groups else users.rows) - 1)


def tune(users: Users, settings: Settings, run: Run, grown: Forest | None = None) -> Tuned:
    """Grow the forest, choose the probes that reach the recall asked for, and plan the join.

    grown : the forest where there is one already; the coordinates of the users are then known, too
    """
    spark = users.table.sparkSession
    neighbors, n_leaves = most_neighbors(users, settings), leaves_for(users.rows, settings)
    users = with_too_small(users, neighbors, settings.k)
    with run.clock.step("sample") as facts:
        users, samples = _draw_samples(users, settings, users.coordinates if grown else None)
        facts += [f"{samples.count():,} users"]
    # These two run on the cluster while the driver grows the forest.
    searching = start_beside(spark, find_exact_once, run.steps, users, [samples.audit, samples.calibrate], neighbors)
    by_length = users.wire.sparse and np.isinf(METRICS[settings.metric].unrelated) and n_leaves > 1
    picking = start_beside(spark, pick_first_rows, users, settings.k + users.spare) if by_length else None
    with run.clock.step("grow") as facts:
        trees = count_trees(users.wire.sparse, settings)
        grown = grown or grow(users, samples.forest.vectors, settings, trees=trees)
        facts += [f"{sum(grown.sizes):,} leaves"]
    with run.clock.step("calibrate") as facts:
        audited, nearest = searching.result()
        if users.coordinates.need_double(samples.audit.own, audited.radius, noise_of(samples.audit, users)):
            users = in_double(users)
            facts += ["neighbors too near for float32: vectors travel in float64"]
        facts += [f"exact neighbors of {len(samples.audit.ids) + len(samples.calibrate.ids):,} users"]
        first_rows = picking.result() if picking else None
        known = Known(
            users=users,
            asking=users,
            samples=samples,
            audited=audited,
            nearest=nearest,
            first_rows=first_rows,
            neighbors=neighbors,
        )
        hashes = first_rows.hashes if first_rows else None
        chosen = calibrate(users, samples.calibrate, nearest, grown, samples.routed.vectors, settings, hashes)
        goal = chosen.calibration
        if goal:
            facts += [f"predicted {goal.predicted:.4f} for the {goal.target:g} asked for"]
        probes = (goal.probes if goal else settings.probes or 1) if n_leaves > 1 else 1
        plan = plan_for(known, chosen.forest, probes, run)
    tuned = Tuned(
        settings=settings,
        known=known,
        forest=chosen.forest,
        grown=grown,
        home_distances=chosen.home_distances,
        calibration=goal,
        plan=plan,
    )
    warn_of_low_recall(tuned, partial(advise, tuned, None))
    warn_of_little_memory(count_task_bytes(plan, users.rows, users.shipped_width, known.neighbors), run.free_bytes)
    return tuned


def _draw_samples(users: Users, settings: Settings, coordinates: Coordinates | None) -> tuple[Users, Samples]:
    """Return the users with the coordinates that suit them, and samples of them."""
    n_calibrate = 0 if settings.recall_asked is None else CALIBRATION_USERS
    n_audit, n_calibrate = count_exact_users(users.rows, settings.audit_users, n_calibrate)
    # The audit's users come first, so they have the smallest hashes: the audit reads few rows of the found table.
    counts = [n_audit, n_calibrate, PLAN_SAMPLE, count_forest_sample(users, settings)]
    users, (audit, calibrate, routed, forest) = sample_vectors(users, counts, coordinates)
    return users, Samples(audit=audit, calibrate=calibrate, routed=routed, forest=forest)


def plan_for(known: Known, forest: Forest, probes: float, run: Run) -> Plan:
    """Return where the leaves of a forest are joined."""
    users, routed, k = known.users, known.samples.routed.vectors, known.neighbors
    return plan_join(forest, routed, probes, rows=users.rows, workers=run.workers, width=users.shipped_width, k=k)


def warn_of_low_recall(tuned: Tuned, advise: Callable[[], str]) -> None:
    """Log a warning when the predicted recall is below the one asked for, with the advice for that."""
    goal = tuned.calibration
    if goal and goal.high < goal.target:
        logger.warning(
            "calibrate: recall %.4f (%.4f to %.4f) is predicted for the most probes there are, %g was asked for. %s",
            *(goal.predicted, goal.low, goal.high, goal.target, advise()),
        )


def warn_of_little_memory(needed: int, free: int) -> None:
    """Log a warning when a worker will need more memory than is free for it.

    needed : bytes
    free   : bytes, 0 where that is not known
    """
    if 0 < free < needed:
        logger.warning(
            "plan: a Python worker will hold about %s MB while it joins, and %s MB are free for it. It may be "
            "killed. Give executors fewer cores or more memory outside of Java's heap, or ask for a lower recall.",
            *(f"{n_bytes / 1e6:,.0f}" for n_bytes in (needed, free)),
        )


def find(
    tuned: Tuned,
    layout: Layout,
    store: Store,
    workers: Workers,
    earlier: Found | None = None,
    *,
    stage: Store | None = None,
) -> Found:
    """Return the nearest of the users that each user is compared with in the forest, and complete short lists.

    layout  : layout of the table
    store   : computes and stores the table
    workers : who joins and merges
    earlier : neighbors found before, which are merged with the new ones
    stage   : computes and stores what an index keeps of the join; None where nothing is kept
    """
    users, plan, first_rows, k = tuned.known.users, tuned.plan, tuned.known.first_rows, tuned.settings.k
    width = count_kept(k) if stage else k
    copies = plan.copies + (earlier is not None) + (first_rows is not None)
    n_merge_partitions = count_merge_partitions(users.rows, copies, k, users.id_bytes, workers)
    meter = Meter()
    shipped = ship_vectors(users.table, tuned.forest, plan, users.wire, users.coordinates)
    shipped = watch_shipped(shipped, meter, users.wire)
    joined = join_partitions(shipped, plan, n_merge_partitions, users.wire, users.coordinates, width)
    joined = watch_joined(joined, meter)
    if stage is not None:
        return find_and_keep(joined, tuned, meter, layout, store, n_merge_partitions, stage)
    candidates = [joined]
    if earlier is not None:
        candidates += [
            table_as_candidates(earlier.table, earlier.layout, users, n_merge_partitions, tuned.settings.seed)
        ]
    if first_rows is not None:
        candidates += [compare_with_first_rows(users, first_rows, None, n_merge_partitions, k)]
    return merge_found(candidates, tuned, meter, layout, store, n_merge_partitions)


def find_and_keep(
    joined: DataFrame,
    tuned: Tuned,
    meter: Meter,
    layout: Layout,
    store: Store,
    n_merge_partitions: int,
    stage: Store,
) -> Found:
    """Return find_in_lists of the lists of a join, which an index will keep.

    joined : lists of count_kept(k) neighbors, as join_partitions returns them
    stage  : computes and stores what the index keeps
    """
    plan, asking, width = tuned.plan, tuned.known.asking, count_kept(tuned.settings.k)
    lists = stage(merge_neighbors([joined], n_merge_partitions, width))
    first = lists.select(USER_ID, F.slice(NEIGHBORS, 1, tuned.settings.k).alias(NEIGHBORS))
    found = find_in_lists(first, tuned, meter, layout, store, n_merge_partitions)
    kept = Kept(plan.probes, plan.reach, tuned.calibration, width, lists, asking, asking.excluded)
    return replace(found, kept=kept)


def find_in_lists(
    lists: DataFrame, tuned: Tuned, meter: Meter, layout: Layout, store: Store, n_merge_partitions: int
) -> Found:
    """Store the lists of all users as a table, and complete short ones.

    Where there are first rows, every user is compared with those before.

    lists : user_id and neighbors of each user, nearest first: k of those it was compared with, if there are
    """
    asking, first_rows, k = tuned.known.asking, tuned.known.first_rows, tuned.settings.k
    if first_rows is None:
        return _stored(lists, tuned, meter, layout, store, n_merge_partitions)
    candidates = [
        table_as_candidates(lists, Layout(USER_ID, False, DISTANCE), asking, n_merge_partitions, tuned.settings.seed),
        compare_with_first_rows(asking, first_rows, None, n_merge_partitions, k, own=tuned.own),
    ]
    return merge_found(candidates, tuned, meter, layout, store, n_merge_partitions)


def merge_found(
    candidates: list[DataFrame], tuned: Tuned, meter: Meter, layout: Layout, store: Store, n_merge_partitions: int
) -> Found:
    """Merge candidates, those of the join and others, into the lists of those who ask, and complete short lists.

    meter : watches the join
    """
    merged = merge_neighbors(candidates, n_merge_partitions, tuned.settings.k)
    return _stored(merged, tuned, meter, layout, store, n_merge_partitions)


def _stored(
    lists: DataFrame, tuned: Tuned, meter: Meter, layout: Layout, store: Store, n_merge_partitions: int
) -> Found:
    """Store the lists of those who ask as a table, and complete short lists.

    lists : user_id and neighbors
    meter : has watched the join
    """
    known, plan, k, first_rows = tuned.known, tuned.plan, tuned.settings.k, tuned.known.first_rows
    rows, id_bytes = known.asking.rows, max(known.asking.id_bytes, known.users.id_bytes)
    table = store(laid_out(watch_merged(lists, known.neighbors, meter), layout))
    counts = read_meter(meter, id_bytes, known.neighbors, rows, count_users(table, layout))
    if first_rows is not None:
        counts = counts.with_first_rows(len(first_rows.ids), rows, (k + 1) * (4 + id_bytes))
    # A long table has no row for a user without neighbors.
    require_complete(counts.written + (counts.without_neighbors if layout.long else 0), rows)
    found = Found(table=table, layout=layout, counts=counts, plan=plan, n_leaves=plan.n_leaves)
    return complete(found, tuned, store, n_merge_partitions) if counts.short > known.can_have_fewer else found


def complete(found: Found, tuned: Tuned, store: Store, n_merge_partitions: int) -> Found:
    """Return the neighbors, with full lists for those that the forest compared with too few others."""
    known, settings, counts = tuned.known, tuned.settings, found.counts
    users, asking, layout, k = known.users, known.asking, found.layout, settings.k
    if asking.groups is not None and not asking.groups.large:  # small groups are exact
        return found
    short = find_short(found.table, layout, asking, known.neighbors, counts.short, settings.seed)
    if short is not None and len(short) == 0:
        return found
    candidates = [
        find_more(users, asking, short, known.samples.routed.vectors, n_merge_partitions, k, own=tuned.own),
        table_as_candidates(
            found.table, layout, asking, n_merge_partitions, settings.seed, neighbor=id_type(users.table)
        ),
    ]
    meter = Meter()
    merged = watch_merged(merge_neighbors(candidates, n_merge_partitions, k), known.neighbors, meter)
    table = store(laid_out(merged, layout))
    written = count_users(table, layout)
    require_complete(written + (meter.merged.get["without_neighbors"] if layout.long else 0), asking.rows)
    still_short = meter.merged.get["short"]
    completed = counts.short - still_short
    return replace(found, table=table, counts=replace(counts, written=written, completed=completed, short=still_short))


def audit_found(found: Found, tuned: Tuned, run: Run) -> Audit:
    """Compare the table with the exact neighbors of those sampled; log a warning when rounding lost many."""
    known = tuned.known
    queries, what = (known.asking, "queries") if known.are_queries else (None, "users")
    with run.clock.step("audit") as facts:
        audit = audit_neighbors(
            found.table, found.layout, known.samples.audit, known.audited, known.users, tuned.settings, queries
        )
        facts += [f"recall@{audit.recall.k} {audit.recall.mean:.4f} of {audit.recall.users:,} {what}"]
    if audit.precision.recall_lost > _MUCH_LOST:
        logger.warning(
            "audit: %.1f %% of the neighbors are lost to rounding: distances (inner products) of neighbors differ by "
            "less than float32 holds of them. Take away what all vectors share, such as the mean of every column, or "
            "leave out all but one of vectors that are nearly the same.",
            100 * audit.precision.recall_lost,
        )
    return audit


def top_up(found: Found, tuned: Tuned, store: Store, run: Run) -> Found:
    """Return the neighbors merged with those found in one more tree."""
    users, samples = tuned.known.users, tuned.known.samples
    with run.clock.step("top up", "growing another tree, joining and merging its neighbors with those found"):
        forest = grow(users, samples.forest.vectors, tuned.settings, trees=1, first_tree=len(tuned.plan.reach))
        plan = plan_for(tuned.known, forest, tuned.plan.probes, run)
        # The users have been compared with the first rows already.
        another = replace(tuned, known=replace(tuned.known, first_rows=None), forest=forest, plan=plan)
        more = find(another, found.layout, store, run.workers, found)
    return replace(more, counts=more.counts.after(found.counts), n_leaves=found.n_leaves + more.n_leaves)


def finish_found(found: Found, tuned: Tuned, run: Run) -> tuple[DataFrame, int]:
    """Return the table to publish, and how many of its users have fewer neighbors than a user can have."""
    known, settings, layout = tuned.known, tuned.settings, layout_of(tuned.settings)
    with run.clock.step("finish") as facts:
        kinds = known.asking.id_kind, known.users.id_kind
        table = run.keep(finish(found.table, found.layout, layout, settings, *kinds))
        # Counting computes the table now, because the tables it is made from are deleted when the run ends.
        fewer = max(0, count_shorter(table, layout, known.neighbors, known.asking.rows) - known.can_have_fewer)
        facts += [f"{fewer:,} users have fewer than {known.neighbors:,}"]
    return table, fewer if settings.changes_lists else 0


def report_on(
    found: Found, audit: Audit, tuned: Tuned, fewer: int, asked: dict[str, Any], run: Run, topped_up: int = 0
) -> Report:
    """Return the report on a run.

    fewer : users that have fewer neighbors because of max_distance or links
    """
    counts, known, asking = found.counts, tuned.known, tuned.known.asking
    staged = (known.users, asking) if known.are_queries else (asking,)
    return Report(
        version=__version__,
        versions=versions(found.table.sparkSession.version),
        cluster=cluster_of(found.table.sparkSession, run.cores),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asked,
        input_version=run.input_version,
        rows=Rows(
            read=asking.read,
            valid=asking.rows,
            written=counts.written,
            dropped=asking.dropped,
            examples=asking.examples,
            short=max(0, counts.short - known.can_have_fewer),
            widened=counts.completed,
            restricted=fewer,
            indexed=known.users.rows if known.are_queries else None,
            excluded_pairs=asking.excluded,
            groups=asking.groups.count if asking.groups else None,
            in_small_groups=asking.groups.in_small if asking.groups else 0,
        ),
        recall=audit.recall,
        calibration=tuned.calibration,
        topped_up=topped_up,
        distances=audit.distances,
        precision=audit.precision,
        cost=Cost(
            pairs_per_user=round(counts.pairs / asking.rows, 1),
            copies_per_user=round(counts.copies / asking.rows, 3),
            shuffle_bytes=counts.shuffle_bytes,
            staged_bytes=sum(count_staged_bytes(table.rows, table.width) for table in staged),
        ),
        leaves=_leaves_of(found),
        seconds=run.clock.total(),
    )


def _leaves_of(found: Found) -> Leaves:
    expected = found.plan.expected
    return Leaves(
        count=found.n_leaves,
        median_rows=expected.median_rows,
        p99_rows=expected.p99_rows,
        max_rows=found.counts.max_rows,
    )


def count_trees(sparse: bool, settings: Settings) -> int:
    """Return how many trees to grow: for sparse rows with a recall to reach, as many as calibration may choose."""
    if sparse and settings.recall_asked is not None:
        return max(settings.trees or 1, MOST_TREES)  # trees beyond those asked for only serve the advice on a miss
    return settings.trees or (2 if sparse else 1)


def start_run(
    spark: SparkSession, stage: Stage, keep: Store, steps: Steps | None = None, input_version: str | None = None
) -> Run:
    """Return a new run, and start Python's workers while the driver reads the schema of the input.

    steps         : keeps what finished steps have made; None keeps nothing
    input_version : for the report

    Raises SettingsError for a session that annspark cannot work in.
    """
    require_observations(spark)
    told = start_beside(spark, start_workers, spark)
    cores = count_cores(spark)
    made = {"annspark": __version__} | versions(spark.version) | cluster_of(spark, cores)
    logger.info("%-9s             %s", "run", ", ".join(f"{name} {value}" for name, value in made.items()))
    return Run(cores, stage, keep, steps or Steps(spark), told=told, input_version=input_version)


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
