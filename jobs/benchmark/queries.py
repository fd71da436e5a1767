"""Queries against indexed rows: the recall asked for, predicted, audited and true, on sets of rows held out.

    python -m jobs.benchmark.queries --sets path/to/NAME.npz path/to/NAME.csr.npz als:path/to/NAME.csr.npz

Prints a Markdown table.  Of an .npz with X, or of a .csr.npz with sparse rows, a tenth of the rows, drawn with a fixed
seed, ask for neighbors among the others.  Of als:NAME.csr.npz Spark's ALS makes vectors of rows (items) and columns
(users), and the users ask for items by inner product.  True is the recall by brute force of 1,000 of the queries in the
published table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import csr_array

import annspark
from tests.oracle import TIE, between

SEED, ASKED, K = 0, 1_000, 10
RANK, TURNS = 32, 5  # of ALS
Vectors = np.ndarray | csr_array


def main() -> None:
    """Run every set, and print a row of the table for each."""
    args = _parser().parse_args()
    spark = SparkSession.builder.appName("queries").getOrCreate()
    print("| set | metric | rows | queries | asked | predicted | probes | audited | true | pairs | seconds |")
    print(f"|{'---|' * 11}")
    for source in args.sets:
        print(run(spark, source, args.metric, args.recall), flush=True)


def run(spark: SparkSession, source: str, metric: str, recall: float) -> str:
    """Return the row of one set."""
    path = source.removeprefix("als:")
    if source.startswith("als:"):
        queries, rows, metric = *_factors(spark, load_vectors(path)), "inner_product"
    else:
        queries, rows = _held_out(load_vectors(path))
    with tempfile.TemporaryDirectory() as folder:
        users, candidates = (as_table(spark, part, Path(folder) / name) for part, name in ((queries, "q"), (rows, "x")))
        start = time.perf_counter()
        try:
            result = annspark.build_neighbors(users, candidates=candidates, k=K, metric=metric, recall=recall)
        except annspark.RecallMissed as missed:
            return f"| {Path(path).name} | {metric} | {missed} |"
        seconds, report = time.perf_counter() - start, result.report
        true = true_recall(result.table, queries, rows, metric)
        result.table.unpersist()
    audited, goal = report.recall, report.calibration
    name = Path(path).name.split(".npz")[0]
    return (
        f"| {name} | {metric} | {rows.shape[0]:,} | {queries.shape[0]:,} | {recall:g} | {goal.predicted:.4f} | "
        f"{goal.probes:.3g} | {audited.mean:.4f} ({audited.low:.4f} to {audited.high:.4f}) | {true:.4f} | "
        f"{report.cost.pairs_per_user:,.0f} | {seconds:.0f} |"
    )


def true_recall(table: DataFrame, queries: Vectors, rows: Vectors, metric: str) -> float:
    """Return the recall of random queries of a published table, by brute force in float64."""
    asked = np.sort(np.random.default_rng(SEED + 1).choice(queries.shape[0], min(ASKED, queries.shape[0]), False))
    lists = dict(table.where(f"user_id IN ({','.join(map(str, asked))})").collect())
    counted = []
    for start in range(0, len(asked), 100):
        some = asked[start : start + 100]
        far = between(queries[some], rows, metric)
        limit = np.partition(far, K - 1, axis=1)[:, K - 1]
        limit += TIE * np.abs(limit)
        for query, its_limit, distances in zip(some.tolist(), limit, far, strict=True):
            neighbors = [neighbor["neighbor_id"] for neighbor in lists[query]]
            counted.append(np.count_nonzero(distances[neighbors] <= its_limit) / K)
    return float(np.mean(counted))


def load_vectors(path: str) -> Vectors:
    """Return the rows of an .npz with X, or of a .csr.npz with sparse rows."""
    with np.load(path) as file:
        if "X" in file.files:
            return file["X"].astype(np.float32)
        return csr_array((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))


def _held_out(vectors: Vectors) -> tuple[Vectors, Vectors]:
    """Return a tenth of the rows, and the others."""
    asks = np.random.default_rng(SEED).random(vectors.shape[0]) < 0.1
    return vectors[np.flatnonzero(asks)], vectors[np.flatnonzero(~asks)]


def _factors(spark: SparkSession, counts: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of columns and of rows, by implicit ALS."""
    from pyspark.ml.recommendation import ALS

    entries = counts.tocoo()
    rows = zip(entries.col.tolist(), entries.row.tolist(), entries.data.tolist(), strict=True)
    rated = spark.createDataFrame(rows, "user int, item int, rating float")
    als = ALS(rank=RANK, maxIter=TURNS, implicitPrefs=True, userCol="user", itemCol="item", seed=SEED)
    model = als.fit(rated)
    users, items = (
        np.array([row["features"] for row in factors.orderBy("id").collect()], np.float32)
        for factors in (model.userFactors, model.itemFactors)
    )
    return users, items


def as_table(spark: SparkSession, vectors: Vectors, path: Path) -> DataFrame:
    """Return a table of vectors, row number = id, read from a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.array(np.arange(vectors.shape[0]))
    if isinstance(vectors, np.ndarray):
        ends = np.arange(len(vectors) + 1, dtype=np.int64) * vectors.shape[1]
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(vectors.ravel()))
    else:
        ends = pa.array(vectors.indptr, pa.int32())
        parts = (pa.ListArray.from_arrays(ends, pa.array(part)) for part in (vectors.indices, vectors.data))
        lists = pa.StructArray.from_arrays(list(parts), ["indices", "values"])
    pq.write_table(pa.table({"user_id": ids, "vector": lists}), path, row_group_size=max(1, len(ids) // 8))
    return spark.read.parquet(str(path))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.queries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sets", nargs="+", required=True, metavar="SET", help="sets of vectors, see above")
    parser.add_argument("--metric", default="cosine", help="of the sets but those of als")
    parser.add_argument("--recall", type=float, default=0.95, help="recall asked for")
    return parser


if __name__ == "__main__":
    main()
