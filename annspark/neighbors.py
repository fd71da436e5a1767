"""The one call for a neighbor table: of one table with itself, or of users among candidates of another table."""

from dataclasses import asdict, replace
from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame

from annspark.errors import SettingsError, spark_errors_explained
from annspark.indexing import index_candidates
from annspark.input.given import require_table
from annspark.job import require_folder_name
from annspark.pipeline import Result, build, require_recall, start_run
from annspark.query import ask
from annspark.run import Run
from annspark.settings import Settings, make_settings, takes_settings
from annspark.spark.staging import staging


@spark_errors_explained()
@takes_settings
def build_neighbors(
    vectors: DataFrame,
    *,
    candidates: DataFrame | None = None,
    scratch: str | PathLike[str] | None = None,
    **settings: Any,
) -> Result:
    """Return every user's approximate k nearest neighbors and a report with their measured recall.

    vectors     : DataFrame of a classic or a Connect session. Ids are of any type that has an order. Vectors are arrays
                  of numbers or MLlib vectors; sparse ones also map<int, float>, struct<indices, values>, or sets
                  array<int>
    {settings}
    candidates  : DataFrame of the rows that may be neighbors, such as items for users. Default: the users themselves.
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
    asked = make_settings(settings, "candidates", "scratch")
    require_pairing(asked, candidates is not None)
    others = None if candidates is None else require_table(candidates, "candidates")
    with staging(require_folder_name("scratch", scratch), vectors.sparkSession) as stage:
        run = start_run(vectors.sparkSession, stage, partial(stage, keep=True))
        result, advice = build_between(vectors, others, asked, asdict(asked), run)
        require_recall(result.report, advice)
    return result


def build_between(
    vectors: DataFrame, candidates: DataFrame | None, settings: Settings, asked: dict[str, Any], run: Run
) -> tuple[Result, str]:
    """Build and audit the neighbor table of users among candidates, or among themselves where there are none.

    asked   : settings as the report gives them
    returns : as pipeline.build
    """
    if candidates is None:
        return build(vectors, settings, asked, run)
    return ask(vectors, index_candidates(candidates, settings_of_candidates(settings), run), settings, asked, run)


def settings_of_candidates(settings: Settings) -> Settings:
    """Return the settings for candidates, whose columns may have other names than those of users."""
    return replace(
        settings,
        id_col=settings.candidate_id_col or settings.id_col,
        vector_col=settings.candidate_vector_col or settings.vector_col,
        candidate_id_col=None,
        candidate_vector_col=None,
    )


def require_pairing(settings: Settings, has_candidates: bool) -> None:
    """Raise SettingsError for settings that go with candidates where there are none, or do not go with them."""
    if has_candidates:
        for name, value in (("links", settings.links != "all"), ("top_up", settings.top_up)):
            if value:
                raise SettingsError(
                    f"'{name}' is {getattr(settings, name)!r}, and candidates are given: they have no lists of their "
                    f"own. Leave '{name}' out."
                )
        return
    for name in ("candidate_id_col", "candidate_vector_col", "same_ids"):
        if getattr(settings, name):
            raise SettingsError(
                f"'{name}' is {getattr(settings, name)!r}, and there are no candidates. Give 'candidates', or leave "
                f"'{name}' out."
            )
