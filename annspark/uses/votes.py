"""Votes: the label of a row from the labels of its neighbors."""

from functools import partial
from os import PathLike
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError, SettingsError, spark_errors_explained
from annspark.input.given import require_table
from annspark.run import Run
from annspark.settings import make_record, takes
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.beside import require_column, require_one_row_each, require_same_type, select_beside
from annspark.uses.pairs import neighbor_lists, require_distances
from annspark.uses.report import Used, tell, use_in_session
from annspark.uses.settings import VoteSettings
from annspark.uses.sums import sum_in_order

_GIVEN, _PREDICTED, _SHARE, _VOTERS = "given", "predicted", "share", "voters"
_LABEL, _WEIGHT = "label", "weight"


@spark_errors_explained()
@takes(VoteSettings)
def vote(
    neighbors: DataFrame, labels: DataFrame, *, scratch: str | PathLike[str] | None = None, **settings: Any
) -> Used:
    """Return the label that each row's neighbors vote for, and how often that is right for labeled rows.

    neighbors : a neighbor table, in either shape
    labels    : a row per labeled row, with its id and its label; rows without a label may be left out
    {settings}
    scratch   : Folder for intermediate tables. Default: none, they are cached in the session.

    The table has a row for every row of the neighbor table: id_col, given (its label in labels, null for none),
    predicted, share (of the weight that is for the predicted label; only for classes) and voters (labeled neighbors).
    Where no neighbor is labeled, predicted is null and voters 0. Equal weights go to the smallest label.

    A row never votes for itself, so that for labeled rows predicted is a leave-one-out prediction. Twins of a row vote
    for it: if copies were not labeled one by one, the accuracy is too high.

    The report's facts: users, labeled (users with a label), without_voters (users whose neighbors have no labels),
    predicted (users without a label who got one), tested (labeled users with voters), and of these for classes
    accuracy and commonest (accuracy of always naming the commonest label); for numbers mean_error (absolute), rmse and
    spread (rmse of always naming the mean). They are null where no labeled row has voters.

    Raises SettingsError for settings that cannot be used and InputError for tables that cannot be used.
    """
    asked = make_record(VoteSettings, settings, "scratch")
    table, given = require_table(neighbors, "neighbors"), require_table(labels, "labels")
    return use_in_session(partial(label_users, table, given, asked), table.sparkSession, scratch)


def label_users(neighbors: DataFrame, labels: DataFrame, settings: VoteSettings, run: Run) -> Used:
    """Return the votes, as vote does."""
    if settings.weights == "distance":
        require_distances(neighbors, settings.id_col, "weights 'distance'")
    kind = require_column(labels, settings.label_col, "labels")
    if settings.predict == "number" and not isinstance(kind, T.NumericType):
        raise SettingsError(
            f"'predict' is 'number' and the labels in {settings.label_col!r} are {kind.simpleString()}. Cast them, or "
            "set 'predict' to 'class'."
        )
    if settings.predict == "class" and isinstance(kind, T.MapType):
        raise InputError(f"labels: {settings.label_col!r} is {kind.simpleString()}, which cannot be compared.")
    given = select_beside(labels, {settings.id_col: USER_ID, settings.label_col: _LABEL}, "labels")
    lists = neighbor_lists(neighbors, settings.id_col, settings.same_ids)
    require_same_type(lists, given, NEIGHBOR_ID, "labels", settings.id_col)
    with run.clock.step("read") as facts:
        given = run.stage(given.dropna())
        require_one_row_each(given, "labels", settings.id_col)
        if settings.k:
            lists = lists.select(USER_ID, F.slice(NEIGHBORS, 1, settings.k).alias(NEIGHBORS))
        lists = run.stage(lists)
        facts += [f"{given.count():,} labels"]
    with run.clock.step("vote") as facts:
        voted = _votes(_voters(lists, given, settings.weights), settings.predict)
        table = run.keep(_told(lists, given if settings.same_ids else given.limit(0), voted, settings))
        measured = _measured(table, settings.predict)
        facts += [f"{measured['users']:,} users"]
    return Used(table, tell("vote", settings, run, measured, _warnings(measured)))


def _voters(lists: DataFrame, given: DataFrame, weights: str) -> DataFrame:
    """Return the labeled neighbors of each user: user_id, label, weight."""
    pairs = lists.select(USER_ID, F.explode(NEIGHBORS).alias("neighbor")).select(USER_ID, "neighbor.*")
    voters = pairs.join(given.withColumnRenamed(USER_ID, NEIGHBOR_ID), NEIGHBOR_ID)
    if weights == "uniform":
        return voters.select(USER_ID, _LABEL, F.lit(1.0).alias(_WEIGHT))
    # As scikit-learn has it: beside a neighbor at distance 0 no other counts.
    near = F.when(F.col("nearest") == 0, (F.col(DISTANCE) == 0).cast("double")).otherwise(
        F.try_divide(F.lit(1.0), F.col(DISTANCE).cast("double"))
    )
    nearest = F.min(DISTANCE).over(Window.partitionBy(USER_ID))
    return voters.withColumn("nearest", nearest).select(USER_ID, _LABEL, near.alias(_WEIGHT))


def _votes(voters: DataFrame, predict: str) -> DataFrame:
    """Return user_id, predicted, share, voters."""
    if predict == "number":
        mean = sum_in_order(F.col(_LABEL).cast("double") * F.col(_WEIGHT)) / sum_in_order(F.col(_WEIGHT))
        share = F.lit(None).cast("double").alias(_SHARE)
        return voters.groupBy(USER_ID).agg(mean.alias(_PREDICTED), share, F.count("*").cast("int").alias(_VOTERS))
    counted = voters.groupBy(USER_ID, _LABEL).agg(
        sum_in_order(F.col(_WEIGHT)).alias(_WEIGHT), F.count("*").alias(_VOTERS)
    )
    best = F.min(F.struct((-F.col(_WEIGHT)).alias(_WEIGHT), _LABEL)).alias("best")
    votes = counted.groupBy(USER_ID).agg(
        best, sum_in_order(F.col(_WEIGHT)).alias(_WEIGHT), F.sum(_VOTERS).cast("int").alias(_VOTERS)
    )
    share = -F.col(f"best.{_WEIGHT}") / F.col(_WEIGHT)
    return votes.select(USER_ID, F.col(f"best.{_LABEL}").alias(_PREDICTED), share.alias(_SHARE), _VOTERS)


def _told(lists: DataFrame, given: DataFrame, voted: DataFrame, settings: VoteSettings) -> DataFrame:
    """Return the table to publish; a user of the neighbor table without voters has a row too."""
    own = given.select(USER_ID, F.col(_LABEL).alias(_GIVEN))
    return (
        lists.select(USER_ID)
        .join(own, USER_ID, "left")
        .join(voted, USER_ID, "left")
        .select(
            F.col(USER_ID).alias(settings.id_col),
            _GIVEN,
            _PREDICTED,
            _SHARE,
            F.coalesce(_VOTERS, F.lit(0)).alias(_VOTERS),
        )
    )


def _measured(table: DataFrame, predict: str) -> dict[str, Any]:
    """Return the report's facts."""
    is_given, has_voters = F.col(_GIVEN).isNotNull(), F.col(_VOTERS) > 0
    counts = {
        "users": F.count("*"),
        "labeled": F.count_if(is_given),
        "without_voters": F.count_if(~has_voters),
        "predicted": F.count_if(~is_given & has_voters),
        "tested": F.count_if(is_given & has_voters),
    }
    told = table.agg(*[one.alias(name) for name, one in counts.items()]).collect()[0].asDict()
    tested = table.where(is_given & has_voters)
    if predict == "class":
        right = tested.agg(F.avg((F.col(_GIVEN) == F.col(_PREDICTED)).cast("double"))).collect()[0][0]
        commonest = tested.groupBy(_GIVEN).count().agg(F.max("count") / F.sum("count")).collect()[0][0]
        return told | {"accuracy": right, "commonest": commonest}
    error = F.col(_PREDICTED) - F.col(_GIVEN).cast("double")
    found = tested.agg(F.avg(F.abs(error)), F.sqrt(F.avg(error * error)), F.stddev_pop(_GIVEN)).collect()[0]
    return told | dict(zip(("mean_error", "rmse", "spread"), found, strict=True))


def _warnings(told: dict[str, Any]) -> list[str]:
    if not told["without_voters"]:
        return []
    return [
        f"{told['without_voters']:,} of {told['users']:,} rows have no labeled neighbor, and so no prediction. Label "
        "more rows, or build with a larger k."
    ]
