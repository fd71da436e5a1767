"""The uses on real sets: what follows from annspark's neighbors, beside the same done exactly or by another library.

    pip install '.[bench]'
    python -m jobs.benchmark.uses duplicates outliers votes recommendations --data FOLDER

FOLDER has the sets reddit-tfidf-200k.csr.npz, fashion-mnist-784.npz, sift-photos-100k.npz with the array image beside
X and its truth beside it, and reddit-words.csr.npz.  A line is printed for every measure, as it is known.

duplicates       titles as tf-idf: groups within a cut-off, beside the components of all pairs within it, by SciPy
outliers         images, of which some are mixed of two: area under the ROC curve of each score, beside scikit-learn's
                 scores on exact neighbors
votes            descriptors of photographs: which photograph they are of, leave-one-out, beside the votes of the exact
                 neighbors of 1,000 of them
recommendations  words and the forums they are used in: how often a forum that was hidden from each is among 10
                 recommended, beside implicit's item-item model and ALS, and beside the most popular
scale            synthetic rows, --rows of them: seconds of each use, and the driver's memory
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
from scipy.sparse.csgraph import connected_components

import annspark
from annspark.uses import duplicates, outliers, recommend, vote
from annspark.uses.report import Used
from jobs.benchmark.queries import Vectors, as_table, load_vectors
from jobs.benchmark.sets import prepare

SEED, K = 0, 10
CUT_OFFS = (0.05, 0.1, 0.2)  # of duplicates
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
    """Print groups of near-duplicate titles, and how far they are those of all pairs within the cut-off."""
    titles = load_vectors(str(data / "reddit-tfidf-200k.csr.npz"))
    far = pairs_within(titles, max(CUT_OFFS))
    with neighbors_of(spark, titles, "cosine", K) as table:
        for cut_off in CUT_OFFS:
            within = far[far[:, 2] <= cut_off]
            exact = components(within[:, :2].astype(int), titles.shape[0])
            found = duplicates(table, max_distance=cut_off)
            rows = np.array(found.table.select("user_id", "kept_id").collect(), int).reshape(-1, 2)
            group = np.arange(titles.shape[0])
            group[rows[:, 0]] = rows[:, 1]
            both, ours, theirs = pairs_together(group, exact), pairs_together(group), pairs_together(exact)
            facts = found.report.facts
            _say(
                f"cut-off {cut_off}: {facts['groups']:,} groups of {facts['grouped']:,} titles, "
                f"{facts['to_leave_out']:,} to leave out, largest {facts['largest']}, diameters {facts['diameters']}"
            )
            left_out = titles.shape[0] - len(np.unique(exact))
            _say(
                f"  exact: {left_out:,} to leave out; of our pairs in one group {both / ours:.4f} are in one of its "
                f"groups, of its pairs {both / theirs:.4f} in one of ours"
            )
            for sentence in found.report.warnings:
                _say(f"  {sentence}")
            if cut_off == CUT_OFFS[1]:
                _look_at(titles, rows[rows[:, 0] != rows[:, 1]])
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


def pairs_within(rows: csr_array, cut_off: float) -> np.ndarray:
    """Return all pairs of rows within a cosine distance: float64 (n, 3), low, high, distance."""
    lengths = np.sqrt((rows * rows).sum(axis=1))
    unit = csr_array(rows.astype(np.float64).multiply(1 / lengths[:, None]))
    turned, found = csr_array(unit.T), []
    for start in range(0, rows.shape[0], BLOCK):
        product = coo_array(unit[start : start + BLOCK] @ turned)
        low, high = product.coords[0] + start, product.coords[1]
        near = (product.data >= 1 - cut_off) & (low < high)
        found.append(np.stack([low[near], high[near], 1 - product.data[near]], axis=1))
    return np.concatenate(found)


def components(links: np.ndarray, n: int) -> np.ndarray:
    """Return the component of every row."""
    graph = csr_array((np.ones(len(links)), (links[:, 0], links[:, 1])), (n, n))
    return connected_components(graph, directed=False)[1]


def pairs_together(*groups: np.ndarray) -> int:
    """Return how many pairs of rows are in one group, of each of the groupings."""
    _, sizes = np.unique(np.stack(groups), axis=1, return_counts=True)
    return int((sizes * (sizes - 1) // 2).sum())


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
    for k in (K, 5 * K):
        with neighbors_of(spark, kept, "cosine", k) as table:
            for popularity in (0.0, 0.3):
                found = recommend(table, taken, k=K, strength_col="strength", popularity=popularity)
                rows = found.table.select("user_id", "item_id").collect()
                hits = np.mean(_hits(rows, wanted))
                facts = found.report.facts
                _say(
                    f"annspark, {k} neighbors, popularity {popularity}: hit rate {hits:.4f}, "
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
    """Print the seconds of each use on synthetic rows, of which 1 in 100 is nearly the same as another."""
    folder = Path(tempfile.gettempdir()) / "annspark-bench"
    made = prepare(f"synthetic:{rows}x64", folder)
    vectors = spark.read.parquet(str(made.folder / "vectors.parquet"))
    start = time.perf_counter()
    built = annspark.build_neighbors(vectors, k=K, recall=0.9)
    _say(f"{rows:,} rows, {K} neighbors: {time.perf_counter() - start:.0f} s")
    users = built.table.select("user_id")
    labels = users.where("user_id % 2 = 0").select("user_id", (F.col("user_id") % 7).alias("label"))
    taken = users.select("user_id", F.explode(F.sequence(F.lit(1), F.lit(20))).alias("n"))
    taken = taken.select("user_id", F.pmod(F.xxhash64("user_id", "n"), F.lit(5000)).alias("item_id"))
    near = built.table.select(F.percentile_approx(F.col("neighbors.distance")[0], 0.05)).collect()[0][0]
    for name, use in {
        "duplicates": lambda: duplicates(built.table, max_distance=near),
        "outliers": lambda: outliers(built.table, method="lof"),
        "vote": lambda: vote(built.table, labels),
        "recommend": lambda: recommend(built.table, taken),
    }.items():
        found = use()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _say(f"{name}: {_seconds(found)}; {found.table.count():,} rows; driver's Python at most {memory:,.0f} MB")
        _say(f"  {found.report.facts}")
        found.table.unpersist()
    built.table.unpersist()


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
