"""Settings: the one table of what can be set, checked once, and the Python call that takes them by name."""

import inspect
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

from annspark.allowed import Column, Flag, Number, OneOf, Share, Whole, check_each, setting, settings_in
from annspark.core.calibrate import MOST_PROBES
from annspark.core.centre_forest import SPLITS
from annspark.core.metric import METRICS
from annspark.errors import SettingsError

MOST_LEAF_ROWS = 1_000_000
RECALL = 0.95  # to reach when nothing else is asked for

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What neighbors to find and how; the same whether it comes from Python, the command line or a file.

    A line of this table has a setting's default, what is allowed and what it does. From it follow the checks, the flags
    and their help, the signature and docstring of build_neighbors, conf/local.toml and the README's table.
    """

    k: int = setting(10, Whole(1, 1_000), "Neighbors per user. Up to some 50 they cost little.")
    id_col: str = setting("user_id", Column(), "Ids of the users, of any type that has an order.")
    vector_col: str = setting(
        "vector", Column(), "Vectors of the users: arrays of numbers, MLlib vectors, bits, sparse vectors or sets."
    )
    values_col: str | None = setting(
        None,
        Column(optional=True),
        "Values of sparse vectors whose indices are in vector_col.",
        unset="none",
        example="values",
    )
    metric: str = setting(
        "cosine",
        OneOf(tuple(METRICS)),
        "What tells how near two vectors are: a distance, or the inner product, the largest first.",
    )
    recall: float | None = setting(
        None,
        Share(such_as=RECALL),
        "Share of the exact neighbors to find. A table whose audit rules it out is refused.",
        unset=f"{RECALL}, unless probes are given",
        example=RECALL,
        hint="For exact neighbors set leaf_rows to the number of users.",
    )
    probes: float | None = setting(
        None,
        Number(1, MOST_PROBES),
        "Leaves that a user goes to in each tree, on average. They are given instead of a recall.",
        unset="as many as the recall needs",
        example=8,
    )
    trees: int | None = setting(
        None,
        Whole(1, 100),
        "Trees in the forest. For dense vectors more probes are usually cheaper than more trees.",
        unset="1, for sparse vectors as many as the recall needs",
        example=1,
    )
    leaf_rows: int = setting(
        512,
        Whole(1, MOST_LEAF_ROWS),
        "Users that a leaf should hold, never fewer than 4 k. Larger leaves find more per probe and compare more.",
    )
    split: str = setting(
        "two_means",
        OneOf(SPLITS),
        "How the planes of a tree are placed. two_means is a little slower to grow and finds more.",
    )
    seed: int = setting(
        0, Whole(0, 2**63 - 1), "Start of all random draws. The same data and seed give the same table."
    )
    shape: str = setting(
        "nested",
        OneOf(("nested", "long")),
        "nested is a row per user, with an array of neighbors. long is a row per neighbor, and takes more space.",
    )
    on_bad_row: str = setting(
        "fail",
        OneOf(("fail", "drop")),
        "What to do with rows that cannot be used. fail stops, drop leaves them out and counts them in the report.",
    )
    audit_users: int = setting(
        1000,
        Whole(1, 100_000),
        "Users whose exact neighbors measure the recall. Four times as many halve the interval around it.",
    )
    top_up: bool = setting(False, Flag(), "If the recall is missed, add another tree and merge instead of giving up.")
    max_distance: float | None = setting(
        None, Number(0), "Leave farther neighbors out, once the recall has been measured.", unset="none", example=0.5
    )
    links: str = setting(
        "all",
        OneOf(("all", "mutual", "either")),
        "Which neighbors to keep. mutual keeps those that name each other, either adds those that name the user.",
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
        for one, other in combinations(("id_col", "vector_col", "values_col"), 2):
            if getattr(self, one) == getattr(self, other):
                raise SettingsError(f"'{one}' and '{other}' are both {getattr(self, one)!r}; they must be two columns.")
        made = ("neighbors",) if self.shape == "nested" else ("rank", "neighbor_id", "distance", "inner_product")
        if self.id_col.lower() in made:
            raise SettingsError(
                f"'id_col' is {self.id_col!r}, which is also a column of the {self.shape} output. "
                "Rename the id column before the call."
            )

    @property
    def restricted(self) -> bool:
        """Whether other neighbors are published than were found."""
        return self.max_distance is not None or self.links != "all"

    @property
    def found(self) -> "Settings":
        """The settings of the table of all neighbors, before any is left out."""
        return replace(self, shape="nested", links="all", max_distance=None) if self.restricted else self

    @property
    def recall_asked(self) -> float | None:
        """The recall to reach; None when the probes are given instead."""
        return None if self.probes is not None else RECALL if self.recall is None else self.recall


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
    """Build Settings from named values.

    others : names that the caller takes beside them, which a message lists too

    Raises SettingsError for unknown names and values that are not allowed.
    """
    require_known(values, {*settings_in(Settings), *others})
    return Settings(**values)


def takes_settings(function: _Function) -> _Function:
    """Show a function's **settings as named parameters, and list them where its docstring has the line {settings}."""
    own = inspect.signature(function)
    of_settings = list(inspect.signature(Settings).parameters.values())
    kept = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    positional = [one for one in kept if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [one for one in kept if one.kind is inspect.Parameter.KEYWORD_ONLY]
    shown = own.replace(parameters=[*positional, *of_settings, *named])
    function.__signature__ = shown  # type: ignore[attr-defined]
    if function.__doc__:  # none under python -OO
        function.__doc__ = inspect.cleandoc(function.__doc__).replace("{settings}", _list_settings())
    return function


def _list_settings() -> str:
    table = settings_in(Settings)
    width = max(map(len, table))
    return "\n".join(
        textwrap.fill(one.told, 112, initial_indent=f"{name:{width}}: ", subsequent_indent=" " * (width + 2))
        for name, one in table.items()
    )
