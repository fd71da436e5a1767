"""Errors a caller can act on; every message says where, what was found, what is allowed and what to do next."""


class AnnsparkError(Exception):
    """Base of annspark's errors; raised itself when annspark is at fault."""


class SettingsError(AnnsparkError, ValueError):
    """A setting or argument is wrong; nothing was read or written."""


class InputError(AnnsparkError, ValueError):
    """The input table cannot be used as it is; nothing was written."""


class RecallMissed(AnnsparkError):
    """The finished table was audited and falls short of the recall asked for; it was not published.

    report : what the run did, as a Report
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


def first_line(error: BaseException) -> str:
    """Return what an error says, without the stack trace the JVM's errors carry in their text."""
    return str(error).partition("\n")[0] or type(error).__name__
