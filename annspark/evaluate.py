"""Evaluate: audit any neighbor table against the vectors it was made from."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from annspark import __version__
from annspark.allowed import require_no_credentials
from annspark.core.recall import measure_recall, recall_by_user
from annspark.errors import InputError, spark_errors_explained
from annspark.flow.audit import limit_of, spreads_of
from annspark.flow.exact import find_exact
from annspark.flow.foreign_table import look_up
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from annspark.input.given import require_table
from annspark.input.open import open_input
from annspark.report import Report, Rows, versions
from annspark.report.store import reports_once_done, require_folder
from annspark.run import Clock
from annspark.settings import Settings
from annspark.spark import files
from annspark.spark.cluster import cluster_of, count_cores
from annspark.spark.partitions import estimate_bytes, put_together
from annspark.spark.staging import staging


@spark_errors_explained()
def evaluate(
    spark: SparkSession,
    settings: Settings,
    *,
    input: str,
    neighbors: str,
    format: str | None = None,
    report: str | None = None,
    scratch: str | None = None,
) -> Report:
    """Evaluate the neighbor table at a path or catalog name, and write the report where a folder for it is given.

    Raises as evaluate_neighbors does, and SettingsError for a folder that cannot be written to.
    """
    names = {"input": input, "neighbors": neighbors, "format": format, "report": report, "scratch": scratch}
    for name, place in names.items():
        require_no_credentials(name, place)
    if report:
        files.require_whole_name(spark, "report", report)
        files.learn(spark, report)
        require_folder(report, report)
    vectors = open_input(spark, input, format)
    table = open_input(spark, neighbors, format, role="neighbors")
    found = evaluate_neighbors(vectors, table, settings, names | asdict(settings), scratch)
    if report:
        with reports_once_done(report, found):
            pass
    return found


@spark_errors_explained()
def evaluate_neighbors(
    vectors: DataFrame, neighbors: DataFrame, settings: Settings, asked: dict[str, Any], scratch: str | None = None
) -> Report:
    """Return a report on any neighbor table, of annspark or another system; its distances are computed anew.

    vectors   : as for build_neighbors
    neighbors : a row per user with an array `neighbors` of ids or of structs with neighbor_id, or a row per neighbor
                with neighbor_id and rank or distance
    asked     : settings as the report gives them
    Raises InputError for tables that cannot be used, and for an input of a single user.
    """
    vectors, neighbors = require_table(vectors), require_table(neighbors, "neighbors")
    clock = Clock()
    with staging(scratch, vectors.sparkSession) as stage:
        with clock.step("read") as facts:
            cores = count_cores(vectors.sparkSession)
            users = read_vectors(vectors, settings, stage, cores)
            facts += [f"{users.rows:,} users of {users.wire.dim:,} numbers"]
        if users.rows == 1:
            raise InputError("input: a single user has no neighbors to evaluate.")
        k = min(settings.k, users.rows - 1)
        with clock.step("exact") as facts:
            users, (sample,) = sample_vectors(users, [settings.audit_users])
            (nearest,) = find_exact(users, [sample], k)
            facts += [f"exact neighbors of {len(sample.ids):,} users"]
        with clock.step("audit") as facts:
            together = put_together(neighbors, estimate_bytes(neighbors), cores)
            found = look_up(together, sample, users, settings)
            wanted = np.isfinite(nearest.distances).sum(axis=1)  # fewer than k in small groups
            limit = limit_of(nearest.radius, sample, users)
            recall = measure_recall(recall_by_user(found.distances, limit, wanted), k, found.popularity)
            facts += [f"recall@{recall.k} {recall.mean:.4f} of {recall.users:,} users"]
            facts += [f"{n:,} x {fault}" for fault, n in found.faults.items()]
    short = round(float(np.isinf(found.distances[:, -1]).mean()) * users.rows)
    return Report(
        version=__version__,
        versions=versions(vectors.sparkSession.version),
        cluster=cluster_of(vectors.sparkSession, cores),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asked,
        rows=Rows(
            read=users.read,
            valid=users.rows,
            written=found.rows,
            dropped=users.dropped,
            examples=users.examples,
            short=short,
        ),
        recall=recall,
        calibration=None,
        topped_up=0,
        distances=spreads_of(found.distances),
        precision=None,
        cost=None,
        leaves=None,
        seconds=clock.total(),
    )
