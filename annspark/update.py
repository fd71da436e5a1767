"""Update: the neighbor table of tonight's rows, and the index of them, from last night's index.

The forest and the reach stay, and with them the home of every row that stays.  Two rows are compared when either goes
to the home of the other.  So only pairs with an end that is new or changed are new, and only they are compared.  A list
that loses neighbors has some to spare; where these run out, its row is joined anew.  The table is that of a join of all
rows with the same forest and reach, to the bit.

With candidate_col only some rows are in the index, and all ask.  A row whose mark has turned has changed.  All rows are
then sent through the forest once, to find those that go to a leaf with a new candidate: no list tells who goes where.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark.sql import DataFrame

from annspark.core.calibrate import CALIBRATION_USERS
from annspark.core.forest import Forest
from annspark.core.join_sparse import CROWDED
from annspark.core.metric import METRICS
from annspark.core.plan import PLAN_SAMPLE, Expected, Plan, count_exact_users, count_merge_partitions
from annspark.errors import BuildNeeded, SettingsError, Unlike
from annspark.flow.audit import noise_of
from annspark.flow.exact import find_exact
from annspark.flow.exclude import digests_of, without_excluded
from annspark.flow.first_rows import FirstRows, pick_first_rows, pick_for_queries
from annspark.flow.groups import large_from, with_groups, with_too_small
from annspark.flow.grow import count_forest_sample
from annspark.flow.read import Users
from annspark.flow.sample import Samples, sample_vectors
from annspark.index_ask import ask_changed
from annspark.index_changes import Changes, Saved, find_changes, pick_rows
from annspark.index_join import callers_told, facts_of, join_asking, write_parts
from annspark.index_rows import Before, facts_of_asking, read_lists, write_slots
from annspark.index_writer import explained, finish_index, manifest_of, write_rows_of
from annspark.input.given import select_candidates
from annspark.pipeline import (
    Outcome,
    exclude_pairs,
    find,
    find_in_lists,
    finish_build,
    most_neighbors,
    plan_for,
    read_users,
    where_found,
)
from annspark.query import find_for_queries, know_queries, plan_asking, require_unique
from annspark.run import Run
from annspark.saved.manifest import Manifest
from annspark.settings import Settings
from annspark.spark.block import id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter
from annspark.tuned import Found, Indexed, Kept, Known, Tuned

_OR_BUILD = "build table and index anew: annspark build --index, or --rebuild-if-missed"
_BUILD = _OR_BUILD.capitalize()
_TOO_NEAR = f"input: neighbors are too near each other for float32 now, in which the index compares them. {_BUILD}."
_MOST_CHANGED = 0.25  # share of the rows: if more have changed, joining all of them anew takes less time
_OUTGROWN = 16  # times the rows of a large group: one without trees is compared all with all, and so takes too long
_MOST_ENTERING = 64 << 20  # bytes of new candidates that the driver hands to the tasks
_MOST_TOLD = 5_000_000  # most hashes of changed rows, and of their excluded pairs, that the driver hands to the tasks


@dataclass(frozen=True)
class Tonight:
    """What an update has led to.

    joined   : the table with its report
    indexed  : what tonight's index keeps
    manifest : of tonight's index, whose rows are written
    """

    joined: Outcome
    indexed: Indexed
    manifest: Manifest


def on_drift(settings: Settings) -> str:
    """Return what to do where the recall was missed by an update."""
    top_up = "" if settings.candidate_col or settings.top_up else "--top-up, or "
    return (
        f"The rows have drifted from the forest of the index. Add {top_up}--rebuild-if-missed, or build table and "
        "index anew: annspark build --index."
    )


def require_updatable(indexed: Indexed, named: str, settings: Settings, *, has_excluded: bool) -> Kept:
    """Return what an index keeps of the join of its rows.

    settings     : of the update
    has_excluded : whether pairs are excluded tonight

    Raises SettingsError for an index that keeps nothing of the join, and where an update would list what must not
    appear.
    """
    kept = indexed.kept
    if kept is None:
        raise SettingsError(
            f"index {named!r} cannot be updated: it holds candidates of another table, which have no lists of their "
            "own. Build both anew: annspark build --index --overwrite."
        )
    if kept.pairs is not None and not has_excluded:
        raise SettingsError(
            f"index {named!r} was made with {kept.pairs:,} excluded pairs, and 'exclude' is not given. Give the pairs "
            "that must not appear tonight, all of them, or an empty table."
        )
    settings.require_pairing(False, has_excluded)
    return kept


def update(
    vectors: DataFrame,
    indexed: Indexed,
    old: Saved | None,
    new: str,
    named: str,
    settings: Settings,
    asked: dict[str, Any],
    run: Run,
    exclude: DataFrame | None = None,
) -> Tonight:
    """Find the neighbors of tonight's rows, and write tonight's index but for its manifest.

    old      : the index where it is saved; None where it is not, and all rows are joined
    new      : folder for it, which exists and is empty
    named    : the index as messages name it
    settings : those of the index, with what may be changed
    asked    : settings as the report gives them
    exclude  : all pairs that must not be in tonight's table, see with_excluded

    Raises BuildNeeded where tonight's rows do not fit the index.
    """
    kept = require_updatable(indexed, named, settings, has_excluded=exclude is not None)
    if settings.candidate_col:
        settings = replace(settings, same_ids=True)
    users, asking = _read(vectors, indexed, settings, exclude, run)
    kept, forest = replace(kept, pairs=asking.excluded), indexed.forest.first(len(kept.reach))
    if asking is users:
        known = _know(users, settings, run)
        first_rows = known.first_rows or pick_for_queries(known.users, indexed.forest, settings.k)
    else:
        first_rows = pick_for_queries(users, indexed.forest, settings.k)
        known = know_queries(asking, replace(indexed, users=users, first_rows=first_rows), settings, 0, run)
        if known.users.coordinates.double and not users.coordinates.double:
            raise BuildNeeded(_TOO_NEAR)
    rows = without_excluded(replace(users, role="index"))
    indexed = replace(indexed, users=rows, first_rows=first_rows, kept=kept)
    if old is not None and old.manifest.slots:
        with run.clock.step("changes") as facts:
            changes = find_changes(asking, old, run.stage, users if known.are_queries else None)
            facts += [
                f"{len(changes.added):,} rows are new or changed, {len(changes.gone.hashes):,} gone or changed",
                f"{len(changes.again):,} others are joined anew",
            ]
        if _pays(changes, known, old.manifest, first_rows):
            tuned = _tuned(known, forest, kept, settings, _plan_of(old.manifest, kept))
            with run.clock.step("join") as facts:
                found, manifest = _join_changes(changes, tuned, indexed, old, new, named, run)
                facts += [f"{len(changes.asking):,} of {found.counts.written:,} users"]
            joined = finish_build(found, tuned, asked, run)
            return Tonight(joined, _with_residents(indexed, manifest), manifest)
    if known.are_queries:
        plan = plan_asking(known, forest, indexed, kept.probes, run)
    else:
        plan = plan_for(known, forest, kept.probes, run)
    tuned = _tuned(known, forest, kept, settings, replace(plan, reach=kept.reach))
    return _join_all(tuned, indexed, new, named, asked, run)


def _read(
    vectors: DataFrame, indexed: Indexed, settings: Settings, exclude: DataFrame | None, run: Run
) -> tuple[Users, Users]:
    """Return tonight's rows that may be neighbors, and those that ask: the same, or with candidate_col all rows."""
    role = "candidates" if settings.candidate_col else "input"
    users = _read_like(select_candidates(vectors, settings.candidate_col), indexed, settings, run, role)
    users = with_groups(users, settings, run.stage, indexed.forest)
    _require_trees(users, settings)
    if settings.candidate_col is None:
        users = exclude_pairs(users, exclude, users.id_kind, settings, run)
        return users, users
    asking = _read_like(vectors, indexed, settings, run, "input")
    require_unique(asking, settings)
    # Rows that only ask may have columns that no candidate has.
    return replace(users, wire=asking.wire), exclude_pairs(asking, exclude, asking.id_kind, settings, run)


def _tuned(known: Known, forest: Forest, kept: Kept, settings: Settings, plan: Plan) -> Tuned:
    """Return what a join needs; its probes were chosen when the index was made."""
    return Tuned(
        settings=settings,
        known=known,
        forest=forest,
        grown=forest,
        home_distances=None,
        calibration=kept.calibration,
        plan=plan,
    )


def _join_all(tuned: Tuned, indexed: Indexed, new: str, named: str, asked: dict[str, Any], run: Run) -> Tonight:
    with run.clock.step("join") as facts:
        layout, store, _ = where_found(tuned, run)
        join = find_for_queries if tuned.known.are_queries else find
        found = join(tuned, layout, store, run.workers, stage=run.stage)
        facts += [f"all {found.counts.written:,} users"]
    joined = finish_build(found, tuned, asked, run)
    indexed = replace(indexed, kept=found.kept)
    with run.clock.step("index", "writing the index"):
        manifest = write_rows_of(indexed, new, named, run.cores)
    return Tonight(joined, _with_residents(indexed, manifest), manifest)


def _read_like(vectors: DataFrame, indexed: Indexed, settings: Settings, run: Run, role: str) -> Users:
    """Return rows that the index can hold; raise BuildNeeded where it cannot."""
    try:
        users = read_users(vectors, settings, run, role, replace(indexed.users, role="index"), contents=True)
    except Unlike as error:
        raise BuildNeeded(f"{error} Or {_OR_BUILD}.") from error
    _require_fitting(users, indexed.users)
    return users


def _require_trees(users: Users, settings: Settings) -> None:
    """Raise BuildNeeded for a group so large that it needs trees, and has none in the index."""
    if users.groups is None:
        return
    largest, most = max(users.groups.rows_by_size, default=0), _OUTGROWN * large_from(settings)
    if largest > most:
        raise BuildNeeded(
            f"{users.role}: a group by {settings.within!r} has {largest:,} rows and no trees in the index, so that all "
            f"of them would be compared with each other; up to {most:,} are. It is new, it has grown, or its value is "
            f"written in another way than when the index was made. {_BUILD}."
        )


def _require_fitting(users: Users, before: Users) -> None:
    """Raise BuildNeeded for rows that the coordinates or the ids of the index do not hold."""
    if users.id_kind != before.id_kind:
        raise BuildNeeded(
            f"input: ids are {users.id_kind.simpleString()}, and {before.id_kind.simpleString()} in the index. Cast "
            f"them. Or {_OR_BUILD}."
        )
    if not users.coordinates.holds(users.largest, users.wire.dim):
        raise BuildNeeded(
            f"input: the largest number is {users.largest:.3g}, which float32 does not hold beside the vectors of the "
            f"index, whose largest was {before.largest:.3g}. {_BUILD}."
        )


def _know(users: Users, settings: Settings, run: Run) -> Known:
    """Return what is known of tonight's rows: samples of them, and the exact neighbors of those audited."""
    neighbors = most_neighbors(users, settings)
    users = with_too_small(users, neighbors, settings.k)
    with run.clock.step("sample") as facts:
        n_audit, _ = count_exact_users(
            users.rows, settings.audit_users, 0 if settings.recall_asked is None else CALIBRATION_USERS
        )
        n_forest = count_forest_sample(users, settings) if settings.top_up else 0
        users, drawn = sample_vectors(users, [n_audit, 0, PLAN_SAMPLE, n_forest], users.coordinates)
        samples = Samples(*drawn)
        facts += [f"{samples.count():,} users"]
    with run.clock.step("exact") as facts:
        audited = find_exact(users, [samples.audit], neighbors)[0]
        facts += [f"exact neighbors of {n_audit:,} users"]
    if not users.coordinates.double and users.coordinates.need_double(
        samples.audit.own, audited.radius, noise_of(samples.audit, users)
    ):
        raise BuildNeeded(_TOO_NEAR)
    by_length = users.wire.sparse and np.isinf(METRICS[settings.metric].unrelated)
    return Known(
        users=users,
        asking=users,
        samples=samples,
        audited=audited,
        nearest=audited,
        first_rows=pick_first_rows(users, settings.k + users.spare) if by_length else None,
        neighbors=neighbors,
    )


def _pays(changes: Changes, known: Known, manifest: Manifest, first_rows: FirstRows | None) -> bool:
    """Return whether only what has changed is to be joined: whether that gives the same lists, and takes less time."""
    users = known.asking
    if known.are_queries and 4 * len(changes.added) * users.width > _MOST_ENTERING:
        return False
    n_joined = sum(manifest.forest.sizes[: len(manifest.join_reach)])
    told = len(changes.asking) * (1 + 2 * (users.excluded or 0) / users.rows)  # with their excluded pairs
    if len(changes.asking) > _MOST_CHANGED * users.rows or told > _MOST_TOLD or (manifest.part_of_leaf < 0).any():
        return False
    # Whether a pair is compared in a crowded leaf of sparse rows depends on all other rows there.
    largest = int(manifest.leaf_rows[:n_joined].max(initial=0)) + len(changes.added)
    hubs = len(first_rows.ids) + len(changes.added) if first_rows else 0
    return not users.wire.sparse or max(largest, hubs) <= CROWDED


def _plan_of(manifest: Manifest, kept: Kept) -> Plan:
    """Return the plan of a join in which every part of an index is a partition."""
    sizes, n_joined = manifest.forest.sizes, sum(manifest.forest.sizes[: len(kept.reach)])
    median, p99, largest = np.quantile(manifest.leaf_rows[:n_joined], (0.5, 0.99, 1.0))
    return Plan(
        probes=kept.probes,
        reach=kept.reach,
        first_leaf=np.cumsum([0, *sizes]),
        partition_of_leaf=manifest.part_of_leaf,
        n_partitions=len(manifest.parts),
        copies=1.0,
        expected=Expected(pairs=0.0, median_rows=round(median), p99_rows=round(p99), max_rows=round(largest)),
        shared=manifest.forest.shared_leaves,
    )


def _join_changes(
    changes: Changes, tuned: Tuned, indexed: Indexed, old: Saved, new: str, named: str, run: Run
) -> tuple[Found, Manifest]:
    """Join what has changed with what it meets; return the neighbors of all users, and the manifest of the files."""
    known, k, kept, n_leaves = tuned.known, tuned.settings.k, indexed.kept, sum(indexed.forest.sizes)
    assert kept is not None
    users, asking, forest = known.users, known.asking, tuned.forest
    spark, meter, slots = users.table.sparkSession, Meter(), old.slots
    anew = run.stage(pick_rows(asking, changes.asking))
    entering, replaced = anew, changes.replaced
    if known.are_queries:
        entering, replaced = run.stage(pick_rows(users, changes.added)), changes.gone.hashes
    with explained(named):
        written = write_parts(entering, users, indexed.forest, tuned.plan, replaced, old, new)
        manifest = manifest_of(indexed, written, n_leaves)
        plan, saved = _plan_of(manifest, kept), Saved(new, manifest)
        facts = facts_of(entering, users, forest, changes.added, len(slots))
        if known.are_queries:
            lists = ask_changed(anew, entering, asking, forest, plan, changes, old, saved, meter)
            new_rows = pick_rows(replace(asking, table=anew), changes.added)
            facts = facts.unionByName(facts_of_asking(new_rows, asking, len(slots)))
        else:
            callers = callers_told(written, plan)
            lists = join_asking(anew, users, forest, plan, callers, changes, len(slots), saved, meter)
        digests, before = digests_of(asking, partition_keys(len(slots))), Before(slots, changes.gone, changes.again)
        lists_saved = write_slots(spark, lists, facts, digests, new, manifest, len(slots), k, before)
        manifest = manifest.with_files(lists_saved)
    tuned = replace(tuned, plan=plan)
    layout, store, _ = where_found(tuned, run)
    lists = read_lists(spark, new, manifest, id_type(asking.table), k)
    n_merge_partitions = count_merge_partitions(asking.rows, 1, k, asking.id_bytes, run.workers)
    return find_in_lists(lists, tuned, meter, layout, store, n_merge_partitions), manifest


def finish_update(tonight: Tonight, folder: str, named: str, table: str) -> Manifest:
    """Write the manifest of tonight's index, after which the folder is an index.

    table : fingerprint of the table that is published with it
    """
    assert tonight.manifest.join is not None
    manifest = replace(tonight.manifest, join=replace(tonight.manifest.join, table=table))
    return finish_index(tonight.indexed, manifest, folder, named)


def _with_residents(indexed: Indexed, manifest: Manifest) -> Indexed:
    cuts = np.cumsum(indexed.forest.sizes)[:-1]
    return replace(indexed, residents=tuple(np.split(manifest.leaf_rows.astype(np.float64), cuts)))
