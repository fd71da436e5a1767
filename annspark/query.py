"""The pipeline for queries: read, sample, find exact neighbors, calibrate, ship, ask, merge, complete, audit.

Queries are rows of another table than the rows they are compared with.  They ask for neighbors, and are nobody's
neighbor.  So each goes to the leaves near to it, and no indexed row goes anywhere but home.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.advice import advise_on_rounding, advise_queries
from annspark.core.calibrate import CALIBRATION_USERS, choose
from annspark.core.coordinates import Coordinates
from annspark.core.first_rows import count_first_rows
from annspark.core.plan import PLAN_SAMPLE, count_exact_users, count_merge_partitions, expect_query_pairs, plan_queries
from annspark.errors import InputError, SettingsError
from annspark.flow.ask import ask_partitions, ship_both
from annspark.flow.audit import Audit, audit_neighbors, noise_of
from annspark.flow.calibrate import place_neighbors
from annspark.flow.complete import find_more_for_queries, find_short
from annspark.flow.exact import find_exact
from annspark.flow.first_rows import compare_with_first_rows, pick_for_queries
from annspark.flow.merge import merge_neighbors, table_as_candidates
from annspark.flow.read import Users, in_double
from annspark.flow.sample import Samples, sample_vectors
from annspark.input.source import type_of_ids
from annspark.output.layout import Layout, count_users, laid_out, layout_of, require_complete
from annspark.pipeline import Result, finish_lists, read_users, report_on, rows_of, warn_of_low_recall, warn_of_rounding
from annspark.run import Run
from annspark.settings import Settings
from annspark.spark.block import id_type
from annspark.spark.meter import Meter, read_meter, watch_joined, watch_merged
from annspark.spark.staging import Store
from annspark.spark.types import is_collated
from annspark.tables import quoted
from annspark.tuned import Found, Indexed, Known, Tuned

_WHOLE = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)


@dataclass(frozen=True)
class Answered:
    """The neighbors of queries, with the report.

    advice : for a missed recall, "" where it was reached
    tuned  : what the queries were asked with
    """

    result: Result
    advice: str
    tuned: Tuned


def ask(table: DataFrame, indexed: Indexed, settings: Settings, asked: dict[str, Any], run: Run) -> Answered:
    """Find the neighbors of every row of a table among the indexed rows, and audit them.

    settings : those of the index, with what the queries ask for
    asked    : settings as the report gives them
    """
    layout = layout_of(settings)
    queries = read_users(_matching(table, indexed, settings), settings, run, like=indexed.users)
    _require_size(queries)
    if queries.wire != indexed.users.wire:  # sparse queries may have columns that no indexed row has
        indexed = replace(indexed, users=replace(indexed.users, wire=queries.wire))
    queries, tuned = tune_for(queries, indexed, settings, run)
    users, plan = tuned.known.users, tuned.plan
    finish_after = settings.changes_lists or is_collated(queries.id_kind) or is_collated(users.id_kind)
    found_layout, store = (layout.nested, run.stage) if finish_after else (layout, run.keep)
    doing = f"sending queries to {plan.probes:.3g} leaves a tree, in {plan.n_partitions} partitions, merging"
    with run.clock.step("join", doing) as facts:
        found = find_for(queries, tuned, found_layout, store, run.cores)
        facts += [f"{found.counts.written:,} queries"]
    with run.clock.step("audit") as facts:
        audit = _audit(found, queries, tuned)
        facts += [f"recall@{audit.recall.k} {audit.recall.mean:.4f} of {audit.recall.users:,} queries"]
    warn_of_rounding(audit)
    ends = (queries, users)
    finished, fewer = (
        finish_lists(found, settings, ends, tuned.known.neighbors, run) if finish_after else (found.table, 0)
    )
    rows = rows_of(found, queries, fewer, users.rows)
    report = report_on(found, audit, tuned.calibration, rows, asked, run)
    advice = "" if report.passed else advise_on_rounding(audit, tuned) or advise_queries(tuned, audit.recall.mean)
    return Answered(Result(finished, report), advice, tuned)


def tune_for(queries: Users, indexed: Indexed, settings: Settings, run: Run) -> tuple[Users, Tuned]:
    """Choose the probes that reach the recall asked for, by sampled queries, and plan the join.

    returns : the queries with the coordinates they are compared in, and all that the join needs
    """
    users, neighbors = indexed.users, min(settings.k, max(0, indexed.users.rows - settings.same_ids))
    with run.clock.step("sample") as facts:
        n_calibrate = 0 if settings.recall_asked is None else CALIBRATION_USERS
        counts = [*count_exact_users(queries.rows, settings.audit_users, n_calibrate), PLAN_SAMPLE]
        _, (audit, calibrate, routed) = sample_vectors(queries, counts, users.coordinates)
        samples = Samples(audit=audit, calibrate=calibrate, routed=routed, forest=routed)
        facts += [f"{len(audit.ids) + len(calibrate.ids) + len(routed.ids):,} queries"]
    with run.clock.step("exact") as facts:
        audited, nearest = find_exact(users, [audit, calibrate], neighbors, own=settings.same_ids)
        facts += [f"exact neighbors of {len(audit.ids) + len(calibrate.ids):,} queries"]
        if users.coordinates.double or users.coordinates.need_double(
            audit.own, audited.radius, noise_of(audit, queries)
        ):
            users, queries = in_double(users), in_double(queries)
    with run.clock.step("calibrate") as facts:
        first_rows = indexed.first_rows
        if users.wire.sparse and count_first_rows(settings.k) > count_first_rows(indexed.settings.k):
            first_rows = pick_for_queries(users, indexed.forest, settings.k)
        forest, goal, home_distances = indexed.forest, None, None
        if settings.recall_asked is not None:
            hashes = first_rows.hashes if first_rows else None
            home_distances = place_neighbors(users, calibrate, nearest, forest, hashes, queries=True)
            count_pairs = partial(expect_query_pairs, sample=routed.vectors, residents=indexed.residents)
            forest, goal = choose(
                forest,
                routed.vectors,
                home_distances,
                settings.recall_asked,
                trees=settings.trees,
                count_pairs=count_pairs,
            )
            facts += [f"predicted {goal.predicted:.4f} for the {goal.target:g} asked for"]
        probes = goal.probes if goal else settings.probes or 1
        plan = plan_queries(
            forest,
            routed.vectors,
            indexed.residents[: len(forest.sizes)],
            probes if sum(forest.sizes) > len(forest.sizes) else 1,
            queries=queries.rows,
            rows=users.rows,
            cores=run.cores,
            width=max(users.width, queries.width),
        )
    known = Known(
        users=users,
        samples=samples,
        audited=audited,
        nearest=nearest,
        first_rows=first_rows,
        neighbors=neighbors,
    )
    tuned = Tuned(
        settings=settings,
        known=known,
        forest=forest,
        grown=forest,
        home_distances=home_distances and home_distances.first(len(forest.sizes)),
        calibration=goal,
        plan=plan,
    )
    warn_of_low_recall(tuned, partial(advise_queries, tuned, None))
    return queries, tuned


def find_for(queries: Users, tuned: Tuned, layout: Layout, store: Store, cores: int) -> Found:
    """Return the nearest of the indexed rows that each query is compared with, and complete short lists."""
    users, plan, first_rows, k = tuned.known.users, tuned.plan, tuned.known.first_rows, tuned.settings.k
    same_ids, neighbor = tuned.settings.same_ids, id_type(users.table)
    id_bytes = max(users.id_bytes, queries.id_bytes)
    n_merge_partitions = count_merge_partitions(
        queries.rows, plan.copies + (first_rows is not None), k, id_bytes, cores
    )
    meter = Meter()
    shipped = ship_both(users, queries, tuned.forest, plan, meter)
    joined = ask_partitions(shipped, plan, n_merge_partitions, queries.wire, queries.coordinates, k, same_ids=same_ids)
    candidates = [watch_joined(joined, meter)]
    if first_rows is not None:
        candidates += [
            compare_with_first_rows(queries, first_rows, None, n_merge_partitions, k, neighbor=neighbor, own=same_ids)
        ]
    merged = watch_merged(merge_neighbors(candidates, n_merge_partitions, k), tuned.known.neighbors, meter)
    table = store(laid_out(merged, layout))
    counts = read_meter(meter, id_bytes, tuned.known.neighbors, queries.rows, count_users(table, layout))
    if first_rows is not None:
        counts = counts.with_first_rows(len(first_rows.ids), queries.rows, (k + 1) * (4 + id_bytes))
    require_complete(counts.written + (counts.without_neighbors if layout.long else 0), queries.rows)
    found = Found(table=table, layout=layout, counts=counts, plan=plan, n_leaves=plan.n_leaves)
    return _complete(found, queries, tuned, store, n_merge_partitions) if counts.short else found


def _complete(found: Found, queries: Users, tuned: Tuned, store: Store, n_merge_partitions: int) -> Found:
    """Return the neighbors, with full lists for the queries that went to leaves with too few rows.

    Sparse queries have been compared with the first rows, which fill every list that can be filled.
    """
    users, settings, counts = tuned.known.users, tuned.settings, found.counts
    if users.wire.sparse:
        return found
    short = find_short(found.table, found.layout, queries, tuned.known.neighbors, counts.short, settings.seed)
    neighbor = id_type(users.table)
    candidates = [
        find_more_for_queries(users, queries, short, n_merge_partitions, settings.k, own=settings.same_ids),
        table_as_candidates(found.table, found.layout, queries, n_merge_partitions, settings.seed, neighbor),
    ]
    meter = Meter()
    merged = watch_merged(merge_neighbors(candidates, n_merge_partitions, settings.k), tuned.known.neighbors, meter)
    table = store(laid_out(merged, found.layout))
    written = count_users(table, found.layout)
    require_complete(written, queries.rows)
    still_short = meter.merged.get["short"]
    return replace(
        found,
        table=table,
        counts=replace(counts, written=written, completed=counts.short - still_short, short=still_short),
    )


def _audit(found: Found, queries: Users, tuned: Tuned) -> Audit:
    known = tuned.known
    return audit_neighbors(
        found.table, found.layout, known.samples.audit, known.audited, known.users, tuned.settings, queries
    )


def _matching(table: DataFrame, indexed: Indexed, settings: Settings) -> DataFrame:
    """Return the queries with ids of the type of the index's, if equal ids are the same thing."""
    if not settings.same_ids:
        return table
    kind, wanted = type_of_ids(table, settings), indexed.users.id_kind
    if isinstance(kind, T.NullType) or kind == wanted:
        return table
    if (
        isinstance(kind, _WHOLE)
        and isinstance(wanted, _WHOLE)
        and _WHOLE.index(type(kind)) < _WHOLE.index(type(wanted))
    ):
        return table.withColumn(settings.id_col, F.col(quoted(settings.id_col)).cast(wanted))
    raise SettingsError(
        f"'same_ids' is True, and ids are {kind.simpleString()} in the queries and {wanted.simpleString()} in the "
        "index: they cannot be the same things. Cast the queries' ids, or leave same_ids out."
    )


def _require_size(queries: Users) -> None:
    """Raise InputError for queries so much longer than the indexed rows that float32 cannot hold both."""
    if not queries.coordinates.holds(queries.largest, queries.wire.dim):
        raise InputError(
            f"queries: the largest number is {queries.largest:.3g}, beside which the indexed vectors vanish in "
            "float32. Leave these rows out, or divide the queries by a power of two"
            + (": the neighbors stay the same." if _is_scale_free(queries.coordinates) else ", as the indexed vectors.")
        )


def _is_scale_free(coordinates: Coordinates) -> bool:
    return coordinates.facts.largest
