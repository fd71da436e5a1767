"""The runs of a check: JSON, written after each, and a Markdown table beside it."""

import json
from pathlib import Path
from typing import Any

from bench.results import machine


def read(path: Path) -> list[dict[str, Any]]:
    """Return the runs of an earlier check, none where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, runs: list[dict[str, Any]], columns: dict[str, str]) -> None:
    """Write the runs, and those of their fields that columns name, by heading, to a .md file of the same name."""
    path.write_text(json.dumps(runs, indent=1) + "\n")
    lines = [columns, ["---"] * len(columns), *([_cell(run.get(key)) for key in columns.values()] for run in runs)]
    cpu = machine()
    head = f"{cpu['cpu']} ({cpu['vectors']}), {cpu['cores_used']} cores, {cpu['memory_gb']} GB, one run each.\n\n"
    path.with_suffix(".md").write_text(head + "".join(f"| {' | '.join(line)} |\n" for line in lines))


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-" if value is None else "no"
    if isinstance(value, dict):
        return ", ".join(f"{number:,} {name}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int | float) else str(value).replace("|", "/")
