"""Indexing: make what an index keeps, from all that a build knows, or from candidates that are only searched."""

from dataclasses import replace
from functools import partial

import numpy as np
from pyspark.sql import DataFrame

from annspark.core.calibrate import Calibration, choose, choose_probes
from annspark.core.forest import Forest
from annspark.core.plan import PLAN_SAMPLE, count_kept, count_residents, expect_query_pairs, reach_of_queries
from annspark.core.vectors import Vectors, len_of
from annspark.flow.calibrate import place_neighbors
from annspark.flow.exclude import without_excluded
from annspark.flow.first_rows import pick_for_queries
from annspark.flow.groups import with_groups
from annspark.flow.grow import count_forest_sample, grow
from annspark.flow.read import in_double
from annspark.flow.sample import sample_vectors
from annspark.pipeline import count_trees, read_users
from annspark.run import Run
from annspark.settings import Settings
from annspark.tuned import Indexed, Kept, Tuned


def index_of(tuned: Tuned, kept: Kept | None = None) -> Indexed:
    """Return what an index keeps of a tuned one, and of the join of its rows where they were joined.

    The probes for queries are chosen by the users whose exact neighbors are known, taken for queries.  So they hold for
    queries that are like the users.
    """
    known, settings, forest, recall = tuned.known, tuned.settings, tuned.forest, tuned.settings.recall_asked
    users, routed = known.users, known.samples.routed.vectors
    first_rows = known.first_rows or pick_for_queries(users, forest, settings.k)
    residents = _residents_of(tuned.grown, routed, users.rows)
    calibration: Calibration | None = None
    if recall is not None:
        hashes = first_rows.hashes if first_rows else None
        distances = place_neighbors(users, known.samples.calibrate, known.nearest, tuned.grown, hashes, queries=True)
        count_pairs = partial(expect_query_pairs, sample=routed, residents=residents)
        chosen, calibration = choose(
            tuned.grown, routed, distances, recall, trees=settings.trees, count_pairs=count_pairs
        )
        # Queries go one way, so they may need more trees than users among themselves do.
        if len(chosen.sizes) >= len(forest.sizes):
            forest = chosen
        else:
            calibration = choose_probes(forest, routed, distances.first(len(forest.sizes)), recall)
    probes = calibration.probes if calibration else settings.probes or 1
    reach = reach_of_queries(forest, routed, probes)
    if kept is None:
        how = tuned.plan.probes, tuned.plan.reach, tuned.calibration
        if settings.candidate_col:  # the rows of the index are asked
            how = probes, reach, calibration
        kept = Kept(*how, width=count_kept(settings.k), lists=None)
    return Indexed(
        settings=settings,
        users=without_excluded(replace(users, role="index")),
        forest=forest,
        residents=residents[: len(forest.sizes)],
        first_rows=first_rows,
        reach=reach,
        calibration=calibration,
        kept=kept,
    )


def index_candidates(vectors: DataFrame, settings: Settings, run: Run) -> Indexed:
    """Read candidates and grow a forest for them; the probes are chosen later, by the queries themselves."""
    users = with_groups(read_users(vectors, settings, run, "candidates"), settings, run.stage)
    with run.clock.step("grow") as facts:
        users, (routed, sample) = sample_vectors(users, [PLAN_SAMPLE, count_forest_sample(users, settings)])
        forest = grow(users, sample.vectors, settings, trees=count_trees(users.wire.sparse, settings))
        first_rows = pick_for_queries(users, forest, settings.k)
        facts += [f"{sum(forest.sizes):,} leaves"]
    return Indexed(
        settings=settings,
        users=users,
        forest=forest,
        residents=_residents_of(forest, routed.vectors, users.rows),
        first_rows=first_rows,
        reach=(),
        calibration=None,
    )


def index_for_queries(indexed: Indexed, tuned: Tuned, kept: Kept | None) -> Indexed:
    """Return an index with the trees and the probes that were chosen for queries.

    Its settings are those of the build, so that later queries have the columns of the users by default.

    kept : what an update of the index needs; None where candidates are of another table
    """
    n_trees, users = len(tuned.forest.sizes), indexed.users
    if tuned.known.users.coordinates.double and not users.coordinates.double:
        users = in_double(users)
    return replace(
        indexed,
        settings=tuned.settings,
        users=users,
        forest=tuned.forest,
        residents=indexed.residents[:n_trees],
        reach=tuned.plan.reach,
        calibration=tuned.calibration,
        kept=kept,
    )


def _residents_of(forest: Forest, sample: Vectors, rows: int) -> tuple[np.ndarray, ...]:
    """Return about how many users are at home in each leaf of each tree: float (n_leaves,).

    sample : sampled users, prepared
    rows   : number of all users
    """
    scale = rows / max(1, len_of(sample))
    routes = zip(forest.find_routes(sample, 1), forest.sizes, strict=True)
    return tuple(count_residents(of_tree, n_leaves) * scale for of_tree, n_leaves in routes)
