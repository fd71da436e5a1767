"""The straight line: read, sample, grow, route, join, merge, audit, publish."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark import __version__
from annspark.config import Job, Settings
from annspark.core.forest import grow_forest
from annspark.core.plan import SHOWN, count_leaves, count_limbs, count_merge_partitions, count_sampled, plan_join
from annspark.flow import files, publish
from annspark.flow.audit import audit_neighbors
from annspark.flow.cluster import count_cores
from annspark.flow.grow import grow_limbs
from annspark.flow.join import join_partitions
from annspark.flow.merge import merge_neighbors
from annspark.flow.meter import Meter, read_meter, watch_joined, watch_merged, watch_shipped
from annspark.flow.read import read_vectors
from annspark.flow.route import ship_vectors
from annspark.flow.sample import sample_vectors
from annspark.flow.shape import count_users, require_complete, shaped
from annspark.flow.stage import release, stage_table, staging
from annspark.report import Cost, Leaves, Report, Rows
from annspark.steps import Steps


@dataclass(frozen=True)
class Result:
    """The neighbor table and the report on it."""

    table: DataFrame
    report: Report


def build_neighbors(
    vectors: DataFrame,
    *,
    k: int = 10,
    id_col: str = "user_id",
    vector_col: str = "vector",
    metric: str = "cosine",
    probes: float = 8,
    trees: int = 1,
    leaf_rows: int = 512,
    split: str = "two_means",
    seed: int = 0,
    shape: str = "nested",
    on_bad_row: str = "fail",
    audit_users: int = 1000,
    scratch: str | None = None,
) -> Result:
    """Return every user's approximate k nearest neighbors and a report with their measured recall.

    vectors     : DataFrame of any session, classic or Connect; ids are integers or strings, vectors array<float>,
                  array<double> or MLlib vectors
    metric      : "cosine" (distance 1 - cos) or "euclidean"
    probes      : leaves a user goes to in each tree, on average: more finds more neighbors and takes longer
    trees       : trees in the forest; more probes are usually cheaper than more trees
    leaf_rows   : users a leaf should hold; never fewer than 4 k
    split       : "two_means" or "two_points", how the planes of a tree are placed
    shape       : "nested" (a row per user: id, neighbors array<struct<neighbor_id, distance>>) or "long" (a row per
                  neighbor: id, rank, neighbor_id, distance)
    on_bad_row  : "fail", or "drop" to leave unusable rows out and count them in the report
    audit_users : users whose exact neighbors are computed to measure the recall
    scratch     : folder for intermediate tables, on file systems the executors share; None caches them in the session

    The table has every valid id once, neighbors in the order of (distance, neighbor_id), nobody their own neighbor; the
    same data and seed give the same table, however they are partitioned.  It stays cached, or in scratch, until the
    caller unpersists or deletes it.

    Raises SettingsError for settings and InputError for data that cannot be used.
    """
    settings = Settings(
        k=k,
        id_col=id_col,
        vector_col=vector_col,
        metric=metric,
        probes=probes,
        trees=trees,
        leaf_rows=leaf_rows,
        split=split,
        seed=seed,
        shape=shape,
        on_bad_row=on_bad_row,
        audit_users=audit_users,
    )
    kept: list[DataFrame] = []

    def keep(table: DataFrame) -> DataFrame:
        kept.append(stage_table(table, scratch))
        return kept[0]

    try:
        return _build(vectors, settings, asdict(settings), scratch, keep, Steps())
    except BaseException:
        for table in kept:
            release(table, scratch)
        raise


def run(spark: SparkSession, job: Job) -> Report:
    """Read the job's input, and publish the neighbor table and its report together; both appear whole or not at all."""
    publish.check_target(spark, job.output, job.overwrite)
    if job.report:
        files.require_reach("report", job.report)
    vectors = publish.open_input(spark, job.input, job.format)
    pending: list[publish.Pending] = []

    def keep(table: DataFrame) -> DataFrame:
        pending.append(publish.write_pending(table, job.output, job.format))
        return pending[0].table

    asked = {name: value for name, value in asdict(job).items() if name != "settings"} | asdict(job.settings)
    clock = Steps()
    try:
        result = _build(vectors, job.settings, asked, job.scratch, keep, clock)
        report = f"{job.report or f'{pending[0].target}.report'}/report.json"
        with clock.step("publish") as facts, files.text_once_done(report, result.report.as_json()):
            publish.commit(pending[0])
            facts += [pending[0].target, f"report in {report}"]
    except BaseException:
        for one in pending:
            publish.discard(one)
        raise
    return result.report


def _build(
    vectors: DataFrame,
    settings: Settings,
    asked: dict[str, Any],
    scratch: str | None,
    keep: Callable[[DataFrame], DataFrame],
    clock: Steps,
) -> Result:
    """Walk the line; keep materialises the finished table, and everything after reads what it returns."""
    meter = Meter()
    with staging(scratch) as stage:
        with clock.step("read") as facts:
            cores = count_cores(vectors.sparkSession)
            users = read_vectors(vectors, settings, stage, cores)
            facts += [f"{users.rows:,} users of {users.dim} numbers", f"{users.read - users.rows:,} rows dropped"]
        with clock.step("sample") as facts:
            n_leaves = count_leaves(users.rows, settings.leaf_rows, settings.k)
            n_limbs = count_limbs(n_leaves, users.dim)
            grown_from = count_sampled(users.rows, users.dim, n_limbs or n_leaves)
            want = {"audit": settings.audit_users, "plan": SHOWN, "forest": grown_from}
            samples = sample_vectors(users, want)
            facts += [f"{sum(len(sample.ids) for sample in samples.values()):,} users"]
        with clock.step("grow") as facts:
            forest = grow_forest(
                samples["forest"].vectors,
                n_limbs or n_leaves,
                trees=settings.trees,
                split=settings.split,
                seed=settings.seed,
                centred=settings.metric == "euclidean",
            )
            if n_limbs:
                forest = grow_limbs(users, forest, n_leaves, settings)
            plan = plan_join(forest, samples["plan"].vectors, settings.probes, rows=users.rows, cores=cores)
            facts += [f"{plan.n_leaves:,} leaves in {plan.n_partitions} partitions for {cores} cores"]
        doing = f"routing to {settings.probes:g} leaves a tree, joining in {plan.n_partitions} partitions, merging"
        with clock.step("join", doing) as facts:
            shipped = watch_shipped(ship_vectors(users.table, forest, plan), meter)
            merge_in = count_merge_partitions(users.rows, plan.copies, settings.k, users.id_bytes, cores)
            candidates = watch_joined(join_partitions(shipped, plan, merge_in, users.dim, settings), meter)
            most = min(settings.k, users.rows - 1)
            neighbors = watch_merged(merge_neighbors(candidates, merge_in, settings.k), most, meter)
            table = keep(shaped(neighbors, settings))
            written = count_users(table, settings)
            seen = read_meter(meter, users.id_bytes, most)
            # A user without neighbors has no row of the long shape.
            require_complete(written + (seen["lonely"] if settings.shape == "long" else 0), users)
            facts += [f"{written:,} users"]
        with clock.step("audit") as facts:
            recall = audit_neighbors(table, samples["audit"], users, settings)
            facts += [f"recall@{recall.k} {recall.mean:.4f} of {recall.users:,} users"]
    report = Report(
        version=__version__,
        settings=asked,
        rows=Rows(users.read, users.rows, written, users.dropped, users.examples, seen["short"]),
        recall=recall,
        cost=Cost(round(seen["pairs"] / users.rows, 1), round(seen["copies"] / users.rows, 3), seen["shuffle_bytes"]),
        leaves=Leaves(plan.n_leaves, seen["max_rows"]),
        seconds=clock.total(),
    )
    return Result(table, report)
