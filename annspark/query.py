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
from annspark.core.first_rows import count_first_rows
from annspark.core.forest import Forest
from annspark.core.plan import (
    PLAN_SAMPLE,
    Plan,
    Workers,
    count_exact_users,
    count_kept,
    count_merge_partitions,
    count_query_task_bytes,
    expect_query_pairs,
    plan_queries,
)
from annspark.errors import InputError, SettingsError
from annspark.flow.ask import ask_partitions, ship_both
from annspark.flow.audit import noise_of
from annspark.flow.calibrate import place_neighbors
from annspark.flow.exact import find_exact_once
from annspark.flow.first_rows import compare_with_first_rows, pick_for_queries
from annspark.flow.groups import with_groups, with_groups_among
from annspark.flow.read import Users, in_double
from annspark.flow.sample import Samples, sample_vectors
from annspark.input.source import type_of_ids
from annspark.output.layout import Layout
from annspark.pipeline import (
    Result,
    audit_found,
    exclude_pairs,
    find_and_keep,
    find_once,
    finish_found,
    merge_found,
    place_of_found,
    read_users,
    report_on,
    warn_of_little_memory,
    warn_of_low_recall,
)
from annspark.run import Run
from annspark.settings import Settings
from annspark.spark.block import id_type
from annspark.spark.meter import Meter, watch_joined
from annspark.spark.staging import Store
from annspark.spark.types import is_collated, widens
from annspark.tables import quoted
from annspark.tuned import Found, Indexed, Kept, Known, Tuned


@dataclass(frozen=True)
class Answered:
    """The neighbors of queries, with the report.

    advice : for a missed recall, "" where it was reached
    tuned  : what the queries were asked with
    kept   : what an index keeps of their lists; None where nothing is kept
    """

    result: Result
    advice: str
    tuned: Tuned
    kept: Kept | None


def ask(
    table: DataFrame,
    indexed: Indexed,
    settings: Settings,
    asked: dict[str, Any],
    run: Run,
    role: str = "queries",
    exclude: DataFrame | None = None,
    *,
    keep: bool = False,
) -> Answered:
    """Find the neighbors of every row of a table among the indexed rows, and audit them.

    settings : those of the index, with what the queries ask for
    asked    : settings as the report gives them
    role     : what messages call the table
    exclude  : pairs of a query and an indexed row that must not be in the table, see with_excluded
    keep     : keep of the queries what an update of the index needs
    """
    users = with_groups(indexed.users, indexed.settings, run.stage, indexed.forest)
    indexed = replace(indexed, users=users)
    queries = read_users(_matching(table, indexed.users, settings, role), settings, run, role, indexed.users)
    _require_size(queries, indexed.users)
    require_unique(queries, settings)
    queries = exclude_pairs(queries, exclude, indexed.users.id_kind, settings, run)
    if queries.wire != indexed.users.wire:  # sparse queries may have columns that no indexed row has
        indexed = replace(indexed, users=replace(indexed.users, wire=queries.wire))
    tuned = tune_for(queries, indexed, settings, run)
    plan, kinds = tuned.plan, (queries.id_kind, tuned.known.users.id_kind)
    layout, store, finish_after = place_of_found(run, settings, *kinds)
    doing = f"sending queries to {plan.probes:.3g} leaves a tree, in {plan.n_partitions} partitions, merging"
    with run.clock.step("join", doing) as facts:
        find = partial(find_for_queries, tuned, layout, store, run.workers)
        # The lists of an index are not kept with the steps, so that another run has to find them again.
        found = find(stage=run.stage) if keep else find_once(run.steps, tuned, layout, find)
        facts += [f"{found.counts.written:,} queries"]
    audit = audit_found(found, tuned, run)
    finished, fewer = finish_found(found, tuned, run) if finish_after else (found.table, 0)
    report = report_on(found, audit, tuned, fewer, asked, run)
    advice = "" if report.passed else advise_on_rounding(audit, tuned) or advise_queries(tuned, audit.recall.mean)
    return Answered(Result(finished, report), advice, tuned, found.kept)


def tune_for(queries: Users, indexed: Indexed, settings: Settings, run: Run) -> Tuned:
    """Choose the probes that reach the recall asked for, by sampled queries, and plan the join."""
    known = know_queries(queries, indexed, settings, 0 if settings.recall_asked is None else CALIBRATION_USERS, run)
    users, queries, routed = known.users, known.asking, known.samples.routed
    with run.clock.step("calibrate") as facts:
        forest, goal, home_distances = indexed.forest, None, None
        if settings.recall_asked is not None:
            hashes = known.first_rows.hashes if known.first_rows else None
            home_distances = place_neighbors(
                users, known.samples.calibrate, known.nearest, forest, hashes, queries=True
            )
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
        plan = plan_asking(known, forest, indexed, probes if sum(forest.sizes) > len(forest.sizes) else 1, run)
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
    width = max(users.width, queries.width)
    warn_of_little_memory(
        count_query_task_bytes(plan, queries.rows, users.rows, width, known.neighbors), run.free_bytes
    )
    return tuned


def know_queries(queries: Users, indexed: Indexed, settings: Settings, n_calibrate: int, run: Run) -> Known:
    """Return what is known of queries: samples of them, exact neighbors of these, and the first rows.

    n_calibrate : for how many queries exact neighbors are found that are not for the audit
    """
    users = indexed.users
    most = users.groups.largest if users.groups else users.rows
    # With candidate_col, all that may be neighbors ask, and so do others, who do not lose themselves.
    some_ask = settings.candidate_col is not None and queries.role == "input" and queries.rows > users.rows
    neighbors = min(settings.k, max(0, most - (settings.same_ids and not some_ask)))
    own = None if some_ask else settings.same_ids
    queries = with_groups_among(queries, users, neighbors, settings.k, own=own)
    with run.clock.step("sample") as facts:
        counts = [*count_exact_users(queries.rows, settings.audit_users, n_calibrate), PLAN_SAMPLE]
        _, (audit, calibrate, routed) = sample_vectors(queries, counts, users.coordinates)
        samples = Samples(audit=audit, calibrate=calibrate, routed=routed, forest=routed)
        facts += [f"{len(audit.ids) + len(calibrate.ids) + len(routed.ids):,} queries"]
    with run.clock.step("exact") as facts:
        audited, nearest = find_exact_once(run.steps, users, [audit, calibrate], neighbors, own=settings.same_ids)
        facts += [f"exact neighbors of {len(audit.ids) + len(calibrate.ids):,} queries"]
        if users.coordinates.double or users.coordinates.need_double(
            audit.own, audited.radius, noise_of(audit, queries)
        ):
            users, queries = in_double(users), in_double(queries)
    first_rows, wanted = indexed.first_rows, settings.k + queries.spare
    if users.wire.sparse and count_first_rows(wanted) > count_first_rows(indexed.settings.k):
        first_rows = pick_for_queries(users, indexed.forest, wanted)
    return Known(
        users=users,
        asking=queries,
        samples=samples,
        audited=audited,
        nearest=nearest,
        first_rows=first_rows,
        neighbors=neighbors,
        lonely=users.rows if some_ask and users.rows == neighbors else 0,
    )


def plan_asking(known: Known, forest: Forest, indexed: Indexed, probes: float, run: Run) -> Plan:
    """Return where the leaves of a forest are joined for queries."""
    users, queries = known.users, known.asking
    return plan_queries(
        forest,
        known.samples.routed.vectors,
        indexed.residents[: len(forest.sizes)],
        probes,
        queries=queries.rows,
        rows=users.rows,
        workers=run.workers,
        width=max(users.width, queries.shipped_width),
        k=known.neighbors,
    )


def find_for_queries(
    tuned: Tuned, layout: Layout, store: Store, workers: Workers, *, stage: Store | None = None
) -> Found:
    """Return the nearest of the indexed rows that each query is compared with, and complete short lists.

    stage : computes and stores what an index keeps of the lists; None where nothing is kept
    """
    known, plan, k = tuned.known, tuned.plan, tuned.settings.k
    width = count_kept(k) if stage else k
    users, queries, first_rows = known.users, known.asking, known.first_rows
    copies = plan.copies + (first_rows is not None)
    id_bytes = max(users.id_bytes, queries.id_bytes)
    n_merge_partitions = count_merge_partitions(queries.rows, copies, k, id_bytes, workers)
    meter = Meter()
    shipped = ship_both(users, queries, tuned.forest, plan, meter)
    joined = ask_partitions(shipped, plan, n_merge_partitions, queries.wire, queries.coordinates, width, own=tuned.own)
    joined = watch_joined(joined, meter)
    if stage is not None:
        return find_and_keep(joined, tuned, meter, layout, store, n_merge_partitions, stage)
    candidates = [joined]
    if first_rows is not None:
        neighbor = id_type(users.table)
        candidates += [
            compare_with_first_rows(queries, first_rows, None, n_merge_partitions, k, neighbor=neighbor, own=tuned.own)
        ]
    return merge_found(candidates, tuned, meter, layout, store, n_merge_partitions)


def _matching(table: DataFrame, users: Users, settings: Settings, role: str) -> DataFrame:
    """Return the queries with ids of the type of the indexed users', if equal ids are the same thing."""
    if not settings.same_ids:
        return table
    kind, wanted = type_of_ids(table, settings, role), users.id_kind
    kinds = f"{kind.simpleString()} in the {role} and {wanted.simpleString()} in the {users.role}"
    if is_collated(kind) or is_collated(wanted):  # ids are compared by their bytes
        if settings.candidate_col:
            raise SettingsError(
                f"'candidate_col' is {settings.candidate_col!r}, and ids are {kind.simpleString()}: no row may be its "
                "own neighbor, and ids that a collation makes equal would not be seen. Cast them to string before."
            )
        raise SettingsError(
            f"'same_ids' is True, and ids are {kinds}: ids that a collation makes equal would not be seen. Cast both "
            "to string before, or leave same_ids out."
        )
    if isinstance(kind, T.NullType) or kind == wanted:
        return table
    if widens(kind, wanted):
        return table.withColumn(settings.id_col, F.col(quoted(settings.id_col)).cast(wanted))
    raise SettingsError(
        f"'same_ids' is True, and ids are {kinds}: they cannot be the same things. Cast the ids of the {role}, or "
        "leave same_ids out."
    )


def require_unique(rows: Users, settings: Settings) -> None:
    """Raise InputError for rows of one id where all rows ask and some may be neighbors: each might be one of these."""
    repeated = rows.dropped.get("duplicate_id", 0)
    if settings.candidate_col and rows.role == "input" and repeated:
        raise InputError(
            f"{rows.role}: {repeated:,} rows have an id that was met before, for example "
            f"{rows.examples['duplicate_id']!r}. With 'candidate_col' {settings.candidate_col!r} none of them can be "
            "dropped, as one might ask while another is the neighbor. Leave one row of each id before."
        )


def _require_size(queries: Users, users: Users) -> None:
    """Raise InputError for queries so much longer than the indexed users that float32 cannot hold both."""
    if not queries.coordinates.holds(queries.largest, queries.wire.dim):
        raise InputError(
            f"{queries.role}: the largest number is {queries.largest:.3g}, beside which the vectors of the "
            f"{users.role} vanish in float32. Leave these rows out, or divide the vectors of the {queries.role} by a "
            "power of two"
            + (": the neighbors stay the same." if queries.coordinates.facts.largest else f", and of the {users.role}.")
        )
