"""The systems compared, and the settings each is tried with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

K = 10
CORES = 2

Setting = dict[str, Any]


def _grid(**values: list[Any]) -> tuple[Setting, ...]:
    return tuple(dict(zip(values, row, strict=True)) for row in product(*values.values()))


def _steps(names: str, *rows: tuple[Any, ...]) -> tuple[Setting, ...]:
    return tuple(dict(zip(names.split(), row, strict=True)) for row in rows)


@dataclass(frozen=True)
class System:
    """A system: what starts it ("annspark", "library" or "spark"), its name there, and its ladder.

    The ladder goes from the cheapest setting to the dearest: where one does not finish, the later ones are not tried.
    """

    runner: str
    code: str
    ladder: tuple[Setting, ...]


_PROBES = _grid(probes=[1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96])
_HNSW = ((8, 40, 16), (12, 60, 32), (16, 80, 50), (16, 100, 90), (16, 150, 160), (24, 200, 300), (32, 300, 600))

SYSTEMS = {
    "annspark": System("annspark", "", _PROBES),
    "annspark-archive": System("annspark", "archive", _PROBES),  # Java starts from an archive of its classes
    "pynndescent": System("library", "pynndescent", _grid(n_neighbors=[11, 16, 24, 32, 48, 64])),
    "hnswlib": System("library", "hnswlib", _steps("M ef_construction ef", *_HNSW)),
    "faiss-hnsw": System("library", "faiss_hnsw", _steps("M ef_construction ef", *_HNSW)),
    "faiss-ivf": System("library", "faiss_ivf", _grid(nprobe=[4, 8, 16, 32, 64, 128, 256])),
    "faiss-exact": System("library", "faiss_exact", ({},)),
    "annoy": System(
        "library",
        "annoy",
        _steps("n_trees search_k", (10, 500), (20, 1500), (40, 4000), (60, 8000), (100, 16000), (150, 40000)),
    ),
    "pipnn": System(
        "library",
        "pipnn",
        _steps("runs beam_L", (1, 16), (1, 32), (1, 64), (2, 64), (2, 128), (3, 256)),
    ),
    "hnswlib-spark": System("spark", "hnswlib_spark", _steps("m efConstruction ef", *_HNSW)),
    "spark-nearest-by": System("spark", "nearest_by", _grid(mode=["approx", "exact"])),
    "mllib-lsh": System(
        "spark",
        "mllib_lsh",
        _steps("numHashTables bucket_rows", (2, 250), (4, 500), (4, 2000), (8, 4000), (16, 8000)),
    ),
}


def as_text(setting: Setting) -> str:
    """Return a setting in words, which are also its name in the results."""
    return " ".join(f"{name}={value}" for name, value in setting.items()) or "as it is"


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Note the seconds a block takes under a name: a system's process tells them by phase."""
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 3)
