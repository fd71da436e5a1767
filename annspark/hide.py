"""Hide: take credentials out of texts.

Each text passes here where it leaves: log records (annspark/__init__.py), errors (annspark/errors.py), what the command
line prints of failures (annspark/cli.py), and reports (annspark/report/text.py, annspark/uses/report.py).
"""

import logging
import re
from typing import Any

HIDDEN = "***"
_SECRET = r"secret|passw(?:or)?d|pwd|token|signature|credential|(?:access|account|api)[._-]?key|\bsas\b"
# What is hidden, but for the group `name` in front of it.
_FOUND = (
    # scheme://user:password@host. A password may hold @, or else /. A number and / is a port, not a password.
    re.compile(r"(?<=://)[^\s/:@'\"]+:(?!\d{1,5}/)(?:[^\s/]*|[^\s@]*)(?=@)"),
    # Oracle's jdbc:oracle:thin:user/password@host
    re.compile(r"(?<=thin:)[^\s/@]+/[^\s@]+(?=@)"),
    # A parameter of a URL or an argument, such as ?sig=... or secret.key=...; a folder /token=... is none.
    re.compile(rf"(?i)(?<![\w./%-])(?P<name>(?:[\w.%-]*(?:{_SECRET})[\w.%-]*|sig)['\"]?\s*=\s*['\"]?)[^\s&;,'\"{{}}]+"),
    # A setting of Spark or Hadoop in a message, such as 'fs.s3a.secret.key': '...'
    re.compile(
        rf"(?i)(?P<name>\b(?:spark|hadoop|fs|dfs|javax)\.[\w.-]*(?:{_SECRET})[\w.-]*['\"]?\s*:\s*['\"]?)[^\s,'\"{{}}]+"
    ),
)


def hidden(text: str) -> str:
    """Return a text with *** in place of passwords, keys and signatures in paths, URLs and settings."""
    for pattern in _FOUND:
        text = pattern.sub(_without_secret, text)
    return text


def _without_secret(found: re.Match[str]) -> str:
    return found.groupdict().get("name", "") + HIDDEN


def hidden_values(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with texts in which credentials are hidden."""
    return {name: hidden(value) if isinstance(value, str) else value for name, value in settings.items()}


def hide_in_record(record: logging.LogRecord) -> bool:
    """Hide credentials in a log record, as a filter of a logger."""
    record.msg, record.args = hidden(record.getMessage()), ()
    return True
