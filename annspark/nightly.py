"""The nightly jobs: read the input by name, publish the table, its report and the index, each whole or not at all."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark import __version__
from annspark.errors import BuildNeeded, RecallMissed, SettingsError, spark_errors_explained
from annspark.hide import hidden_values
from annspark.index import OF_QUERIES, OF_UPDATE, settings_for
from annspark.index_changes import Saved
from annspark.index_reader import read_index
from annspark.index_writer import check_index, write_aside
from annspark.indexing import index_of
from annspark.input.given import select_candidates
from annspark.input.open import open_input, version_read
from annspark.job import FitJob, Job, QueryJob, UpdateJob
from annspark.neighbors import Built, build_between
from annspark.output import publish
from annspark.output.outputs import Output, Pending
from annspark.pipeline import fit, require_recall, start_run
from annspark.query import ask
from annspark.rebuild import require_rows, require_same
from annspark.report import Report, versions
from annspark.report.store import reports_once_done, require_folder, write_missed
from annspark.run import Run
from annspark.saved.manifest import Manifest, find_index, read_manifest
from annspark.spark import files, leftovers
from annspark.spark.staging import Stage, staging
from annspark.spark.steps import Steps, digest_of, forget_steps, steps_kept
from annspark.update import finish_update, on_drift, require_updatable, update
from annspark.uses.jobs import UseJob

logger = logging.getLogger("annspark")


@spark_errors_explained()
def publish_neighbors(spark: SparkSession, job: Job, told: dict[str, Any] | None = None) -> Report:
    """Read the job's input, and publish the neighbor table, its report and the index; each appears whole or not at all.

    told : the report of the night whose table is to be built again; None for a new table

    Raises as build_neighbors does, SettingsError for an output, index, report or scratch that cannot be written to, and
    InputError for a table that is not the one of the night told of.
    """
    index = check_index(spark, job.index, job.overwrite) if job.index else None
    with ready_to_write(spark, job, job.overwrite) as ready, ExitStack() as opened:
        if index:
            opened.enter_context(publish.aside(spark, index))
        vectors = open_input(spark, job.input, job.format, version=job.input_version)
        if told:
            require_rows(told, vectors.count())
        others = open_input(spark, job.candidates, job.format, role="candidates") if job.candidates else None
        publish.require_apart(spark, ready.output, vectors, job.input)
        if others is not None and job.candidates:
            publish.require_apart(spark, ready.output, others, job.candidates, "candidates")
        pairs = _open_pairs(spark, job, ready)
        tables = [table for table in (vectors, others, pairs) if table is not None]
        steps = opened.enter_context(_steps_of(spark, job, ready.output, tables))
        run = start_run(spark, ready.stage, ready.keep, steps, version_read(vectors, job.input, job.input_version))
        built = build_between(vectors, others, job.settings, _asked(job), run, pairs, keep=index is not None)
        if told:
            require_same(told, json.loads(built.result.report.as_json()))
        _publish_built(ready, built, index, run)
    return built.result.report


def _publish_built(ready: "Ready", built: Built, index: Output | None, run: Run) -> None:
    """Publish a table that was built, and the index with it where there is a place for one."""
    _require_recall(ready, built.result.report, built.advice)
    more = []
    if index:
        with run.clock.step("index", "writing the index"):
            indexed = built.index()
            if indexed.kept:
                indexed = replace(indexed, kept=replace(indexed.kept, table=ready.fingerprint(built.result.table)))
            more = [write_aside(ready.spark, indexed, index, run.cores)]
    _publish(ready, built.result.table, built.result.report, run, more)


@spark_errors_explained()
def publish_update(spark: SparkSession, job: UpdateJob) -> Report:
    """Read the job's input, and publish its neighbors, the report and the index anew, all of them or none.

    What has not changed since the index was made is not joined again.  Where the recall is missed or the rows do not
    fit the index any more, and rebuild_if_missed is set, table and index are built anew.

    Raises as build_neighbors does, InputError for a folder that holds no index, and SettingsError for an index that
    cannot be updated, for an output that does not go with it, and for a report or scratch that cannot be written to.
    """
    folder = find_index(files.resolve(spark, "index", job.index))
    old = Saved(folder, read_manifest(folder))
    indexed = read_index(spark, folder, old.manifest)
    settings = settings_for(indexed.settings, job.settings, OF_UPDATE, "update")
    kept = require_updatable(indexed, job.index, settings, has_excluded=job.exclude is not None)
    index = check_index(spark, job.index, overwrite=True)
    with ready_to_write(spark, job, True, settings.shape) as ready, publish.aside(spark, index):
        if publish.fingerprint_at(spark, ready.output) != kept.table:
            raise SettingsError(
                f"output {job.output!r} is not the table that was published with the index {job.index!r}. Give that "
                "table, or make both anew: annspark build --index --overwrite."
            )
        vectors = open_input(spark, job.input, job.format, version=job.input_version)
        publish.require_apart(spark, ready.output, vectors, job.input)
        pairs = _open_pairs(spark, job, ready)
        version = version_read(vectors, job.input, job.input_version)
        run = start_run(spark, ready.stage, ready.keep, input_version=version)
        asked = {name: value for name, value in asdict(job).items() if name != "settings"} | asdict(settings)
        pending = Pending(spark, f"{index.aside}/index", index)
        files.make_folder(pending.name)
        try:
            tonight = update(vectors, indexed, old, pending.name, job.index, settings, asked, run, pairs)
            result = tonight.joined.result
            _require_recall(ready, result.report, tonight.joined.advice or on_drift(settings))
        except (BuildNeeded, RecallMissed) as error:
            if not job.rebuild_if_missed:
                raise
            logger.info("%s", error)
            logger.info("update: table and index are built anew")
            files.remove(pending.name)
            built = build_between(vectors, None, settings, asked, run, pairs, keep=True)
            _publish_built(ready, built, index, run)
            return built.result.report
        finish_update(tonight, pending.name, job.index, ready.fingerprint(result.table))
        _publish(ready, result.table, result.report, run, [pending])
    return result.report


@spark_errors_explained()
def publish_index(spark: SparkSession, job: FitJob) -> Manifest:
    """Read the job's input, and save an index of it; the index appears whole or not at all.

    Raises as fit does, and SettingsError for an index or scratch that cannot be written to.
    """
    output = check_index(spark, job.index, job.overwrite)
    with publish.aside(spark, output), staging(job.scratch, spark) as stage:
        run = start_run(spark, stage, stage)
        vectors = open_input(spark, job.input, job.format, version=job.input_version)
        publish.require_apart(spark, output, vectors, job.input)
        tuned = fit(select_candidates(vectors, job.settings.candidate_col), job.settings, run)
        with run.clock.step("index", "writing the index"):
            pending = write_aside(spark, index_of(tuned), output, run.cores)
        with run.clock.step("publish") as facts, publish.undisturbed(output):
            publish.commit(pending)
            facts += [output.place]
    return read_manifest(find_index(output.place))


@spark_errors_explained()
def publish_queries(spark: SparkSession, job: QueryJob) -> Report:
    """Read the job's queries, and publish their neighbors in the index, and the report, whole or not at all.

    Raises as Index.query does, InputError for a folder that holds no index, and SettingsError for an output, report or
    scratch that cannot be written to.
    """
    folder = find_index(files.resolve(spark, "index", job.index))
    indexed = read_index(spark, folder, read_manifest(folder))
    settings = settings_for(indexed.settings, job.settings, OF_QUERIES, "query")
    with ready_to_write(spark, job, job.overwrite, settings.shape) as ready:
        table = open_input(spark, job.input, job.format, version=job.input_version)
        publish.require_apart(spark, ready.output, table, job.input)
        pairs = _open_pairs(spark, job, ready)
        version = version_read(table, job.input, job.input_version)
        run = start_run(spark, ready.stage, ready.keep, input_version=version)
        places = {name: value for name, value in asdict(job).items() if name != "settings"}
        answered = ask(table, indexed, settings, places | asdict(settings), run, exclude=pairs)
        _require_recall(ready, answered.result.report, answered.advice)
        _publish(ready, answered.result.table, answered.result.report, run, [])
    return answered.result.report


def sweep() -> None:
    """Delete again what failed runs of this process wrote aside: Spark may write it anew until it is stopped."""
    leftovers.sweep()


@dataclass(frozen=True)
class Ready:
    """A job that can write its table and report.

    output  : where the table is to be published
    folder  : of the report
    stage   : computes and stores a table that is read only within the run
    written : tables written aside so far
    """

    spark: SparkSession
    output: Output
    folder: str
    stage: Stage
    written: list[Pending] = field(default_factory=list)

    def keep(self, table: DataFrame) -> DataFrame:
        """Write a table aside, and return a DataFrame that reads it."""
        self.written.append(publish.write_pending(table, self.output))
        return self.written[-1].read()

    def pending(self, table: DataFrame) -> Pending:
        """Return the table written aside that a DataFrame reads."""
        return next(pending for pending in self.written if pending.table is table)

    def fingerprint(self, table: DataFrame) -> str:
        """Return what will tell a table written aside from others, once it is published."""
        return publish.fingerprint_to_come(self.pending(table))


@contextmanager
def ready_to_write(
    spark: SparkSession, job: Job | QueryJob | UpdateJob | UseJob, overwrite: bool, shape: str | None = None
) -> Iterator[Ready]:
    """Prove before any work that the job can write its table and report; delete what was written aside at the end.

    shape : of the table; None for that of the job's settings
    """
    output = publish.check_output(spark, job.output, overwrite, job.format)
    folder = job.report or output.report
    files.require_whole_name(spark, "report", folder)
    files.learn(spark, folder)
    require_folder(folder, job.report)
    shape = shape or (job.settings.shape if isinstance(job, Job) else "nested")
    with publish.aside(spark, output), staging(job.scratch, spark) as stage:
        publish.require_format(spark, output, shape)
        yield Ready(spark, output, folder, stage)


def _open_pairs(spark: SparkSession, job: Job | QueryJob | UpdateJob, ready: Ready) -> DataFrame | None:
    """Return the job's table of excluded pairs, None where it names none."""
    if job.exclude is None:
        return None
    pairs = open_input(spark, job.exclude, job.format, role="exclude")
    publish.require_apart(spark, ready.output, pairs, job.exclude, "exclude")
    return pairs


@contextmanager
def _steps_of(spark: SparkSession, job: Job, output: Output, tables: list[DataFrame]) -> Iterator[Steps]:
    """Yield the steps that the job keeps; without resume none, and those of a dead run are deleted.

    tables : that the job reads
    """
    if job.scratch is None:
        yield Steps(spark)
        return
    scratch = files.resolve(spark, "scratch", job.scratch)
    if not job.resume:
        forget_steps(scratch, output.place)
        yield Steps(spark)
        return
    software = {"annspark": __version__} | versions(spark.version)
    with steps_kept(spark, scratch, output.place, digest_of(software | asdict(job.settings), tables)) as steps:
        yield steps


def _require_recall(ready: Ready, report: Report, advice: str) -> None:
    """Write missed.json and raise RecallMissed where the recall was missed."""
    if not report.passed:
        write_missed(ready.folder, report)
        require_recall(report, advice)


def _publish(ready: Ready, table: DataFrame, report: Report, run: Run, more: list[Pending]) -> None:
    """Put the table and what else was written aside in place, and write the report.

    The table comes last: a place that somebody has taken meanwhile raises SettingsError, and no table may appear
    without its report.
    """
    quietly = partial(publish.undisturbed, ready.output, *(pending.output for pending in more))
    with run.clock.step("publish") as facts, reports_once_done(ready.folder, report, quietly):
        done = []
        try:
            for pending in (*more, replace(ready.pending(table), properties=_properties(report))):
                publish.commit(pending)
                done.append(pending)
        except BaseException:  # the index goes with the table, so that it is not published alone
            for pending in done:
                publish.take_back(pending)
            raise
        facts += [ready.output.place, *(pending.output.place for pending in more), f"report in {ready.folder}"]


def _properties(report: Report) -> dict[str, str]:
    """Return what a published table says of itself in the catalog, or in its commit."""
    settings = hidden_values(report.settings)
    told = {name: settings.get(name) for name in ("input", "metric", "k", "seed")}
    told |= {"version": report.version, "recall": round(report.recall.mean, 4), "input_version": report.input_version}
    return {f"annspark.{name}": str(value) for name, value in told.items() if value is not None}


def _asked(job: Job) -> dict[str, Any]:
    return {name: value for name, value in asdict(job).items() if name != "settings"} | asdict(job.settings)
