"""What pages say of the settings; python -m tests.settings_pages writes it anew.

It makes conf/local.toml and the table of the README's section "Settings" from the entries of Settings, in
annspark/settings.py, and of Job, in annspark/job.py.
"""

import json
import re
import textwrap
from dataclasses import MISSING

from annspark.allowed import settings_in
from annspark.job import Job
from annspark.settings import Settings
from tests.helpers import REPOSITORY

PLACES, SETTINGS = settings_in(Job), settings_in(Settings)
EVERY = PLACES | SETTINGS
HEADER = """\
# Settings of `annspark build` on one machine: annspark build --config conf/local.toml
# Flags win over this file. A line that is commented out shows what its setting can be.
# python -m tests.settings_pages makes this file from annspark/settings.py and annspark/job.py.

# A name with dots and no slash is a catalog table. Anything else is a path.
"""
DEMO = {"input": "jobs/demo/words.parquet", "output": ".demo/neighbors", "overwrite": True}
ROW = r"^\| `\w+` \|.*\n"


def local_toml():
    """Return conf/local.toml: every setting at its default, and where the demo reads and writes."""
    return HEADER + "\n".join(_block(name, one) for name, one in EVERY.items())


def _block(name, one):
    value = DEMO.get(name, one.example if one.default is None else one.default)
    unset = name not in DEMO and one.default is None
    lines = [*textwrap.wrap(one.help, 118), *textwrap.wrap(f"{one.allowed_text} Default: {one.default_text}.", 118)]
    return "".join(f"# {line}\n" for line in lines) + f"{'# ' if unset else ''}{name} = {_toml(value)}\n"


def _toml(value):
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
    return json.dumps(value)


def readme_rows():
    """Return the rows of the README's table: setting, default, allowed, what it does."""
    return [_row(name, one) for name, one in (SETTINGS | PLACES).items()]


def _row(name, one):
    default = one.default_text if one.default in (MISSING, None) else f"`{one.default_text}`"
    return f"| `{name}` | {default} | {one.allowed} | {one.help} |"


def readme_section(readme):
    """Return the README's section on settings, without its heading."""
    return re.search(r"^## Settings\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)[1]


def _write():
    (REPOSITORY / "conf" / "local.toml").write_text(local_toml())
    path = REPOSITORY / "README.md"
    section = readme_section(path.read_text())
    first, *others = re.split(f"(?:{ROW})+", section, flags=re.MULTILINE)
    made = "".join([first, *(f"{row}\n" for row in readme_rows()), *others])
    path.write_text(path.read_text().replace(section, made))


if __name__ == "__main__":
    _write()
