"""The nightly jobs of the uses: read tables by name, publish what is made of them and its report, both or neither."""

from dataclasses import asdict, replace

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import spark_errors_explained
from annspark.input.open import open_input
from annspark.nightly import Ready, ready_to_write
from annspark.output import publish
from annspark.run import Run
from annspark.spark import files
from annspark.spark.cluster import count_cores
from annspark.spark.steps import Steps
from annspark.uses.groups import find_groups
from annspark.uses.items import recommend_items
from annspark.uses.jobs import DuplicatesJob, OutliersJob, RecommendJob, UseJob, VoteJob
from annspark.uses.report import Used, UseReport, with_asked
from annspark.uses.scores import score_users
from annspark.uses.votes import label_users


@spark_errors_explained()
def publish_use(spark: SparkSession, job: UseJob) -> UseReport:
    """Read the job's tables, and publish what the use makes of them, and its report, both or neither.

    Raises as the use does, InputError for tables that cannot be read, and SettingsError for an output, report or
    scratch that cannot be written to.
    """
    with ready_to_write(spark, job, job.overwrite, "long") as ready:
        tables = {}
        for name in ("neighbors", *job.beside):
            place = getattr(job, name)
            if place is not None:
                tables[name] = open_input(spark, place, job.format, role=name)
                publish.require_apart(spark, ready.output, tables[name], place, name)
        run = Run(count_cores(spark), ready.stage, ready.keep, Steps(spark))
        used = _made(job, tables, run)
        report = with_asked(used.report, {name: value for name, value in asdict(job).items() if name != "settings"})
        _publish(ready, used.table, report, run)
    return report


def _made(job: UseJob, tables: dict[str, DataFrame], run: Run) -> Used:
    neighbors = tables["neighbors"]
    match job:
        case RecommendJob():
            return recommend_items(neighbors, tables["interactions"], job.settings, run)
        case DuplicatesJob():
            return find_groups(neighbors, tables.get("priorities"), job.settings, run)
        case OutliersJob():
            return score_users(neighbors, job.settings, run)
        case VoteJob():
            return label_users(neighbors, tables["labels"], job.settings, run)
        case _:
            raise TypeError(f"no use is made by a {type(job).__name__}")


def _publish(ready: Ready, table: DataFrame, report: UseReport, run: Run) -> None:
    """Put the table in place, and write the report."""
    path = f"{ready.folder}/report.json"
    with (
        run.clock.step("publish") as facts,
        publish.undisturbed(ready.output),
        files.text_once_done(path, report.as_json()),
    ):
        publish.commit(replace(ready.pending(table), properties={"annspark.version": report.version}))
        facts += [ready.output.place, f"report in {ready.folder}"]
