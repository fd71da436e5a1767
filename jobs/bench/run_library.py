"""A library's process: SYSTEM:FUNCTION INPUT OUTPUT METRIC SETTING; prints the seconds of its phases as JSON.

The function gets float32 vectors (of length 1 under cosine), the metric and the setting, and returns rows and distances
of some K neighbors, nearest first; each row may find itself.
"""

import importlib
import json
import sys

from bench.arrays import read_vectors, unit, write_neighbors
from bench.phases import timed

COMPILED_ON = 20_000  # rows; on fewer, pynndescent takes other ways than on many and compiles only those


def main(code: str, source: str, output: str, metric: str, words: str) -> None:
    """Read, search and write as a nightly job would."""
    seconds: dict[str, float] = {}
    setting = json.loads(words)
    with timed(seconds, "import"):
        module, function = code.split(":")
        search = getattr(importlib.import_module(f"bench.systems.{module}"), function)
    with timed(seconds, "load"):
        ids, vectors = read_vectors(source)
    if getattr(search, "compiles", False):
        # Compiling happens inside a first search.  What that search itself takes, and the second that tells it, are a
        # rehearsal, which no seconds of a run count.
        for name in ("first", "second"):
            with timed(seconds, name):
                search(unit(vectors[:COMPILED_ON]), metric, setting)
        seconds["compile"] = round(max(0, seconds.pop("first") - seconds["second"]), 3)
        seconds["rehearsal"] = 2 * seconds.pop("second")
    with timed(seconds, "compute"):
        rows, distances = search(unit(vectors) if metric == "cosine" else vectors, metric, setting)
    with timed(seconds, "write"):
        write_neighbors(output, ids, rows, distances)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
