"""What several tests share: seeded vectors, tables made of them, and what is read from them; answers: oracle.py."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parent.parent
# Queries of a few rows run once: compiling their code well, and collecting beside them, would take most of the time.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseParallelGC"


def clustered(n: int, dim: int = 16, *, clusters: int = 12, inner: int = 4, seed: int = 0) -> np.ndarray:
    """Return float32 (n, dim): clusters of low intrinsic dimension, away from the origin, in no order."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.5, 1, (clusters, dim))
    planes = rng.normal(0, 1, (clusters, inner, dim)) / np.sqrt(dim)
    which = rng.integers(clusters, size=n)
    inside = np.einsum("ni,nid->nd", rng.normal(0, 1, (n, inner)), planes[which])
    return (centres[which] + inside + rng.normal(0, 0.02, (n, dim))).astype(np.float32)


def grid(side: int, dim: int, *, twins: int) -> np.ndarray:
    """Return float32 integer points: every point of a grid, some of them several times; nothing but ties."""
    points = np.stack(np.meshgrid(*[np.arange(1, side + 1)] * dim), axis=-1).reshape(-1, dim)
    again = np.random.default_rng(1).integers(len(points), size=twins)
    return np.concatenate([points, points[again], np.repeat(points[:1], 40, axis=0)]).astype(np.float32)


def make_table(
    spark,
    vectors: np.ndarray,
    ids: Sequence[Any] | None = None,
    *,
    schema: str = "user_id bigint, vector array<float>",
    partitions: int = 4,
):
    """Return a DataFrame of ids (0, 1, ... when none are given) and vectors, in several partitions."""
    ids = range(len(vectors)) if ids is None else ids
    rows = [(i, vector.tolist()) for i, vector in zip(ids, vectors, strict=True)]
    return spark.createDataFrame(rows, schema).repartition(partitions)


def lists_of(table, id_col: str = "user_id") -> dict[Any, list[tuple[Any, float]]]:
    """Return a nested neighbor table as {id: [(neighbor_id, distance), ...]}, having checked that no id comes twice."""
    rows = table.collect()
    lists = {as_key(row[id_col]): [(as_key(other), told) for other, told in row["neighbors"]] for row in rows}
    assert len(lists) == len(rows)
    return lists


def as_key(user: Any) -> Any:
    """Return an id as a dictionary takes it: Spark 3.5 hands binary ones out as bytearray."""
    return bytes(user) if isinstance(user, bytearray) else user


def long_lists_of(table, id_col: str = "user_id") -> dict[Any, list[tuple[Any, float]]]:
    """Return a long neighbor table as lists_of does, having checked that ranks count from 1."""
    lists: dict[Any, list[tuple[Any, float]]] = {}
    for user, rank, other, told in sorted(table.collect(), key=lambda row: row["rank"]):
        found = lists.setdefault(as_key(user), [])
        found.append((as_key(other), told))
        assert len(found) == rank
    return lists


def users_in(blocks: Any, dim: int) -> list[tuple[Any, int, tuple[float, ...]]]:
    """Return blocks of users as a list of (id, hash of the id, vector)."""
    users = []
    for row in blocks.collect():
        hashes = np.frombuffer(row["hashes"], np.uint64).tolist()
        kind = np.float32 if len(row["vectors"]) == 4 * len(hashes) * dim else np.float64
        vectors = np.frombuffer(row["vectors"], kind).reshape(len(hashes), dim).tolist()
        users += zip(row["ids"], hashes, map(tuple, vectors), strict=True)
    return users


def files_in(folder: Path | str) -> list[str]:
    """Return the names in a folder, hidden ones too."""
    return sorted(os.listdir(folder))


def read_report(folder: Path | str, name: str = "report") -> dict[str, Any]:
    return json.loads((Path(folder) / f"{name}.json").read_text())


def count_cached(spark) -> int:
    """Return how many tables the session holds in its cache."""
    return spark.sparkContext._jsc.getPersistentRDDs().size()


@contextmanager
def configured(spark, **confs: Any) -> Iterator[None]:
    """Set Spark confs, with __ for the dots of their names, and restore them afterwards."""
    names = {name.replace("__", "."): str(value) for name, value in confs.items()}
    before = {name: spark.conf.get(name, None) for name in names}
    try:
        for name, value in names.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, value)


def python_environment() -> dict[str, str]:
    """Return the environment of a subprocess that runs this Python and this annspark, and a Spark of its own."""
    ours = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_SUBMIT_OPTS": JAVA_OPTIONS}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_"))}
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | ours | {"PYTHONPATH": os.pathsep.join(paths)}


def run_process(*command: str, cwd: Path | str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, env=python_environment(), capture_output=True, text=True, timeout=240)


def tables_in(spark, database) -> list[str]:
    """Return the names of a database's tables, without temporary views, which are in every database."""
    return sorted(table.name for table in spark.catalog.listTables(database) if not table.isTemporary)
