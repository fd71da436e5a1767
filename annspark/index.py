"""The index: fit it once, then ask it for the neighbors of its own rows, of other tables, or save it for later."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, spark_errors_explained
from annspark.index_reader import read_index
from annspark.index_writer import check_index, write_aside
from annspark.indexing import index_of
from annspark.input.given import require_table, select_candidates
from annspark.job import folder_name_if_any, require_folder_name
from annspark.output import publish
from annspark.pipeline import Result, build_tuned, exclude_pairs, require_recall, start_run, tune
from annspark.pipeline import fit as fit_tuned
from annspark.query import ask
from annspark.settings import Settings, make_settings, require_known, settings_of_candidates, takes_settings
from annspark.spark import files
from annspark.spark.cluster import count_cores
from annspark.spark.staging import staging
from annspark.tuned import Indexed, Tuned

OF_NEIGHBORS = ("k", "recall", "probes", "shape", "audit_users", "top_up", "max_distance", "links")
OF_QUERIES = (
    *("k", "id_col", "vector_col", "values_col", "recall", "probes", "same_ids"),
    *("shape", "on_bad_row", "audit_users", "max_distance"),
)


class Index:
    """Indexed rows in the leaves of a forest, which can be searched.

    It keeps its rows in the session's cache, or in scratch, until close() is called; use it in a with statement.  A
    loaded index reads them from its files.
    """

    def __init__(self, spark: SparkSession, indexed: Indexed, tuned: Tuned | None, opened: ExitStack):
        self._spark, self._indexed, self._tuned, self._opened = spark, indexed, tuned, opened
        self._closed = False

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._indexed.users.rows

    def __repr__(self) -> str:
        users = self._indexed.users
        return f"Index({users.rows:,} rows of {users.wire.dim:,} numbers, {self.settings.metric})"

    @property
    def settings(self) -> Settings:
        """The settings it was fitted with."""
        return self._indexed.settings

    @spark_errors_explained()
    def neighbors(
        self, *, exclude: DataFrame | None = None, scratch: str | PathLike[str] | None = None, **settings: Any
    ) -> Result:
        """Return the neighbors of the indexed rows among themselves: the table and report of build_neighbors.

        settings : k, recall, probes, shape, audit_users, top_up, max_distance and links, as for build_neighbors.
                   Default: those of the index.  The table of the default settings is build_neighbors' to the bit
        exclude  : as for build_neighbors
        scratch  : as for build_neighbors

        Raises what build_neighbors raises.
        """
        self._require_open()
        asked = settings_for(self.settings, settings, OF_NEIGHBORS, "neighbors")
        asked.require_pairing(has_candidates=False, has_excluded=exclude is not None)
        pairs = None if exclude is None else require_table(exclude, "exclude")
        with staging(folder_name_if_any("scratch", scratch), self._spark) as stage:
            run = start_run(self._spark, stage, partial(stage, keep=True))
            users, forest = self._indexed.users, self._indexed.forest
            users = exclude_pairs(users, pairs, users.id_kind, asked, run)
            known = self._tuned_for(asked) if pairs is None else None
            result, advice = build_tuned(known or tune(users, asked, run, forest), asdict(asked), run)
            require_recall(result.report, advice)
        return result

    @spark_errors_explained()
    def query(
        self,
        queries: DataFrame,
        *,
        exclude: DataFrame | None = None,
        scratch: str | PathLike[str] | None = None,
        **settings: Any,
    ) -> Result:
        """Return the nearest indexed rows of every row of a table, and a report with their measured recall.

        queries  : DataFrame with vectors of the same kind and length as the indexed ones.  Its ids may be of another
                   type
        settings : k, recall, probes, shape, audit_users, max_distance, on_bad_row, id_col, vector_col and values_col,
                   as for build_neighbors.  Default: those of the index, whose vector_cols the queries have, too
        same_ids : leave out the indexed row that has the id of the query.  Default: False, equal ids are different
                   things
        exclude  : pairs of a query and an indexed row that must not be in the table, as for build_neighbors
        scratch  : as for build_neighbors

        The table is as that of build_neighbors, with a list for every valid query.  The probes are chosen by sampled
        queries, and the recall is audited on others.  Raises what build_neighbors raises.
        """
        self._require_open()
        table = require_table(queries, "queries")
        pairs = None if exclude is None else require_table(exclude, "exclude")
        asked = settings_for(self.settings, settings, OF_QUERIES, "query")
        with staging(folder_name_if_any("scratch", scratch), self._spark) as stage:
            run = start_run(self._spark, stage, partial(stage, keep=True))
            answered = ask(table, self._indexed, asked, asdict(asked), run, exclude=pairs)
            require_recall(answered.result.report, answered.advice)
        return answered.result

    @spark_errors_explained()
    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Save the index in a folder, whole or not at all.

        path      : the folder, on a file system that the driver and the executors reach through PyArrow
        overwrite : replace an index that is there

        Raises SettingsError for a folder that cannot be written to, or holds anything that may not be replaced.
        """
        self._require_open()
        output = check_index(self._spark, require_folder_name("path", path), overwrite)
        with publish.aside(self._spark, output):
            pending = write_aside(self._spark, self._indexed, output, count_cores(self._spark))
            with publish.undisturbed(output):
                publish.commit(pending)

    def close(self) -> None:
        """Give back what the index keeps in the session's cache or in scratch; it cannot be used any more."""
        self._closed = True
        self._opened.close()

    def _require_open(self) -> None:
        if self._closed:
            raise SettingsError("this index is closed. Fit it or load it again, and use it before close().")

    def _tuned_for(self, settings: Settings) -> Tuned | None:
        """Return what the fit has found, with other settings that do not change it; None where they change it."""
        if self._tuned is None:
            return None
        changed = {name: getattr(self._tuned.settings, name) for name in ("shape", "top_up", "max_distance", "links")}
        return replace(self._tuned, settings=settings) if replace(settings, **changed) == self._tuned.settings else None


@spark_errors_explained()
@takes_settings
def fit(vectors: DataFrame, *, scratch: str | PathLike[str] | None = None, **settings: Any) -> Index:
    """Return an index of the rows of a table, which can be searched, saved, and turned into a neighbor table.

    vectors     : as for build_neighbors
    {settings}
    scratch     : Folder for the index' rows, on file systems the executors share. Default: none, they are cached in
                  the session.

    The number of probes is chosen for k and recall, for the rows among themselves and for queries like them. Raises
    what build_neighbors raises but RecallMissed.
    """
    vectors = require_table(vectors)
    asked = make_settings(settings, "scratch")
    asked.require_pairing(has_candidates=False)
    asked.require_indexable()
    spark = vectors.sparkSession
    with ExitStack() as opening:
        stage = opening.enter_context(staging(folder_name_if_any("scratch", scratch), spark))
        rows = select_candidates(vectors, asked.candidate_col)
        tuned = fit_tuned(rows, asked, start_run(spark, stage, partial(stage, keep=True)))
        return Index(spark, index_of(tuned), tuned, opening.pop_all())


@spark_errors_explained()
def load(spark: SparkSession, path: str | PathLike[str]) -> Index:
    """Return the index that was saved in a folder.

    Raises InputError where there is no index, or one that is newer than this code, damaged or not whole.
    """
    folder = require_folder_name("path", path, "the folder of an index")
    return Index(spark, read_index(spark, files.resolve(spark, "index", folder)), None, ExitStack())


def settings_for(own: Settings, given: dict[str, Any], names: tuple[str, ...], call: str) -> Settings:
    """Return the settings of an index with some changed.

    names : those that may be changed
    call  : what they are given to

    Raises SettingsError for other names, and for values that are not allowed.
    """
    of_index = sorted(set(given) & (set(Settings.__dataclass_fields__) - set(names)))
    if of_index:
        name = of_index[0]
        raise SettingsError(
            f"'{name}' cannot be given to {call}: the index was made with {name} {getattr(own, name)!r}. Leave it out, "
            "or make another index."
        )
    require_known(given, (*names, "scratch"))
    changed = dict(given)
    if changed.get("recall") is not None:
        changed.setdefault("probes", None)
    elif changed.get("probes") is not None:
        changed.setdefault("recall", None)
    if call == "query":
        kept = replace(own, links="all", top_up=False, max_distance=None)
    else:  # the rows of an index that a build with candidates has kept are the candidates
        kept = settings_of_candidates(own)
    return replace(kept, **{"same_ids": False} | changed)
