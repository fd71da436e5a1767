"""The nightly job: read the input by name, publish the neighbor table and its report, both whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import spark_errors_explained
from annspark.input.open import open_input
from annspark.job import Job
from annspark.output import publish
from annspark.pipeline import build, require_recall, start_run
from annspark.report import Report
from annspark.report.store import reports_once_done, require_folder, write_missed
from annspark.spark import files, leftovers
from annspark.spark.staging import Stage, staging


@spark_errors_explained()
def publish_neighbors(spark: SparkSession, job: Job) -> Report:
    """Read the job's input, and publish the neighbor table and its report; both appear whole or not at all.

    Raises as build_neighbors does, and SettingsError for an output, report or scratch that cannot be written to.
    """
    with ready_to_write(spark, job, job.overwrite) as (output, stage):
        written: list[publish.Pending] = []

        def keep(table: DataFrame) -> DataFrame:
            written.append(publish.write_pending(table, output, job.format))
            return written[-1].read()

        run = start_run(spark, stage, keep)
        vectors = open_input(spark, job.input, job.format)
        publish.require_apart(spark, output, vectors, job.input)
        result, advice = build(vectors, job.settings, _asked(job), run)
        folder = _report_folder(job, output)
        if not result.report.passed:
            write_missed(folder, result.report)
            require_recall(result.report, advice)
        quietly = partial(publish.undisturbed, output)
        with run.clock.step("publish") as facts, reports_once_done(folder, result.report, quietly):
            publish.commit(next(pending for pending in written if pending.table is result.table))
            facts += [output.place, f"report in {folder}"]
    return result.report


def sweep() -> None:
    """Delete again what failed runs of this process wrote aside: Spark may write it anew until it is stopped."""
    leftovers.sweep()


@contextmanager
def ready_to_write(spark: SparkSession, job: Job, overwrite: bool) -> Iterator[tuple[publish.Output, Stage]]:
    """Prove before any work that the job can write its table and report; delete what was written aside at the end."""
    output = publish.check_output(spark, job.output, overwrite)
    folder = _report_folder(job, output)
    files.require_whole_name(spark, "report", folder)
    require_folder(folder, job.report)
    with publish.aside(spark, output), staging(job.scratch, spark) as stage:
        publish.require_format(spark, output, job.format, job.settings.shape)
        yield output, stage


def _report_folder(job: Job, output: publish.Output) -> str:
    return job.report or output.report


def _asked(job: Job) -> dict[str, Any]:
    return {name: value for name, value in asdict(job).items() if name != "settings"} | asdict(job.settings)
