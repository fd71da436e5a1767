"""Settings of the uses: one record for each, of which the Python call and the command line are made."""

from dataclasses import MISSING, dataclass
from typing import Any

from annspark.allowed import Column, Flag, Number, OneOf, Whole, check_each, setting
from annspark.errors import SettingsError
from annspark.tables import USER_ID

MOST_ROWS_CHAINED = 1_000
# The columns that each use makes, beside those that settings name.
RECOMMENDED = ("rank", "score", "neighbors", "fallback")
GROUPED = ("kept_id", "keep", "distance", "group_size", "linked", "diameter")
SCORED = ("score", "neighbors")
VOTED = ("given", "predicted", "share", "voters")


@dataclass(frozen=True, kw_only=True)
class RecommendSettings:
    """What recommend takes."""

    k: int = setting(10, Whole(1, 10_000), "Items per user.")
    id_col: str = setting(USER_ID, Column(), "Column of the user ids, in both tables.")
    item_col: str = setting("item_id", Column(), "Column of the items that users took.")
    strength_col: str | None = setting(
        None,
        Column(optional=True),
        "Column that says how much an interaction counts, such as a rating or a number of visits.",
        unset="none, each item counts once for each user",
    )
    weights: str = setting(
        "similarity",
        OneOf(("similarity", "inverse", "uniform")),
        "How much a neighbor counts. similarity: 1 - distance, for cosine and jaccard, or the inner product. inverse: "
        "1 / (1 + distance), for other distances. uniform: all alike.",
    )
    popularity: float = setting(
        0.0,
        Number(0, 1),
        "Popularity correction: scores are divided by the number of users of the item, to this power. 0: none. 1: "
        "items of few users win.",
    )
    fallback: bool = setting(
        True,
        Flag(),
        "Fill up with the most popular items where neighbors have too few; the column fallback marks them.",
    )

    def __post_init__(self) -> None:
        check_each(self)
        _require_free(self, ("id_col", "item_col"), RECOMMENDED)


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """What duplicates takes."""

    max_distance: float = setting(MISSING, Number(0), "Cut-off: pairs that are farther than this are no duplicates.")
    id_col: str = setting(USER_ID, Column(), "Column of the ids, in all tables.")
    links: str = setting(
        "mutual",
        OneOf(("mutual", "either")),
        "Which pairs join a group. mutual: each is as near to the other as the other's neighbors are. either: one "
        "lists the other.",
    )
    keep: str = setting(
        "lowest_id",
        OneOf(("lowest_id", "most_central", "highest_priority")),
        "Which row of a group to keep. most_central: the one with the most links, then the shortest. "
        "highest_priority: needs priorities.",
    )
    priority_col: str = setting("priority", Column(), "Column of the priorities, a number; the largest is kept.")
    max_group: int = setting(
        100,
        Whole(2, MOST_ROWS_CHAINED),
        "Most rows that may hang together by a chain of pairs. A larger group is split into rows that are all linked "
        "to one.",
    )

    def __post_init__(self) -> None:
        check_each(self)
        _require_free(self, ("id_col",), GROUPED)


@dataclass(frozen=True, kw_only=True)
class OutlierSettings:
    """What outliers takes."""

    method: str = setting(
        "kth",
        OneOf(("kth", "mean", "lof")),
        "The score. kth: distance to the k-th neighbor. mean: mean distance to k neighbors. lof: local outlier factor, "
        "which compares that with the neighbors' own; about 1 is normal.",
    )
    k: int | None = setting(
        None, Whole(1, 1_000), "Neighbors that count, the nearest first.", unset="as many as the longest list has"
    )
    id_col: str = setting(USER_ID, Column(), "Column of the user ids.")

    def __post_init__(self) -> None:
        check_each(self)
        _require_free(self, ("id_col",), SCORED)


@dataclass(frozen=True, kw_only=True)
class VoteSettings:
    """What vote takes."""

    label_col: str = setting("label", Column(), "Column of the labels; a row without a label is to be labeled.")
    predict: str = setting(
        "class", OneOf(("class", "number")), "class: the label with the most weight. number: the weighted mean."
    )
    weights: str = setting(
        "distance",
        OneOf(("distance", "uniform")),
        "How much a neighbor counts. distance: 1 / distance; where some are at distance 0, only these count. uniform: "
        "all alike.",
    )
    k: int | None = setting(
        None, Whole(1, 1_000), "Neighbors that may vote, the nearest first.", unset="all in the table"
    )
    id_col: str = setting(USER_ID, Column(), "Column of the ids, in both tables.")
    same_ids: bool = setting(
        True,
        Flag(),
        "Ids of users and neighbors name the same things. Set it to false for a table of queries against other rows: "
        "labels are then those of the neighbors.",
    )

    def __post_init__(self) -> None:
        check_each(self)
        _require_free(self, ("id_col",), VOTED)


def _require_free(settings: Any, names: tuple[str, ...], columns: tuple[str, ...]) -> None:
    """Raise SettingsError where a column that goes to the output has the name of another column of it.

    names   : the settings that name columns
    columns : what the use makes
    """
    for place, name in enumerate(names):
        column = getattr(settings, name)
        taken = {*columns, *(getattr(settings, other) for other in names[:place])}
        if column.lower() in {one.lower() for one in taken}:
            raise SettingsError(
                f"'{name}' is {column!r}, which another column of the table to make is named. Rename the column before "
                "the call."
            )
