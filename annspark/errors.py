"""Errors a caller can act on; every message says where, what was found, what is allowed and what to do next."""


class AnnsparkError(Exception):
    """Base of annspark's errors; raised itself when annspark is at fault."""


class SettingsError(AnnsparkError, ValueError):
    """A setting or argument is wrong; nothing was read or written."""


class InputError(AnnsparkError, ValueError):
    """The input table cannot be used as it is; nothing was written."""


def first_line(error: BaseException) -> str:
    """Return what an error says, without the stack trace the JVM's errors carry in their text."""
    return str(error).partition("\n")[0] or type(error).__name__
