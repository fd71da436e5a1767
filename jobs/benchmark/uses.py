"""The uses on real sets: what follows from annspark's neighbors, beside the same done exactly or by another library.

    pip install '.[bench]'
    python -m jobs.benchmark.uses duplicates outliers votes recommendations --data FOLDER

FOLDER has the sets reddit-tfidf-200k.csr.npz, fashion-mnist-784.npz, sift-photos-100k.npz with the array image beside
X and its truth beside it, and reddit-words.csr.npz.  A line is printed for every measure, as it is known.

duplicates       titles as tf-idf: groups within a cut-off, beside all pairs within it of 5,000 titles
outliers         images, of which some are mixed of two: area under the ROC curve of each score, beside scikit-learn's
                 scores on exact neighbors
votes            descriptors of photographs: which photograph they are of, leave-one-out, beside the votes of the exact
                 neighbors of 1,000 of them
recommendations  words and the forums they are used in: how often a forum that was hidden from each is among 10
                 recommended, beside implicit's item-item model and ALS, and beside the most popular
scale            a made-up table of --rows users with 10 neighbors: seconds of each use, and the driver's memory
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy.sparse import coo_array, csr_array

import annspark
from annspark.uses import duplicates, outliers, recommend, vote
from annspark.uses.report import Used
from jobs.benchmark.queries import Vectors, as_table, load_vectors

SEED, K = 0, 10
CUT_OFFS = (0.05, 0.1, 0.2)  # of duplicates
ASKED = 5_000  # titles whose exact pairs are found
LOOKED_AT = 50  # pairs of duplicates
IMAGES, MIXED, WIDE = 20_000, 200, 20  # images, how many of them are mixed, and neighbors for their scores
WORDS = 30_000  # words that get recommendations
BLOCK = 200  # rows compared at once: their products with all others are hardly sparse


def main() -> None:
    """Measure what is asked for."""
    args = _parser().parse_args()
    spark = SparkSession.builder.appName("uses").getOrCreate()
    for measure in args.uses:
        print(f"\n{measure}", flush=True)
        if measure == "scale":
            measure_scale(spark, args.rows)
        else:
            MEASURES[measure](spark, args.data)


def measure_duplicates(spark: SparkSession, data: Path) -> None:
    """Print groups of near-duplicate titles, and how far they hold all pairs within the cut-off and only such."""
    titles = unit_rows(load_vectors(str(data / "reddit-tfidf-200k.csr.npz")))
    asked = np.sort(np.random.default_rng(SEED).choice(titles.shape[0], ASKED, replace=False))
    near = pairs_within(titles, asked, max(CUT_OFFS))
    with neighbors_of(spark, titles, "cosine", K) as table:
        for cut_off in CUT_OFFS:
            found = duplicates(table, max_distance=cut_off)
            rows = np.array(found.table.select("user_id", "kept_id").collect(), int).reshape(-1, 2)
            kept = np.arange(titles.shape[0])
            kept[rows[:, 0]] = rows[:, 1]
            facts = found.report.facts
            _say(
                f"cut-off {cut_off}: {facts['groups']:,} groups of {facts['grouped']:,} titles, "
                f"{facts['to_leave_out']:,} to leave out, largest {facts['largest']}, diameters {facts['diameters']}; "
                f"{_seconds(found)}"
            )
            one, other, _ = near[near[:, 2] <= cut_off].T
            together = np.mean(kept[one.astype(int)] == kept[other.astype(int)])
            _say(f"  {len(one):,} exact pairs of {ASKED:,} titles: {together:.4f} of them in one group")
            left = rows[rows[:, 0] != rows[:, 1]]
            far = 1 - (titles[left[:, 0]] * titles[left[:, 1]]).sum(axis=1)
            _say(f"  {np.mean(far <= cut_off + 1e-6):.4f} of those to leave out are within the cut-off of the one kept")
            for sentence in found.report.warnings:
                _say(f"  {sentence}")
            if cut_off == CUT_OFFS[1]:
                _look_at(titles, left)
            found.table.unpersist()


def _look_at(titles: csr_array, pairs: np.ndarray) -> None:
    """Print the words that some rows share with the row that stands for them: the set has no texts, only numbers."""
    some = np.random.default_rng(SEED).choice(len(pairs), min(LOOKED_AT, len(pairs)), replace=False)
    shares = []
    for row, kept in pairs[np.sort(some)]:
        one, other = (set(titles[[i]].indices.tolist()) for i in (row, kept))
        shares.append(len(one & other) / len(one | other))
        _say(f"  {row} and {kept}: {len(one & other)} words shared, {len(one ^ other)} of one only")
    same = np.mean(np.array(shares) == 1)
    _say(f"  {same:.0%} of {len(shares)} pairs have the same words, the mean share is {np.mean(shares):.3f}")


def unit_rows(rows: csr_array) -> csr_array:
    """Return rows at length 1: float64."""
    lengths = np.sqrt((rows * rows).sum(axis=1))
    return csr_array(rows.astype(np.float64).multiply(1 / lengths[:, None]))


def pairs_within(unit: csr_array, asked: np.ndarray, cut_off: float) -> np.ndarray:
    """Return all pairs of some rows and any others within a cosine distance: float64 (n, 3), row, other, distance."""
    turned, found = csr_array(unit.T), []
    for start in range(0, len(asked), BLOCK):
        some = asked[start : start + BLOCK]
        product = coo_array(unit[some] @ turned)
        row, other = some[product.coords[0]], product.coords[1]
        near = (product.data >= 1 - cut_off) & (row != other)
        found.append(np.stack([row[near], other[near], 1 - product.data[near]], axis=1))
    return np.concatenate(found)


def measure_outliers(spark: SparkSession, data: Path) -> None:
    """Print how well scores tell images that are the mean of two from the others."""
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

    rng = np.random.default_rng(SEED)
    images = load_vectors(str(data / "fashion-mnist-784.npz"))[:IMAGES]
    one, other = rng.permutation(IMAGES)[: 2 * MIXED].reshape(2, MIXED)
    is_mixed = np.zeros(IMAGES, bool)
    is_mixed[one] = True
    images[one] = (images[one] + images[other]) / 2
    start = time.perf_counter()
    far, _ = NearestNeighbors(n_neighbors=WIDE, algorithm="brute").fit(images).kneighbors()
    factor = -LocalOutlierFactor(n_neighbors=WIDE, algorithm="brute").fit(images).negative_outlier_factor_
    exact = {"kth": far[:, -1], "mean": far.mean(axis=1), "lof": factor}
    _say(f"scikit-learn: {time.perf_counter() - start:.0f} s")
    with neighbors_of(spark, images, "euclidean", WIDE) as table:
        for method, scores in exact.items():
            found = outliers(table, method=method)
            told = dict(found.table.select("user_id", "score").collect())
            ours = np.array([told[row] for row in range(IMAGES)])
            _say(
                f"{method}: AUC {roc_auc_score(is_mixed, ours):.4f}, exact {roc_auc_score(is_mixed, scores):.4f}; "
                f"{_seconds(found)}"
            )
            found.table.unpersist()


def measure_votes(spark: SparkSession, data: Path) -> None:
    """Print how often the neighbors of a descriptor name the photograph it is of."""
    with np.load(data / "sift-photos-100k.npz") as file, np.load(data / "sift-photos-100k.truth.npz") as truth:
        points, photographs = file["X"].astype(np.float32), file["image"]
        asked, exact = truth["query_rows"], truth["neighbor_rows"]
    labels = spark.createDataFrame(list(enumerate(photographs.tolist())), "user_id bigint, label int")
    with neighbors_of(spark, points, "euclidean", K) as table:
        found = vote(table, labels, weights="uniform")
        facts = found.report.facts
        told = dict(found.table.select("user_id", "predicted").collect())
        ours = np.mean([told[row] == photographs[row] for row in asked.tolist()])
        votes = [np.bincount(photographs[others]).argmax() for others in exact]
        _say(
            f"all {facts['tested']:,}: accuracy {facts['accuracy']:.4f}, the commonest {facts['commonest']:.4f}; "
            f"of {len(asked):,}: {ours:.4f}, exact {np.mean(votes == photographs[asked]):.4f}; {_seconds(found)}"
        )
        found.table.unpersist()


def measure_recommendations(spark: SparkSession, data: Path) -> None:
    """Print how often the forum hidden from each word is among 10 recommended."""
    words = load_vectors(str(data / "reddit-words.csr.npz"))
    rng = np.random.default_rng(SEED)
    enough = np.flatnonzero(np.diff(words.indptr) >= 5)
    words = words[np.sort(rng.permutation(enough)[:WORDS])]
    hidden = np.array([rng.integers(start, end) for start, end in zip(words.indptr, words.indptr[1:], strict=False)])
    wanted = words.indices[hidden]
    is_kept = np.ones(words.nnz, bool)
    is_kept[hidden] = False
    entries = coo_array(words)
    kept = csr_array(
        (entries.data[is_kept], (entries.coords[0][is_kept], entries.coords[1][is_kept])), shape=words.shape
    )
    entries = coo_array(kept)
    taken = spark.createDataFrame(
        list(zip(entries.coords[0].tolist(), entries.coords[1].tolist(), entries.data.tolist(), strict=True)),
        "user_id bigint, item_id int, strength double",
    )
    with neighbors_of(spark, kept, "cosine", K) as table:
        for popularity in (0.0, 0.3):
            found = recommend(table, taken, k=K, strength_col="strength", popularity=popularity)
            rows = found.table.select("user_id", "item_id").collect()
            hits = np.mean(_hits(rows, wanted))
            facts = found.report.facts
            _say(
                f"annspark, {K} neighbors, popularity {popularity}: hit rate {hits:.4f}, "
                f"{facts['recommended_items']:,} of {facts['items']:,} forums; {_seconds(found)}"
            )
            found.table.unpersist()
    _measure_others(kept, wanted)


def _measure_others(kept: csr_array, wanted: np.ndarray) -> None:
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import CosineRecommender
    from scipy.sparse import csr_matrix

    matrix, users = csr_matrix(kept).astype(np.float32), np.arange(kept.shape[0])
    models = {
        "implicit, item-item": CosineRecommender(K=50),
        "implicit, ALS of 64": AlternatingLeastSquares(factors=64, random_state=SEED),
    }
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(matrix, show_progress=False)
        items, _ = model.recommend(users, matrix, N=K)
        spent = time.perf_counter() - start
        hits = (items == wanted[:, None]).any(axis=1).mean()
        _say(f"{name}: hit rate {hits:.4f}, {len(np.unique(items)):,} forums; {spent:.0f} s")
    popular = np.argsort(-np.bincount(kept.indices, minlength=kept.shape[1]), kind="stable").tolist()
    taken = map(set, np.split(kept.indices, kept.indptr[1:-1]))
    most = [[item for item in popular if item not in its_own][:K] for its_own in taken]
    _say(f"the most popular: hit rate {np.mean([one in ten for one, ten in zip(wanted, most, strict=True)]):.4f}")


def _hits(rows: list, wanted: np.ndarray) -> np.ndarray:
    """Return for each user whether the item wanted is among those recommended."""
    found = np.zeros(len(wanted), bool)
    for user, item in rows:
        found[user] |= item == wanted[user]
    return found


def measure_scale(spark: SparkSession, rows: int) -> None:
    """Print the seconds of each use of a made-up table: rows on a ring, with the 10 around each as neighbors."""
    ring = spark.range(rows).selectExpr("id AS user_id", "explode(array(-5, -4, -3, -2, -1, 1, 2, 3, 4, 5)) AS step")
    pairs = ring.selectExpr("user_id", f"pmod(user_id + step, {rows}) AS neighbor_id")
    hashed = F.xxhash64(F.least("user_id", "neighbor_id"), F.greatest("user_id", "neighbor_id"))
    pairs = pairs.withColumn("distance", (F.pmod(hashed, F.lit(1_000_000)) / 1_000_000).cast("float"))
    labels = spark.range(0, rows, 2).selectExpr("id AS user_id", "id % 7 AS label")
    taken = spark.range(rows).selectExpr("id AS user_id", "explode(sequence(1, 20)) AS n")
    taken = taken.selectExpr("user_id", "pmod(xxhash64(user_id, n), 5000) AS item_id")
    with tempfile.TemporaryDirectory() as folder:
        pairs.write.parquet(f"{folder}/neighbors")
        neighbors = spark.read.parquet(f"{folder}/neighbors")
        for name, use in {
            "outliers, kth": lambda: outliers(neighbors),
            "duplicates": lambda: duplicates(neighbors, max_distance=0.05),
            "vote": lambda: vote(neighbors, labels),
            "outliers, lof": lambda: outliers(neighbors, method="lof"),
            "recommend": lambda: recommend(neighbors, taken),
        }.items():
            found = use()
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            _say(f"{name}: {_seconds(found)}; driver's Python at most {memory:,.0f} MB; {found.report.facts}")
            found.table.unpersist()


@contextmanager
def neighbors_of(spark: SparkSession, vectors: Vectors, metric: str, k: int) -> Iterator[DataFrame]:
    """Build the neighbor table of some rows, row number = id, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        built = annspark.build_neighbors(as_table(spark, vectors, Path(folder) / "x"), k=k, metric=metric)
        rows, recall = built.report.rows.written, built.report.recall.mean
        _say(f"{rows:,} rows, {k} neighbors: recall {recall:.4f}, {time.perf_counter() - start:.0f} s")
        yield built.table
        built.table.unpersist()


def _seconds(found: Used) -> str:
    return f"{found.report.seconds['total']:.0f} s"


def _say(line: str) -> None:
    print(line, flush=True)


MEASURES = {
    "duplicates": measure_duplicates,
    "outliers": measure_outliers,
    "votes": measure_votes,
    "recommendations": measure_recommendations,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark.uses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("uses", nargs="+", choices=(*MEASURES, "scale"), help="what to measure")
    parser.add_argument("--data", type=Path, default=Path(), metavar="FOLDER", help="folder of the sets, see above")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of scale (1,000,000)")
    return parser


if __name__ == "__main__":
    main()
