"""One run of annspark or of another way to the neighbors of sparse rows: a process, from start to scored table."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from bench.commands import our_command
from bench.environment import environment
from bench.ladders import K, Setting
from bench.watch import watch
from check.rows import SPARSE_COLUMNS
from check.table import read_found
from check.truth import recall_under_cosine

_FEW = (2, 8, 32, 128)
LADDERS: dict[str, list[Setting]] = {
    "annspark": [{"recall": 0.95}, {"recall": 0.99}],
    "pruning": [{"leaders": 0, "indexes": 1, "k_clusters": few} for few in _FEW],
    "pruning-defaults": [{"leaders": 1000, "indexes": 2, "k_clusters": few} for few in _FEW],
    "sklearn-brute": [{"block": 4000}],
}


def run_once(
    system: str, setting: Setting, source: Path, rows: csr_array, truth: dict[str, np.ndarray], limit: float
) -> dict[str, Any]:
    """Return the record of a run: status, seconds, peak_mb, and of its table recall and faults."""
    with tempfile.TemporaryDirectory(prefix="annspark-check-", ignore_cleanup_errors=True) as place:
        output = Path(place) / "neighbors"
        command = _command(system, setting, source, output)
        environ = environment("annspark" if system == "annspark" else "faiss-exact", Path(place), sys.executable)
        seen = watch(command, environ, Path(place), limit)
        record = {"status": seen.status, "seconds": round(seen.seconds, 1), "peak_mb": round(seen.peak_mb)}
        if seen.status != "ok":
            return record
        if system == "annspark":
            told = json.loads((Path(f"{output}.report") / "report.json").read_text())
            record |= {"audited": round(told["recall"]["mean"], 5), "step_seconds": told["seconds"]}
            record |= {"widened": told["rows"]["widened"], "cost": told["cost"], "leaves": told["leaves"]}
        record["recall"] = round(recall_under_cosine(output, rows, truth), 5)
        record["faults"] = read_found(output, rows.shape[0], K).faults
    return record


def _command(system: str, setting: Setting, source: Path, output: Path) -> list[str]:
    if system == "annspark":
        places = {"input": source, "output": output}
        return our_command(sys.executable, SPARSE_COLUMNS | {"metric": "cosine"} | places | setting)
    # -P: or Python would take the folder it stands in for a place of packages.
    process = [sys.executable, "-P", "-m", "check.run_sparse", system]
    return [*process, str(source), str(output), json.dumps(setting)]
