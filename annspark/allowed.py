"""Allowed: what one setting may be. Checks, messages, flags and pages all follow from it."""

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeGuard

import numpy as np

from annspark.errors import SettingsError


class Allowed(ABC):
    """What a value may be; as a text it goes on after "it must be"."""

    @abstractmethod
    def takes(self, value: object) -> bool:
        """Say whether a value is allowed."""


@dataclass(frozen=True)
class Whole(Allowed):
    """Whole numbers, both bounds included."""

    low: int
    high: int

    def takes(self, value: object) -> bool:
        """Say whether a value is such a number."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Number(Allowed):
    """Numbers, both bounds included."""

    low: float
    high: float = sys.float_info.max

    def takes(self, value: object) -> bool:
        """Say whether a value is such a number."""
        return _is_number(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        upper = "on" if self.high == sys.float_info.max else f"to {self.high:,}"
        return f"a number from {self.low:,} {upper}"


@dataclass(frozen=True)
class Share(Allowed):
    """Numbers between 0 and 1."""

    such_as: float

    def takes(self, value: object) -> bool:
        """Say whether a value is such a number."""
        return _is_number(value) and 0 < value < 1

    def __str__(self) -> str:
        return f"a number between 0 and 1, both excluded, such as {self.such_as}"


@dataclass(frozen=True)
class OneOf(Allowed):
    """A few texts."""

    names: tuple[str, ...]

    def takes(self, value: object) -> bool:
        """Say whether a value is one of them."""
        return isinstance(value, str) and value in self.names  # an array of one text would be "in" them

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"


@dataclass(frozen=True)
class Flag(Allowed):
    """True or false."""

    def takes(self, value: object) -> bool:
        """Say whether a value is either."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Column(Allowed):
    """The name of a column."""

    optional: bool = False

    def takes(self, value: object) -> bool:
        """Say whether a value is a name."""
        return isinstance(value, str) and value != ""

    def __str__(self) -> str:
        return "the name of a column" + (", or left out" if self.optional else "")


@dataclass(frozen=True)
class ColumnNames(Allowed):
    """Names of columns with commas between them, or None."""

    def takes(self, value: object) -> bool:
        """Say whether a value names columns."""
        return isinstance(value, str) and all(Column().takes(name.strip()) for name in value.split(","))

    def __str__(self) -> str:
        return "names of columns with commas between them, or left out"


@dataclass(frozen=True)
class Weights(Allowed):
    """Names of columns, each with a positive number, or None."""

    def takes(self, value: object) -> bool:
        """Say whether a value is such names with numbers."""
        column = Column()
        return (
            isinstance(value, Mapping)
            and len(value) > 0
            and all(column.takes(name) and _is_number(weight) for name, weight in value.items())
            and all(0 < weight <= sys.float_info.max for weight in value.values())
        )

    def __str__(self) -> str:
        return "names of columns with positive numbers, or left out"


@dataclass(frozen=True)
class PathOrTable(Allowed):
    """A path or a catalog table."""

    optional: bool = False

    def takes(self, value: object) -> bool:
        """Say whether a value can be either."""
        return isinstance(value, str) and value.strip("/ ") != "" and "\0" not in value

    def __str__(self) -> str:
        return "a path or a catalog table" + (", or left out" if self.optional else "")


@dataclass(frozen=True)
class Text(Allowed):
    """Any text that says something, or None."""

    def takes(self, value: object) -> bool:
        """Say whether a value is such a text."""
        return isinstance(value, str) and value.strip() != "" and "\0" not in value

    def __str__(self) -> str:
        return "a text, or left out"


@dataclass(frozen=True)
class Folder(Text):
    """The name of a folder, or None."""


def require_no_credentials(name: str, value: object) -> None:
    """Raise SettingsError for a path that holds a user or a password; neither is in the message.

    name : of the setting that gives the path
    """
    if isinstance(value, str) and re.match("s3[an]?://[^/]*@|[^/]+://[^/@]*:[^/]*@", value, re.IGNORECASE):
        raise SettingsError(
            f"'{name}' is a path with a user or a password in it, which logs and reports would show. Leave them out, "
            "and give them to Spark (spark.hadoop.fs.s3a.access.key and secret.key) or in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)."
        )


@dataclass(frozen=True)
class Setting:
    """One setting: its entry in Settings or Job.

    default : MISSING where it must be given, None where it may be left out
    unset   : what None means
    example : a value for those that may be left out
    hint    : a sentence after the message on a value that is not allowed
    """

    default: Any
    allowed: Allowed
    help: str
    unset: str = ""
    example: Any = None
    hint: str = ""

    @property
    def default_text(self) -> str:
        """The default as a text. A default that is no value is described in words."""
        if self.default is MISSING:
            return "none, it must be given"
        if self.default is None:
            return self.unset
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    @property
    def allowed_text(self) -> str:
        """What is allowed, as a sentence."""
        text = str(self.allowed)
        return f"{text[0].upper()}{text[1:]}."

    @property
    def text(self) -> str:
        """What it does, what is allowed and the default, in sentences."""
        return f"{self.help} {self.allowed_text} Default: {self.default_text}."

    def require(self, name: str, value: object) -> None:
        """Raise SettingsError when the value is not allowed."""
        if isinstance(self.allowed, Folder | PathOrTable):
            require_no_credentials(name, value)
        if not (self.allowed.takes(value) or (value is None and self.default is None)):
            hint = f" {self.hint}" if self.hint else ""
            raise SettingsError(f"'{name}' is {value!r}; it must be {self.allowed}.{hint}")


def setting(default: Any, allowed: Allowed, help: str, **more: Any) -> Any:
    """Return a dataclass field that knows what is allowed; the arguments are Setting's."""
    return field(default=default, metadata={"setting": Setting(default, allowed, help, **more)})


def settings_in(record: Any) -> dict[str, Setting]:
    """Return the settings of a record, or of its class, by name and in order."""
    return {one.name: one.metadata["setting"] for one in fields(record) if "setting" in one.metadata}


def check_each(record: Any) -> None:
    """Raise SettingsError for the first value of a record that is not allowed by itself.

    NumPy's scalars become Python's, which reports can hold: a notebook computes its settings with NumPy.
    """
    for name, one in settings_in(record).items():
        value = getattr(record, name)
        plain = {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else _plain(value)
        one.require(name, plain)
        object.__setattr__(record, name, plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        # NumPy's long double has no item of Python's.
        return float(value) if isinstance(value, np.longdouble) else value.item()
    return value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
