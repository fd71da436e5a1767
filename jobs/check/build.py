"""One build in a process of its own: what it took, what it said, and what its table holds."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.environment import JOBS, environment
from bench.watch import watch
from check.exact import score
from check.rows import Rows, write_rows
from check.table import Found, read_found


def build(rows: Rows, settings: dict[str, Any], limit: float, users: int) -> tuple[dict[str, Any], Found | None]:
    """Build a table and return its record and what it holds, None where there is none.

    The record: status, seconds and peak_mb (driver, JVM and workers together) of the process; of annspark's report
    the recall predicted and audited, probes, trees of leaves and the users short and widened; of the table its faults,
    and the true recall and largest error of a distance of so many of its users.
    """
    with tempfile.TemporaryDirectory(prefix="annspark-check-", ignore_cleanup_errors=True) as place:
        source, output = Path(place) / "vectors.parquet", Path(place) / "neighbors"
        settings = settings | write_rows(source, rows)
        start = [sys.executable, str(JOBS / "check" / "child.py"), str(source), str(output)]
        environ = environment("annspark", Path(place), sys.executable)
        seen = watch([*start, json.dumps(settings)], environ, Path(place), limit)
        record = {"status": seen.status, "seconds": round(seen.seconds, 1), "peak_mb": round(seen.peak_mb)}
        if seen.status != "ok":
            return record, None
        told = json.loads(seen.printed.splitlines()[-1])
        record |= _said(told)
        if not output.exists():
            return record | {"status": "recall missed"}, None
        n = rows.shape[0]
        found = read_found(output, n, settings.get("k", 10))
    record["faults"] = found.faults
    if len(found.near) and users:
        asked = np.sort(np.random.default_rng(2).choice(n, min(users, n), replace=False))
        true, error = score(rows, settings.get("metric", "cosine"), asked, found.near[asked], found.told[asked])
        record |= {"true": round(true, 5), "distance_error": float(f"{error:.2g}")}
    return record, found


def _said(report: dict[str, Any]) -> dict[str, Any]:
    recall, goal, rows = report["recall"], report["calibration"], report["rows"]
    said = {"audited": round(recall["mean"], 5), "low": round(recall["low"], 5), "high": round(recall["high"], 5)}
    if goal:
        said |= {"predicted": round(goal["predicted"], 5), "probes": goal["probes"]}
    said |= {"short": rows["short"], "widened": rows["widened"], "leaves": report["leaves"]["count"]}
    said |= {"largest_leaf": report["leaves"]["max_rows"], "pairs_per_user": report["cost"]["pairs_per_user"]}
    return said | {"step_seconds": report["seconds"]}
