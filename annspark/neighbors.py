"""The one call for a neighbor table: of one table with itself, or of users among candidates of another table."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame

from annspark.errors import spark_errors_explained
from annspark.indexing import index_candidates, index_for_queries, index_of
from annspark.input.given import require_table, select_candidates
from annspark.job import folder_name_if_any
from annspark.pipeline import Result, build_tuned, fit, require_recall, start_run
from annspark.query import ask
from annspark.run import Run
from annspark.settings import Settings, make_settings, settings_of_candidates, takes_settings
from annspark.spark.staging import staging
from annspark.tuned import Indexed


@spark_errors_explained()
@takes_settings
def build_neighbors(
    vectors: DataFrame,
    *,
    candidates: DataFrame | None = None,
    exclude: DataFrame | None = None,
    scratch: str | PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Return every user's approximate k nearest neighbors and a report with their measured recall.

    vectors     : DataFrame of a classic or a Connect session. Ids are of any type that has an order. Vectors are arrays
                  of numbers or MLlib vectors; sparse ones also map<int, float>, struct<indices, values>, or sets
                  array<int>
    {settings}
    candidates  : DataFrame of the rows that may be neighbors, such as items for users. Default: the users themselves.
    exclude     : DataFrame of pairs that must not be in the table: the column of ids, and neighbor_id. Each user still
                  gets k others, if there are as many. Default: no pairs.
    scratch     : Folder for intermediate tables, on file systems the executors share. Default: none, they are cached in
                  the session.

    The distance of the metric cosine is 1 - cos. hamming needs vectors of 0 and 1, or binary of bits; jaccard needs
    sets, or vectors as for hamming. Sparse vectors cannot be compared by manhattan or hamming.

    The nested table has the columns id and neighbors, array<struct<neighbor_id, distance>>. The long table has the
    columns id, rank, neighbor_id and distance. Either has every valid id, with min(k, number of other users) neighbors
    in the order of (distance, neighbor_id). No user is its own neighbor. The same data and seed give the same table,
    however the data is partitioned. The table stays cached, or in scratch, until the caller unpersists or deletes it.

    With candidates a neighbor is a candidate, and may have the id of the user, which names another thing unless
    same_ids is set. The forest is grown for the candidates; recall is calibrated and audited on users.

    Raises SettingsError for settings that cannot be used, InputError for data that cannot be used, RecallMissed, which
    has the report, when the audit shows that the recall asked for was not reached, and ClusterError when Spark lacks
    memory, disk space or what its Python workers need.
    """
    vectors = require_table(vectors)
    asked = make_settings(settings, "candidates", "exclude", "scratch")
    asked.require_pairing(candidates is not None, exclude is not None)
    others = None if candidates is None else require_table(candidates, "candidates")
    pairs = None if exclude is None else require_table(exclude, "exclude")
    with staging(folder_name_if_any("scratch", scratch), vectors.sparkSession) as stage:
        run = start_run(vectors.sparkSession, stage, partial(stage, keep=True))
        built = build_between(vectors, others, asked, asdict(asked), run, pairs)
        require_recall(built.result.report, built.advice)
    return built.result


@dataclass(frozen=True)
class Built:
    """A neighbor table with its report, and what an index may keep of the run.

    advice : for a missed recall, "" where it was reached
    index  : makes the index
    """

    result: Result
    advice: str
    index: Callable[[], Indexed]


def build_between(
    vectors: DataFrame,
    candidates: DataFrame | None,
    settings: Settings,
    asked: dict[str, Any],
    run: Run,
    exclude: DataFrame | None = None,
    *,
    keep: bool = False,
) -> Built:
    """Build and audit the neighbor table of users among candidates, or among themselves where there are none.

    asked   : settings as the report gives them
    exclude : pairs that must not be in the table
    keep    : the index will be kept, and is to keep what an update of it needs
    """
    if settings.candidate_col:
        candidates, settings = select_candidates(vectors, settings.candidate_col), replace(settings, same_ids=True)
    if candidates is None:
        tuned = fit(vectors, settings, run, exclude)
        joined = build_tuned(tuned, asked, run, keep=keep)
        return Built(joined.result, joined.advice, partial(index_of, tuned, joined.kept))
    indexed = index_candidates(candidates, settings_of_candidates(settings), run)
    keep = keep and settings.candidate_col is not None  # candidates of another table are not updated
    answered = ask(vectors, indexed, settings, asked, run, role="input", exclude=exclude, keep=keep)
    return Built(answered.result, answered.advice, partial(index_for_queries, indexed, answered.tuned, answered.kept))
