"""Published tables are the same to the bit as they were: ids, neighbors and distances of small builds of every kind.

digests.json holds one digest a build. A change that is meant to change tables writes it anew:
python -m tests.test_digests

The numbers are chosen so that no processor can tell them otherwise: whole ones, whose products float32 holds, in trees
whose planes lie between two points; for cosine vectors of +1 and -1, whose lengths are powers of two.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors

from annspark import build_neighbors
from annspark.cli import main
from annspark.core.calibrate import choose_probes
from tests.helpers import make_table

KNOWN = Path(__file__).with_name("digests.json")
ROWS = 900
pytestmark = pytest.mark.spark35
COMMON = {"k": 5, "leaf_rows": 40, "audit_users": 60, "split": "two_points", "probes": 3}


def whole(rows: int = ROWS, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Return whole numbers in some clusters, a tenth of the rows twice: float32 (rows, dim)."""
    rng = np.random.default_rng(seed)
    points = rng.integers(-90, 90, (15, dim))[rng.integers(15, size=rows)] + rng.integers(-12, 13, (rows, dim))
    points[: rows // 10] = points[rows - rows // 10 :]
    return points.astype(np.float32)


def signs(rows: int = ROWS, dim: int = 64) -> np.ndarray:
    """Return vectors of +1 and -1 in some clusters, whose lengths are powers of two: float32 (rows, dim)."""
    rng = np.random.default_rng(1)
    centres = rng.choice([-1, 1], (12, dim))[rng.integers(12, size=rows)]
    return np.where(rng.random((rows, dim)) < 0.1, -centres, centres).astype(np.float32)


def dense(spark, vectors, ids=None, schema="user_id bigint, vector array<float>"):
    return make_table(spark, vectors, ids, schema=schema, partitions=3)


def sets(spark, rows: int = ROWS):
    rng = np.random.default_rng(2)
    told = [(i, sorted(rng.choice(60, 6, replace=False).tolist())) for i in range(rows)]
    return spark.createDataFrame(told, "user_id bigint, vector array<int>").repartition(3)


def sparse(spark, rows: int = ROWS):
    """Rows of four numbers 1 or -1, whose lengths are 2."""
    rng = np.random.default_rng(3)
    told = [
        (i, {int(c): float(rng.choice([-1, 1])) for c in np.unique(rng.choice(80, 9) ** 2 // 80)[:4]})
        for i in range(rows)
    ]
    return spark.createDataFrame(told, "user_id bigint, vector map<int,float>").repartition(3)


def bits(spark):
    rng = np.random.default_rng(4)
    told = [(i, bytes(rng.integers(0, 256, 4, dtype=np.uint8).tolist())) for i in range(ROWS)]
    return spark.createDataFrame(told, "user_id bigint, vector binary").repartition(3)


def zeros_and_ones(spark):
    return dense(spark, (signs() > 0).astype(np.float32))


def mllib(spark):
    told = [(i, Vectors.dense(row.tolist())) for i, row in enumerate(whole())]
    return spark.createDataFrame(told, ["user_id", "vector"]).repartition(3)


def twins(spark):
    return dense(spark, np.repeat(whole(30), 30, axis=0))


def bad_rows(spark):
    odd = [(10_000, None), (10_001, [1.0]), (10_002, [float("nan")] * 8), (None, [1.0] * 8), (3, [2.0] * 8)]
    return dense(spark, whole()).unionByName(spark.createDataFrame(odd, "user_id bigint, vector array<float>"))


def texts(spark):
    return dense(spark, whole(), [f"u{i * 7919 % 9001}" for i in range(ROWS)], "user_id string, vector array<float>")


BUILDS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "euclidean": (lambda spark: dense(spark, whole()), {"metric": "euclidean"}),
    "doubles": (
        lambda spark: dense(spark, whole() + 2.0**30, schema="user_id int, vector array<double>"),
        {"metric": "euclidean"},
    ),
    "cosine": (lambda spark: dense(spark, signs()), {"metric": "cosine"}),
    "inner_product": (lambda spark: dense(spark, whole()), {"metric": "inner_product"}),
    "manhattan": (lambda spark: dense(spark, whole()), {"metric": "manhattan"}),
    "hamming": (zeros_and_ones, {"metric": "hamming"}),
    "hamming_bits": (bits, {"metric": "hamming"}),
    "jaccard_sets": (sets, {"metric": "jaccard"}),
    "jaccard_bits": (bits, {"metric": "jaccard"}),
    "sparse_cosine": (sparse, {"metric": "cosine"}),
    "sparse_euclidean": (sparse, {"metric": "euclidean"}),
    "sparse_inner_product": (sparse, {"metric": "inner_product", "trees": 3}),
    "mllib": (mllib, {"metric": "euclidean", "shape": "long"}),
    "ids_of_text": (texts, {"metric": "euclidean"}),
    "ids_of_text_long_mutual": (texts, {"metric": "euclidean", "shape": "long", "links": "mutual"}),
    "either": (lambda spark: dense(spark, whole()), {"metric": "euclidean", "links": "either"}),
    "max_distance": (lambda spark: dense(spark, whole()), {"metric": "euclidean", "max_distance": 30}),
    "twins": (twins, {"metric": "euclidean"}),
    "bad_rows": (bad_rows, {"metric": "euclidean", "on_bad_row": "drop"}),
    "two_trees": (lambda spark: dense(spark, whole()), {"metric": "euclidean", "trees": 2, "probes": 1.5}),
    "recall": (lambda spark: dense(spark, whole()), {"metric": "euclidean", "probes": None, "recall": 0.9}),
    "top_up": (
        lambda spark: dense(spark, whole()),
        {"metric": "euclidean", "probes": None, "recall": 0.9, "top_up": True},
    ),
    "sparse_top_up": (sparse, {"metric": "cosine", "probes": None, "recall": 0.9, "top_up": True}),
    "few": (lambda spark: dense(spark, whole(7)), {"metric": "euclidean", "k": 10}),
}


def digest_of(table) -> str:
    """Return a digest of a neighbor table's rows, whatever their order; of distances all bits."""
    rows = sorted(repr(row) for row in table.collect())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def built(spark, name: str) -> str:
    make, named = BUILDS[name]
    result = build_neighbors(make(spark), **(COMMON | named))
    digest = digest_of(result.table)
    result.table.unpersist()
    return digest


def published(spark, folder: Path) -> str:
    """Return the digest of a catalog table that a job publishes."""
    spark.sql("CREATE DATABASE IF NOT EXISTS digests")
    dense(spark, whole(), [10_000 - i for i in range(ROWS)]).write.parquet(str(folder / "in"))
    flags = {name.replace("_", "-"): str(value) for name, value in COMMON.items()} | {"metric": "euclidean"}
    told = [word for name, value in flags.items() for word in (f"--{name}", value)]
    report = ["--report", str(folder / "report")]
    assert main(["build", "--input", str(folder / "in"), "--output", "digests.neighbors", *report, *told]) == 0
    digest = digest_of(spark.read.table("digests.neighbors"))
    spark.sql("DROP DATABASE digests CASCADE")
    return digest


@pytest.fixture(scope="module")
def known() -> dict[str, str]:
    found: dict[str, str] = json.loads(KNOWN.read_text())
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_a_table_is_the_same_to_the_bit(spark, known, monkeypatch, name):
    if "top_up" in name:
        promise_much(monkeypatch)
    assert built(spark, name) == known[name]


def test_a_published_catalog_table_is_the_same_to_the_bit(spark, known, tmp_path):
    assert published(spark, tmp_path) == known["catalog_table"]


def promise_much(monkeypatch) -> None:
    """Have calibration promise much of few probes, so that another tree is wanted."""
    monkeypatch.setattr(
        "annspark.core.calibrate.choose_probes", lambda *told: replace(choose_probes(*told), probes=1.5, target=0.97)
    )


if __name__ == "__main__":
    import sys
    import tempfile

    from tests.conftest import make_session

    session = make_session(tempfile.mkdtemp())
    digests = {}
    with pytest.MonkeyPatch.context() as patch:
        for build in BUILDS:
            if "top_up" in build:
                promise_much(patch)
            digests[build] = built(session, build)
            patch.undo()
    digests["catalog_table"] = published(session, Path(tempfile.mkdtemp()))
    Path(sys.argv[1] if sys.argv[1:] else KNOWN).write_text(json.dumps(digests, indent=1) + "\n")
