"""The index: fit it once, then ask it for the neighbors of its own rows, of other tables, or save it for later."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from annspark.errors import SettingsError, spark_errors_explained
from annspark.flow.groups import with_groups
from annspark.index_changes import Saved
from annspark.index_reader import read_index
from annspark.index_writer import check_index, write_aside
from annspark.indexing import index_of
from annspark.input.given import require_table, select_candidates
from annspark.job import folder_name_if_any, require_folder_name
from annspark.output import publish
from annspark.output.outputs import Pending
from annspark.pipeline import Result, build_tuned, exclude_pairs, require_recall, start_run, tune
from annspark.pipeline import fit as fit_tuned
from annspark.query import ask
from annspark.saved.manifest import Manifest, find_index, read_manifest
from annspark.settings import Settings, make_settings, require_known, settings_of_candidates, takes_settings
from annspark.spark import files
from annspark.spark.cluster import count_cores
from annspark.spark.staging import staging
from annspark.tuned import Indexed, Tuned
from annspark.update import finish_update, on_drift, update

OF_NEIGHBORS = ("k", "recall", "probes", "shape", "audit_users", "top_up", "max_distance", "links")
OF_QUERIES = (
    *("k", "id_col", "vector_col", "values_col", "recall", "probes", "same_ids"),
    *("shape", "on_bad_row", "audit_users", "max_distance"),
)
OF_UPDATE = ("on_bad_row", "audit_users", "top_up")


@dataclass(frozen=True)
class Updated(Result):
    """The neighbor table of the rows as they are now, the report on it, and the index of these rows."""

    index: "Index"


class Index:
    """Indexed rows in the leaves of a forest, which can be searched.

    It keeps its rows in the session's cache, or in scratch, until close() is called; use it in a with statement.  A
    loaded index reads them from its files.
    """

    def __init__(
        self,
        spark: SparkSession,
        indexed: Indexed,
        tuned: Tuned | None,
        opened: ExitStack,
        folder: str | None = None,
        manifest: Manifest | None = None,
    ):
        self._spark, self._indexed, self._tuned, self._opened = spark, indexed, tuned, opened
        self._folder, self._manifest = folder, manifest  # of a loaded one
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
            users = with_groups(users, self.settings, stage, forest)
            users = exclude_pairs(users, pairs, users.id_kind, asked, run)
            known = self._tuned_for(asked) if pairs is None else None
            joined = build_tuned(known or tune(users, asked, run, forest), asdict(asked), run)
            require_recall(joined.result.report, joined.advice)
        return joined.result

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
                   type.  Where the index has groups, the queries have its columns of groups, too; one of a group that
                   the index does not have gets no neighbors
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
    def update(
        self,
        vectors: DataFrame,
        path: str | PathLike[str] | None = None,
        *,
        exclude: DataFrame | None = None,
        overwrite: bool = False,
        scratch: str | PathLike[str] | None = None,
        **settings: Any,
    ) -> Updated:
        """Return the neighbors of the rows as they are now, with a report and an index of them; save that index.

        vectors   : the table of rows, of which some may be new, others changed or gone since the index was made
        path      : folder to save the new index in.  Default: that of this index, if it was loaded, which is replaced
        exclude   : all pairs that must not be in the table, as for build_neighbors.  An index that was made with pairs
                    needs them, if only an empty table
        overwrite : replace an index that is at path
        settings  : on_bad_row, audit_users and top_up, as for build_neighbors.  Default: those of the index
        scratch   : as for build_neighbors

        The forest and the probes stay, and the table is the one that a join of all rows gives with these, to the bit.
        Only rows that are new or changed are joined, those that do not exclude the same others any more, and some that
        have lost neighbors.  All rows are joined where more than a quarter has changed, and where the index keeps no
        lists of neighbors: `annspark build --index` and this call keep them, fit does not.

        With candidate_col, a row that may be a neighbor now and might not before has changed, or the other way round.
        The rows that are not joined are still sent through the forest, to find those that go to a leaf with a new
        candidate.  This costs a build's routing, but neither its shuffle nor its join.

        An index that was written anew since it was loaded has to be loaded again before: SettingsError says so.

        Raises what build_neighbors raises: RecallMissed says that the rows have drifted from the forest, so that a new
        index is needed.  Raises BuildNeeded, an InputError, for rows that this index cannot hold.
        """
        self._require_open()
        table, asked = require_table(vectors), settings_for(self.settings, settings, OF_UPDATE, "update")
        pairs = None if exclude is None else require_table(exclude, "exclude")
        if path is None and self._folder is None:
            raise SettingsError("'path' is not given, and this index is in no folder. Give a folder for the new index.")
        place = require_folder_name("path", path or self._folder)
        output = check_index(self._spark, place, overwrite or path is None)
        old = self._saved()
        with (
            publish.aside(self._spark, output),
            staging(folder_name_if_any("scratch", scratch), self._spark) as stage,
        ):
            run = start_run(self._spark, stage, partial(stage, keep=True))
            pending = Pending(self._spark, f"{output.aside}/index", output)
            files.make_folder(pending.name)
            tonight = update(table, self._indexed, old, pending.name, place, asked, asdict(asked), run, pairs)
            joined = tonight.joined
            require_recall(joined.result.report, joined.advice or on_drift(asked))
            finish_update(tonight, pending.name, place, "")
            with publish.undisturbed(output):
                publish.commit(pending)
        return Updated(joined.result.table, joined.result.report, load(self._spark, place))

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

    def _saved(self) -> Saved | None:
        """Return where the index is and its files; None for one that was not loaded.

        Raises SettingsError where others are there by now: the forest that was loaded does not go with these.
        """
        if self._folder is None or self._manifest is None:
            return None
        saved = Saved(folder := find_index(self._folder), read_manifest(folder))
        if saved.manifest.files != self._manifest.files:  # their names have marks of the run that wrote them
            raise SettingsError(
                f"index {self._folder!r}: it was written anew since it was loaded, by a build or an update. Load it "
                "again, or go on with the index that update() returned."
            )
        return saved

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
    folder = files.resolve(spark, "index", require_folder_name("path", path, "the folder of an index"))
    manifest = read_manifest(place := find_index(folder))
    return Index(spark, read_index(spark, place, manifest), None, ExitStack(), folder, manifest)


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
