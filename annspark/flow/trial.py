"""Trial: some users joined for real, to tell how long all of them will take on this machine."""

import time
from dataclasses import dataclass, replace

from pyspark.sql import functions as F

from annspark.config import Settings
from annspark.core.plan import (
    Plan,
    count_leaves,
    count_merge_partitions,
    plan_join,
)
from annspark.core.sampling import draw_limit
from annspark.flow.grow import grow
from annspark.flow.join import join_partitions
from annspark.flow.merge import merge_neighbors
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.flow.sample import Sample
from annspark.tables import IDS, LOWEST

_TRIED = (25_000, 25_000, 100_000)  # the first only warms up


@dataclass(frozen=True)
class Tried:
    """Some users, routed, joined and merged."""

    users: int
    seconds: float


def try_join(users: Users, samples: dict[str, Sample], settings: Settings, planned: Plan, cores: int) -> list[Tried]:
    """Join a small and a larger part of the users, each with leaves as large and as many probes as all will have."""
    tried = []
    for want in _TRIED if users.rows > _TRIED[0] else (users.rows,):
        limit = draw_limit(min(want, users.rows), users.rows)
        some = replace(users, table=users.table.where(F.col(LOWEST) <= limit))
        rows = some.table.agg(F.sum(F.size(IDS))).collect()[0][0]
        n_leaves = count_leaves(rows, settings.leaf_rows, settings.k)
        forest = grow(samples["forest"].vectors, n_leaves, settings, rows=rows, first_tree=0, trees=len(planned.reach))
        plan = plan_join(forest, samples["plan"].vectors, planned.probes, rows=rows, cores=cores, width=users.width)
        merge_in = count_merge_partitions(rows, plan.copies, settings.k, users.id_bytes, cores)
        start = time.perf_counter()
        wire, coordinates = users.wire, users.coordinates
        shipped = ship_vectors(some.table, forest, plan, wire, coordinates)
        found = join_partitions(shipped, plan, merge_in, wire, coordinates, settings.k)
        merge_neighbors(found, merge_in, settings.k).write.format("noop").mode("overwrite").save()
        tried.append(Tried(rows, time.perf_counter() - start))
    return tried


def extrapolate(tried: list[Tried], rows: int) -> float:
    """Return the seconds that so many rows will take: what the last trial took, and more for each row beyond it."""
    last = tried[-1]
    if len(tried) < 2 or rows <= last.users or last.users <= tried[-2].users:
        return last.seconds * max(1.0, rows / last.users)
    before = tried[-2]
    # Never less than half of what the last trial took a row: the difference of two times is a noisy thing.
    each = max((last.seconds - before.seconds) / (last.users - before.users), last.seconds / last.users / 2)
    return last.seconds + each * (rows - last.users)
