"""Settings: the one class of all that can be set, checked once, and the Python call that takes them by name."""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

from annspark.allowed import (
    Column,
    ColumnNames,
    Flag,
    Number,
    OneOf,
    Setting,
    Share,
    Weights,
    Whole,
    check_each,
    setting,
    settings_in,
)
from annspark.core.calibrate import MOST_PROBES
from annspark.core.centre_forest import SPLITS
from annspark.core.metric import METRICS
from annspark.core.weighted import WEIGHABLE
from annspark.errors import SettingsError
from annspark.tables import NEIGHBOR_ID

MOST_LEAF_ROWS = 1_000_000
# Columns of the output, by its shape.
_MADE = {"nested": ("neighbors",), "long": ("rank", "neighbor_id", "distance", "inner_product")}
RECALL = 0.95  # to reach when nothing else is asked for

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What neighbors to find and how; the same whether it comes from Python, the command line or a file.

    Each entry of this class has a setting's default, what is allowed and what it does. The checks, the flags and their
    help, and the signature and docstring of build_neighbors follow from the entries. So do conf/local.toml and the
    README's table: python -m tests.settings_pages writes them.
    """

    k: int = setting(10, Whole(1, 1_000), "Neighbors per user. Up to about 50, more neighbors cost little.")
    id_col: str = setting(
        "user_id", Column(), "Column of the user ids: integers, strings, binary, decimals, dates or timestamps."
    )
    vector_col: str = setting(
        "vector", Column(), "Column of the vectors: arrays of numbers, MLlib vectors, bits, sparse vectors or sets."
    )
    values_col: str | None = setting(
        None,
        Column(optional=True),
        "Column of the values of sparse vectors. vector_col then holds their indices.",
        unset="none",
        example="values",
    )
    vector_cols: Mapping[str, float] | None = setting(
        None,
        Weights(),
        "Several columns of vectors with weights, in place of vector_col. Rows are compared by the weighted mean of "
        "their cosines, or by the weighted sum of their inner products.",
        unset="none, vector_col alone",
        example={"profile": 0.8, "tags": 0.2},
        hint="Such as {'profile': 0.8, 'tags': 0.2}.",
    )
    candidate_id_col: str | None = setting(
        None,
        Column(optional=True),
        "Column of the candidates' ids.",
        unset="id_col",
        example="item_id",
    )
    candidate_vector_col: str | None = setting(
        None,
        Column(optional=True),
        "Column of the candidates' vectors.",
        unset="vector_col",
        example="vector",
    )
    candidate_values_col: str | None = setting(
        None,
        Column(optional=True),
        "Column of the values of the candidates' sparse vectors.",
        unset="values_col",
        example="values",
    )
    candidate_col: str | None = setting(
        None,
        Column(optional=True),
        "Boolean column: only rows with true may be neighbors. Every row gets neighbors. Null counts as false.",
        unset="none, every row may be a neighbor",
        example="in_stock",
    )
    within: str | None = setting(
        None,
        ColumnNames(),
        "Columns of groups, with commas between: neighbors are only of the same group. Null is a group of its own.",
        unset="none, there are no groups",
        example="language,country",
    )
    same_ids: bool = setting(
        False,
        Flag(),
        "Ids of users and candidates name the same things: leave out the candidate with the user's id.",
    )
    metric: str = setting(
        "cosine",
        OneOf(tuple(METRICS)),
        "How two vectors are compared: by a distance, the smallest first, or by the inner product, the largest first.",
    )
    recall: float | None = setting(
        None,
        Share(such_as=RECALL),
        "Share of the exact neighbors to find. If the upper bound that the audit measures is lower, the job fails.",
        unset=f"{RECALL}, unless probes are given",
        example=RECALL,
        hint="For exact neighbors set leaf_rows to the number of users.",
    )
    probes: float | None = setting(
        None,
        Number(1, MOST_PROBES),
        "Leaves per tree that a vector is sent to, on average, with its home leaf. Give probes or recall, not both.",
        unset="as many as the recall needs",
        example=8,
    )
    trees: int | None = setting(
        None,
        Whole(1, 100),
        "Trees to grow. For dense vectors more probes usually cost less than more trees.",
        unset="1; for sparse vectors as many as the recall needs, or 2 if probes are given",
        example=1,
    )
    leaf_rows: int = setting(
        512,
        Whole(1, MOST_LEAF_ROWS),
        "A leaf holds about this many users, or 4 k if that is more. Larger leaves find more per probe, and compare "
        "more pairs.",
    )
    split: str = setting(
        "two_means",
        OneOf(SPLITS),
        "How the planes that split a tree are placed. two_means takes a little longer to grow, and finds more.",
    )
    seed: int = setting(0, Whole(0, 2**63 - 1), "Seed of all random draws. The same data and seed give the same table.")
    shape: str = setting(
        "nested",
        OneOf(("nested", "long")),
        "nested: one row per user, with an array of neighbors. long: one row per neighbor, which takes more space.",
    )
    on_bad_row: str = setting(
        "fail",
        OneOf(("fail", "drop")),
        "What to do with rows that cannot be used. fail: stop the job. drop: leave them out, count them in the report.",
    )
    audit_users: int = setting(
        1000,
        Whole(1, 100_000),
        "Random users whose exact neighbors measure the recall. Four times as many halve the width of its interval.",
    )
    top_up: bool = setting(
        False, Flag(), "If the audit misses the recall, grow another tree, merge what it finds, and audit again."
    )
    max_distance: float | None = setting(
        None, Number(0), "Leave out neighbors that are farther than this, after the audit.", unset="none", example=0.5
    )
    links: str = setting(
        "all",
        OneOf(("all", "mutual", "either")),
        "Which neighbors to publish. mutual: pairs that list each other. either: add the users who list this user.",
    )

    def __post_init__(self) -> None:
        check_each(self)
        if self.recall is not None and self.probes is not None:
            raise SettingsError(
                f"'recall' is {self.recall!r} and 'probes' {self.probes!r}: probes follow from the recall. Give one."
            )
        if self.top_up and self.probes is not None:
            raise SettingsError("'top_up' is True and 'probes' given: only a recall can be missed. Give 'recall'.")
        if self.max_distance is not None and METRICS[self.metric].largest:
            raise SettingsError(
                f"'max_distance' is {self.max_distance!r} and 'metric' {self.metric!r}, which has no distance. "
                "Leave it out, and filter the published table."
            )
        if self.vector_cols is not None:
            self._require_weighable(self.vector_cols)
            # Saved indexes sort names, too: the order of the columns is that of the numbers in a vector.
            object.__setattr__(self, "vector_cols", dict(sorted(self.vector_cols.items())))
        named = ("id_col", "vector_col", "values_col") if self.vector_cols is None else ("id_col",)
        for one, other in combinations(named, 2):
            if getattr(self, one) == getattr(self, other):
                raise SettingsError(f"'{one}' and '{other}' are both {getattr(self, one)!r}; they must be two columns.")
        if self.id_col.lower() in _MADE[self.shape]:
            raise SettingsError(
                f"'id_col' is {self.id_col!r}, which is also a column of the {self.shape} output. "
                "Rename the id column before the call."
            )

    def _require_weighable(self, weights: Mapping[str, float]) -> None:
        """Raise SettingsError for settings that do not go with weighted columns."""
        defaults = settings_in(Settings)
        for name in ("vector_col", "values_col", "candidate_vector_col", "candidate_values_col"):
            if getattr(self, name) != defaults[name].default:
                raise SettingsError(
                    f"'{name}' is {getattr(self, name)!r} and 'vector_cols' {weights!r}, which name all columns of "
                    f"vectors, of users and of candidates. Leave '{name}' or 'vector_cols' out."
                )
        if self.metric not in WEIGHABLE:
            raise SettingsError(
                f"'metric' is {self.metric!r} and 'vector_cols' {weights!r}: weighted sums are of cosines or inner "
                f"products. Choose {' or '.join(WEIGHABLE)}, or give a single vector_col."
            )
        if self.id_col in weights:
            raise SettingsError(
                f"'id_col' is {self.id_col!r}, which is also one of the 'vector_cols'; they must be two columns."
            )

    def require_pairing(self, has_candidates: bool, has_excluded: bool = False) -> None:
        """Raise SettingsError for settings that go with candidates where there are none, or do not go with them.

        has_excluded : whether pairs are excluded
        """
        if has_excluded and self.id_col.lower() == NEIGHBOR_ID:
            raise SettingsError(
                f"'id_col' is {self.id_col!r}, and pairs are excluded, which have the other end in {NEIGHBOR_ID!r}: "
                "the two would be one column. Name the column of ids otherwise."
            )
        if has_excluded and self.links == "either":
            raise SettingsError(
                "'links' is 'either', and pairs are excluded: it would add them again from the other end. Leave "
                "'links' out."
            )
        if has_candidates and self.candidate_col:
            raise SettingsError(
                f"'candidate_col' is {self.candidate_col!r}, and candidates are given, which are a table of their own. "
                "Give one of them."
            )
        if has_candidates or self.candidate_col:
            why = "candidates are given: they have no lists of their own"
            if self.candidate_col:
                why = f"'candidate_col' {self.candidate_col!r}: only some rows may be in lists"
            for name, value in (("links", self.links != "all"), ("top_up", self.top_up)):
                if value:
                    raise SettingsError(f"'{name}' is {getattr(self, name)!r}, and {why}. Leave '{name}' out.")
        if has_candidates:
            return
        for name in ("candidate_id_col", "candidate_vector_col", "candidate_values_col", "same_ids"):
            if getattr(self, name):
                raise SettingsError(
                    f"'{name}' is {getattr(self, name)!r}, and there are no candidates. Give 'candidates', or leave "
                    f"'{name}' out."
                )

    @property
    def vector_names(self) -> tuple[str, ...]:
        """The columns that hold vectors, or the indices of sparse ones."""
        return (self.vector_col,) if self.vector_cols is None else tuple(self.vector_cols)

    @property
    def changes_lists(self) -> bool:
        """Whether max_distance or links changes the lists of neighbors after the audit."""
        return self.max_distance is not None or self.links != "all"

    @property
    def recall_asked(self) -> float | None:
        """The recall to reach; None when the probes are given instead."""
        return None if self.probes is not None else RECALL if self.recall is None else self.recall


def names_in(columns: str) -> list[str]:
    """Return the names of columns that a setting has, with commas between them."""
    return [name.strip() for name in columns.split(",")]


def settings_of_candidates(settings: Settings) -> Settings:
    """Return the settings for candidates, whose columns may have other names than those of users."""
    id_col = settings.candidate_id_col or settings.id_col
    return replace(
        settings,
        id_col=id_col,
        vector_col=settings.candidate_vector_col or settings.vector_col,
        values_col=settings.candidate_values_col or settings.values_col,
        candidate_id_col=None,
        candidate_vector_col=None,
        candidate_values_col=None,
        # Candidates have no output.  A shape without a column of that name lets their ids have any.
        shape=next(shape for shape in (settings.shape, *_MADE) if id_col.lower() not in _MADE[shape]),
    )


def require_known(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise SettingsError for names that no setting has."""
    known = set(known)
    unknown = sorted(set(given) - known)
    if unknown:
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(sorted(known))}."
        )


def make_settings(values: dict[str, Any], *others: str) -> Settings:
    """Build Settings from named values, as make_record does."""
    return make_record(Settings, values, *others)


def make_record(record: type[_Record], values: dict[str, Any], *others: str) -> _Record:
    """Build a record of settings from named values.

    others : names that the caller takes beside them, which a message lists too

    Raises SettingsError for unknown names, missing names and values that are not allowed.
    """
    entries = settings_in(record)
    require_known(values, {*entries, *others})
    require_given(values, entries)
    return record(**values)


def require_given(values: Iterable[str], entries: dict[str, Setting], where: str = "in the call") -> None:
    """Raise SettingsError for settings that must be given and are not, which says where they could be."""
    missing = [name for name, one in entries.items() if one.default is MISSING and name not in values]
    if missing:
        raise SettingsError(f"{' and '.join(map(repr, missing))} not given, {where}.")


def takes_settings(function: _Function) -> _Function:
    """Show Settings in a function, as takes does."""
    return takes(Settings)(function)


def takes(record: type) -> Callable[[_Function], _Function]:
    """Show a function's **settings as the named parameters of a record.

    Where its docstring has the line {settings}, they are listed.
    """

    def show(function: _Function) -> _Function:
        own = inspect.signature(function)
        of_settings = [one for one in inspect.signature(record).parameters.values() if one.name in settings_in(record)]
        kept = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        positional = [one for one in kept if one.kind is not inspect.Parameter.KEYWORD_ONLY]
        named = [one for one in kept if one.kind is inspect.Parameter.KEYWORD_ONLY]
        shown = own.replace(parameters=[*positional, *of_settings, *named])
        function.__signature__ = shown  # type: ignore[attr-defined]
        if function.__doc__:  # none under python -OO
            function.__doc__ = inspect.cleandoc(function.__doc__).replace("{settings}", _list_settings(record))
        return function

    return show


def _list_settings(record: type) -> str:
    entries = settings_in(record)
    width = max(map(len, entries))
    return "\n".join(
        textwrap.fill(one.text, 112, initial_indent=f"{name:{width}}: ", subsequent_indent=" " * (width + 2))
        for name, one in entries.items()
    )
