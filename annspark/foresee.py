"""Foresee: the leaves, the probes and the join of a larger table, from a random sample of its rows."""

import time
from dataclasses import dataclass, replace

from annspark.core.forest import Forest
from annspark.core.growth import Foreseen, count_placeable, foresee_probes, grow_with_rows
from annspark.core.nearest_lists import Nearest
from annspark.core.plan import PLAN_SAMPLE, SAMPLED_PER_LEAF, Plan, Workers, plan_join
from annspark.errors import InputError, SettingsError
from annspark.flow.calibrate import place_neighbors
from annspark.flow.exact import find_exact
from annspark.flow.grow import grow, leaves_for
from annspark.flow.read import Users
from annspark.flow.sample import Sample, sample_vectors
from annspark.run import Run
from annspark.settings import Settings
from annspark.tuned import Tuned

_USERS = 10_000  # users whose neighbors are placed: few of these neighbors are in a small sample
_PRODUCTS = 2e11  # numbers multiplied to find the neighbors of these users, at most: a minute of a core
_STEP = 4  # times as many rows in the larger of the two tables by which the probes of a still larger one are foreseen


@dataclass(frozen=True)
class Future:
    """The table that is planned for.

    rows     : of the table
    placed   : rows of the largest table whose leaves the sample could place; the forest and the routes are of that one
    leaves   : leaves of all trees
    probes   : mean number of leaves a vector goes to in each tree
    forest   : the trees
    plan     : the join of all rows
    grow     : seconds of a core to grow the forest
    """

    rows: int
    placed: int
    leaves: int
    probes: Foreseen
    forest: Forest
    plan: Plan
    grow: float


@dataclass(frozen=True)
class Drawn:
    """How many users are drawn to plan for a table of more rows.

    asked  : users whose neighbors are placed in the leaves
    routed : users that are routed
    placed : see Future
    """

    asked: int
    routed: int
    placed: int


def count_drawn(users: Users, rows: int, settings: Settings) -> Drawn:
    """Return how many users to draw to plan for so many rows.

    Raises SettingsError for fewer rows than there are and for more rows of sparse vectors, and InputError for a sample
    that is too large.
    """
    if rows < users.rows:
        raise SettingsError(f"'rows' is {rows:,}, and the input has {users.rows:,}. Plan for at least as many.")
    if rows == users.rows:
        return Drawn(asked=0, routed=0, placed=rows)
    if users.wire.sparse:
        raise SettingsError(
            f"'rows' is {rows:,}, and vectors are sparse. Leave rows out to plan for the {users.rows:,} of the input."
        )
    asked = int(max(1, min(_USERS, users.rows / 8, _PRODUCTS / (users.rows * users.width))))
    routed = min(PLAN_SAMPLE, users.rows // 4)
    leaf_rows = max(1, round(rows / leaves_for(rows, settings)))
    placed = count_placeable(rows, max(0, users.rows - asked - routed), leaf_rows, users.width)
    if placed < min(rows, 2 * users.rows):
        raise InputError(
            f"input: the driver can grow the leaves of {placed:,} rows of these vectors, and the input has "
            f"{users.rows:,}. Give at most {placed // 2:,} of them, drawn at random."
        )
    return Drawn(asked=asked, routed=routed, placed=placed)


def foresee(tuned: Tuned, rows: int, drawn: Drawn, workers: Workers, run: Run) -> Future:
    """Return what a build of so many rows like the tuned ones would do.

    drawn : as count_drawn returns it
    """
    users, settings, placed = tuned.known.users, tuned.settings, drawn.placed
    if rows == users.rows:
        return as_it_is(tuned, workers, run)
    n_grown = min(SAMPLED_PER_LEAF * leaves_for(placed, settings), users.rows - drawn.asked - drawn.routed)
    users, (asked, routed, grown) = sample_vectors(users, [drawn.asked, drawn.routed, n_grown], users.coordinates)
    nearest = find_exact(users, [asked], tuned.known.neighbors)[0]
    seen: list[Foreseen] = []
    for size in (placed,) if placed == rows else (max(users.rows, placed // _STEP), placed):
        start = time.process_time()
        vectors = grown.vectors[: SAMPLED_PER_LEAF * leaves_for(size, settings)]
        forest = grow(replace(users, rows=size), vectors, settings, trees=len(tuned.plan.reach))
        spent = time.process_time() - start
        seen.append(_foresee_probes(tuned, users, (asked, nearest), forest, routed, size))
    probes = seen[0] if placed == rows else grow_with_rows(seen, rows)
    width, k = users.shipped_width, tuned.known.neighbors
    plan = plan_join(forest, routed.vectors, probes.probes, rows=rows, workers=workers, width=width, k=k)
    return Future(
        rows=rows,
        placed=placed,
        leaves=round(plan.n_leaves * rows / placed),
        probes=probes,
        forest=forest,
        plan=_with_leaves_of(plan, placed / rows),
        grow=spent * rows / placed,
    )


def as_it_is(tuned: Tuned, workers: Workers, run: Run) -> Future:
    """Return what a build of the tuned rows would do."""
    users, probes, forest = tuned.known.users, tuned.plan.probes, tuned.forest
    routed, rows = tuned.known.samples.routed.vectors, users.rows
    width, k = users.shipped_width, tuned.known.neighbors
    plan = plan_join(forest, routed, probes, rows=rows, workers=workers, width=width, k=k)
    foreseen = Foreseen(rows=rows, probes=probes, low=probes, high=probes)
    return Future(
        rows=rows,
        placed=rows,
        leaves=plan.n_leaves,
        probes=foreseen,
        forest=forest,
        plan=plan,
        grow=run.clock.seconds["grow"],
    )


def _foresee_probes(
    tuned: Tuned, users: Users, asked: tuple[Sample, Nearest], forest: Forest, routed: Sample, rows: int
) -> Foreseen:
    """Return the probes that a table of so many rows needs, those of the settings where they are given.

    asked  : sampled users and their exact neighbors
    forest : with the leaves of that table
    """
    recall = tuned.settings.recall_asked
    if recall is None:
        probes = tuned.plan.probes
        return Foreseen(rows=rows, probes=probes, low=probes, high=probes)
    distances = place_neighbors(users, *asked, forest)
    return foresee_probes(forest, routed.vectors, distances, recall, rows=rows, ratio=rows / users.rows)


def _with_leaves_of(plan: Plan, share: float) -> Plan:
    """Return the plan of all rows, as if its leaves held this share of the rows at home in them."""
    expected = plan.expected
    return replace(
        plan,
        expected=replace(
            expected,
            pairs=expected.pairs * share,
            median_rows=round(expected.median_rows * share),
            p99_rows=round(expected.p99_rows * share),
            max_rows=round(expected.max_rows * share),
        ),
    )
