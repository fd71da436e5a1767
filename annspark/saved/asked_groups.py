"""The groups that a caller searches within, and the numbers that stand for them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np

from annspark.core.spark_hash import spark_hash
from annspark.errors import InputError
from annspark.saved.manifest import Manifest
from annspark.settings import names_in

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 2**53  # whole numbers from here on are not all exact in a double
_FINER = ("ns", "ps", "fs", "as")  # than what Python's dates and times hold


def asked_groups(given: Any, manifest: Manifest, n: int, *, single: bool) -> np.ndarray | None:
    """Return the group that each vector is searched within: int64 (n,); None for an index without groups.

    given   : for a single vector the value of the column of groups, or {column: value}; for several vectors a list of n
              values, or {column: list of n values}.  None where nothing is given
    n       : number of vectors
    returns : the numbers that annspark.input.source gives to groups
    Raises InputError for groups that are missing or superfluous, and for values that no column of groups has.
    """
    within = manifest.settings.get("within")
    if not within:
        if given is not None:
            raise InputError(f"within: {given!r} was given, and the index has no groups. Leave it out.")
        return None
    names = names_in(within)
    if given is None or (len(names) > 1 and not isinstance(given, Mapping)):
        example = ", ".join(f"{name!r}: ..." for name in names)
        raise InputError(
            f"within: {given!r} was given, and the index has groups by {', '.join(map(repr, names))}. Give "
            f"within={{{example}}} with the values of the group that is searched, None for null."
        )
    columns = given if isinstance(given, Mapping) else {names[0]: given}
    if set(columns) != set(names):
        raise InputError(
            f"within: the columns {', '.join(map(repr, columns))} were given, and the index has groups by "
            f"{', '.join(map(repr, names))}. Give a value for each of these."
        )
    texts = [_texts_of(columns[name], name, n, single) for name in names]
    known: dict[tuple[str | None, ...], int] = {}
    for values in zip(*texts, strict=True):
        if values not in known:
            # As open_source does it: whether a value is null, and its text.
            known[values] = spark_hash(part for text in values for part in (text is None, text))
    return np.array([known[values] for values in zip(*texts, strict=True)], np.int64)


def _texts_of(given: Any, name: str, n: int, single: bool) -> list[str | None]:
    """Return the values of a column of groups, one for each vector, as the texts that Spark casts them to."""
    if single:
        return [_text_of(given, name)]
    if isinstance(given, (str, bytes)) or not hasattr(given, "__len__") or len(given) != n:
        raise InputError(
            f"within: column {name!r} has {given!r}, and there are {n:,} vectors. Give a list of as many values."
        )
    return [_text_of(value, name) for value in given]


def _text_of(value: Any, name: str) -> str | None:
    if isinstance(value, np.datetime64 | np.timedelta64):  # of nanoseconds, item() would be a whole number
        value = value.astype(f"{value.dtype.kind}8[us]") if np.datetime_data(value.dtype)[0] in _FINER else value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal) and isfinite(value) and int(value) == value and abs(int(value)) < _EXACT:
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return str((value - _EPOCH) // timedelta(microseconds=1))
    elif isinstance(value, date):
        return value.isoformat()
    raise InputError(
        f"within: column {name!r} has {value!r}. Groups are given as texts, whole numbers, booleans, dates, datetimes "
        "with a time zone, or None. For any other value give the text that Spark casts it to, a fraction without zeros "
        "at its end, such as '1.5'."
    )
