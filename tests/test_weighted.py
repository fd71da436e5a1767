"""Several vector columns count together: tables, queries and searches against weighted sums by NumPy."""

import json

import numpy as np
import pytest
from pyspark.ml.linalg import Vectors

from annspark import InputError, SettingsError, build_neighbors, fit, load, open_index
from annspark.cli import main
from annspark.evaluate import evaluate_neighbors
from annspark.flow.read import read_vectors
from annspark.settings import Settings
from tests.helpers import clustered, files_in, lists_of, read_report

N, K = 300, 5
WEIGHTS = {"tags": 0.2, "profile": 0.8}
QUICK = {"vector_cols": WEIGHTS, "k": K, "audit_users": 60}
DOUBLES = "user_id bigint, profile array<double>, tags array<double>"
PROFILES = clustered(N, 8).astype(np.float64) * np.pi  # of numbers that float32 does not hold
TAGS = clustered(N, 3, seed=1).astype(np.float64) * 20 * np.pi
SLOW = pytest.mark.slow


def table_of(spark, profiles, tags, schema=DOUBLES, convert=lambda row: row.tolist()):
    rows = [(i, convert(one), convert(other)) for i, (one, other) in enumerate(zip(profiles, tags, strict=True))]
    return spark.createDataFrame(rows, schema).repartition(3)


def told(queries, rows, metric):
    """Return what is published of every query and every row: float64 (n_queries, n_rows), and how to sort it."""

    def alike(one, other):
        if metric == "cosine":
            one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
        return one @ other.T

    total = 0.8 * alike(queries[0], rows[0]) + 0.2 * alike(queries[1], rows[1])
    return (total, -1) if metric == "inner_product" else (1 - total, 1)


def assert_nearest(lists, queries, rows, metric, *, itself=False):
    """Assert that each list holds the k nearest rows, without the user where it is one of them, and their distances."""
    far, sign = told(queries, rows, metric)
    assert sorted(lists) == list(range(len(far)))
    for user, found in lists.items():
        near = [other for other in np.argsort(sign * far[user]).tolist() if itself or other != user][:K]
        assert [other for other, _ in found] == near
        np.testing.assert_allclose([one for _, one in found], far[user, near], rtol=1e-5, atol=1e-6)


def neighbors_of(table, **named):
    result = build_neighbors(table, **(QUICK | named))
    lists = lists_of(result.table)
    result.table.unpersist()
    return lists, result.report


@pytest.fixture(scope="module")
def table(spark):
    return table_of(spark, PROFILES, TAGS).cache()


@pytest.mark.spark35
@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_neighbors_are_those_of_the_weighted_sum(table, metric):
    lists, report = neighbors_of(table, metric=metric)
    assert_nearest(lists, (PROFILES, TAGS), (PROFILES, TAGS), metric)
    assert report.recall.mean == 1
    assert report.settings["vector_cols"] == WEIGHTS
    json.dumps(report.settings)


@SLOW
def test_weights_and_the_order_of_columns_do_what_they_say(table):
    lists, _ = neighbors_of(table)
    for same in ({"profile": 0.8, "tags": 0.2}, {"profile": 8, "tags": 2}):
        again, _ = neighbors_of(table, vector_cols=same)
        assert {user: [other for other, _ in found] for user, found in again.items()} == {
            user: [other for other, _ in found] for user, found in lists.items()
        }
    alone, _ = neighbors_of(table, vector_cols={"profile": 3})
    plain, _ = neighbors_of(table, vector_cols=None, vector_col="profile")
    assert {user: [other for other, _ in found] for user, found in alone.items()} == {
        user: [other for other, _ in found] for user, found in plain.items()
    }
    assert alone != lists


def test_differences_that_only_float64_holds_decide(spark):
    rng = np.random.default_rng(2)
    parts = [rng.normal(size=dim) + 1e-7 * rng.normal(size=(N, dim)) for dim in (6, 4)]
    lists, report = neighbors_of(table_of(spark, *parts))
    assert report.recall.mean == 1
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    apart = [((part[:, None] - part) ** 2).sum(axis=2) / 2 for part in unit]  # 1 - cos, to more digits than 1 - a @ b
    far = 0.8 * apart[0] + 0.2 * apart[1]
    np.fill_diagonal(far, np.inf)
    for user, found in lists.items():
        assert [other for other, _ in found] == np.argsort(far[user])[:K].tolist()
        np.testing.assert_allclose([one for _, one in found], np.sort(far[user])[:K], rtol=1e-5)


BAD = {
    "null_vector": [(301, None, [1.0, 2.0]), (302, [1.0, 2.0, 3.0], None)],
    "nan": [(303, [1.0, 2.0, 3.0], [1.0, None])],
    "zero_vector": [(304, [1.0, 2.0, 3.0], [0.0, 0.0]), (305, [0.0, 0.0, 0.0], [1.0, 2.0])],
    # 2 and 3 numbers are as many as 3 and 2.
    "wrong_length": [(306, [1.0, 2.0], [1.0, 2.0, 3.0]), (307, [1.0, 2.0, 3.0], [1.0]), (308, [1.0, 2.0, 3.0], [])],
}
GOOD = [(i, [float(i), 1.0, 2.0], [1.0, float(i)]) for i in range(1, 11)]


def test_a_row_is_bad_if_one_of_its_vectors_is(spark, stage):
    rows = spark.createDataFrame([*GOOD, *(row for some in BAD.values() for row in some)], DOUBLES).repartition(3)
    users = read_vectors(rows, Settings(vector_cols=WEIGHTS, on_bad_row="drop"), stage, 2)
    assert users.dropped == {name: len(some) for name, some in BAD.items()}
    assert users.examples == {name: some[0][0] for name, some in BAD.items()}
    assert (users.rows, users.lengths, users.wire.dim) == (10, (3, 2), 5)
    with pytest.raises(InputError) as caught:
        read_vectors(rows, Settings(vector_cols=WEIGHTS), stage, 2)
    message = str(caught.value)
    for part in (
        "8 of 18 rows cannot be used, by columns 'user_id', 'profile' and 'tags'",
        "null_vector 2 (one of the vectors is null; for example user_id 301)",
        "one of the vectors is all zeros",
        "one of the vectors is not as long as most are",
        "Most vectors have 3 numbers in 'profile' and 2 numbers in 'tags'.",
    ):
        assert part in message
    zeros_count = read_vectors(rows, Settings(vector_cols=WEIGHTS, metric="inner_product", on_bad_row="drop"), stage, 2)
    assert (zeros_count.rows, "zero_vector" in zeros_count.dropped) == (12, False)


def test_a_table_without_a_good_row_says_so(spark, stage):
    rows = spark.createDataFrame([(1, [], [1.0]), (2, [1.0], [])], DOUBLES)
    with pytest.raises(InputError, match="no valid row among 2: wrong_length 2"):
        read_vectors(rows, Settings(vector_cols=WEIGHTS, on_bad_row="drop"), stage, 2)


def test_queries_and_candidates_have_the_lengths_of_each_column(spark, stage):
    like = read_vectors(spark.createDataFrame(GOOD, DOUBLES), Settings(vector_cols=WEIGHTS), stage, 2)
    swapped = spark.createDataFrame([(user, tags, profile) for user, profile, tags in GOOD], DOUBLES)
    with pytest.raises(InputError, match=r"queries: 10 of 10 .*wrong_length 10 .*3 numbers in 'profile' and 2 numbers"):
        read_vectors(swapped, Settings(vector_cols=WEIGHTS), stage, 2, role="queries", like=like)


def whole(rows):
    """Return small whole numbers, which every form of vectors holds, in place of most of which there are zeros."""
    kept = np.random.default_rng(rows.shape[1]).random(rows.shape) < 0.3
    kept[:, 0] = True
    return np.where(kept, np.round(rows * 50) + 200, 0)


def as_mllib(row):
    return Vectors.sparse(len(row), np.flatnonzero(row).tolist(), row[row != 0].tolist())


def as_map(row):
    return {int(i): float(row[i]) for i in np.flatnonzero(row)}


MLLIB = ["user_id", "profile", "tags"]
MAPS = "user_id bigint, profile map<int,float>, tags map<int,double>"
FORMS = {
    "mllib, mostly zeros": (MLLIB, as_mllib, True),
    "mllib, dense": (MLLIB, lambda row: Vectors.dense(row.tolist()), False),
    "maps": (MAPS, as_map, True),
}


@pytest.mark.parametrize("form", ["mllib, mostly zeros", pytest.param("mllib, dense", marks=SLOW), "maps"])
def test_other_forms_of_vectors_have_the_neighbors_of_arrays(spark, stage, form):
    schema, convert, sparse = FORMS[form]
    wide = [np.pad(whole(part), ((0, 0), (0, 8))) for part in (PROFILES, TAGS)]
    given = table_of(spark, *wide, schema, convert)
    assert read_vectors(given, Settings(vector_cols=WEIGHTS), stage, 2).wire.sparse == sparse
    lists, report = neighbors_of(given, leaf_rows=1000)
    assert report.recall.mean == 1
    far, _ = told(wide, wide, "cosine")
    np.fill_diagonal(far, np.inf)
    for user, found in lists.items():
        np.testing.assert_allclose([one for _, one in found], np.sort(far[user])[:K], rtol=1e-4, atol=1e-6)


def test_mllib_vectors_are_read_as_the_other_column_is(spark, stage):
    mixed = table_of(spark, whole(PROFILES), whole(TAGS), MLLIB, as_mllib)
    arrays = table_of(spark, whole(PROFILES), whole(TAGS)).select("user_id", "profile")
    users = read_vectors(arrays.join(mixed.drop("profile"), "user_id"), Settings(vector_cols=WEIGHTS), stage, 2)
    assert (users.wire.sparse, users.lengths) == (False, (8, 3))


@pytest.mark.parametrize(
    ("kinds", "parts"),
    [
        (("array<float>", "map<int,float>"), ["column 'tags' is map<int,float>", "those of 'profile' are dense"]),
        (
            ("map<int,float>", "array<int>"),
            ["column 'tags' is array<int>", "are sparse", "all vector_cols in one form"],
        ),
        (("array<float>", "string"), ["column 'tags' is string; vectors may be arrays"]),
    ],
)
def test_columns_that_do_not_go_together_are_refused(spark, stage, kinds, parts):
    empty = spark.createDataFrame([], "user_id int, profile {}, tags {}".format(*kinds))
    with pytest.raises(InputError) as caught:
        read_vectors(empty, Settings(vector_cols=WEIGHTS), stage, 2)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_a_column_that_is_not_there_is_named_with_the_setting(spark, stage):
    empty = spark.createDataFrame([], "user_id int, profile array<float>")
    with pytest.raises(InputError, match=r"no column 'tags'; .* Name the right one with --vector-cols \(vector_cols\)"):
        read_vectors(empty, Settings(vector_cols=WEIGHTS), stage, 2)


def test_sparse_indices_above_what_two_columns_share_are_bad(spark, stage):
    told = [(1, {0: 1.0}, {1: 1.0}), (2, {2**30 - 1: 1.0}, {0: 1.0}), (3, {2**30 - 2: 1.0}, {0: 2.0})]
    rows = spark.createDataFrame(told, MAPS)
    with pytest.raises(InputError, match=r"bad_index 1 .*above 1,073,741,822: pmod\(xxhash64\(item\), 1073741823\)"):
        read_vectors(rows, Settings(vector_cols=WEIGHTS), stage, 2)


@pytest.fixture(scope="module")
def folder(spark, table, tmp_path_factory):
    """Return a folder with an index of all rows but the first 50."""
    folder = tmp_path_factory.mktemp("weighted") / "index"
    with fit(table.where("user_id >= 50"), **QUICK) as index:
        index.save(folder)
    return folder


def test_a_loaded_index_remembers_its_columns_and_answers_by_them(spark, table, folder):
    index = load(spark, folder)
    assert index.settings.vector_cols == WEIGHTS
    result = index.query(table.where("user_id < 50"), probes=1000)
    lists = {user: [(other - 50, far) for other, far in found] for user, found in lists_of(result.table).items()}
    result.table.unpersist()
    rows = (PROFILES[50:], TAGS[50:])
    assert_nearest(lists, (PROFILES[:50], TAGS[:50]), rows, "cosine", itself=True)
    with pytest.raises(SettingsError, match="'vector_cols' cannot be given to query: the index was made with"):
        index.query(table, vector_cols={"profile": 1})
    with pytest.raises(SettingsError, match="'vector_col' is 'profile' and 'vector_cols'"):
        index.query(table, vector_col="profile")


def test_an_open_index_takes_the_vectors_by_the_names_of_their_columns(folder):
    index = open_index(folder)
    assert "columns:  profile 0.8 (8 numbers), tags 0.2 (3 numbers)" in index.info()
    far, _ = told((PROFILES[:50], TAGS[:50]), (PROFILES[50:], TAGS[50:]), "cosine")
    for some in (slice(0, 3), slice(0, 50)):
        ids, distances = index.search({"tags": TAGS[some], "profile": PROFILES[some]}, K, probes=1000)
        np.testing.assert_array_equal(ids - 50, np.argsort(far[some])[:, :K])
        np.testing.assert_allclose(distances, np.sort(far[some])[:, :K], rtol=1e-5, atol=1e-6)
    ids, distances = index.search({"tags": TAGS[7].tolist(), "profile": PROFILES[7].tolist()}, K, probes=1000)
    assert (ids - 50).tolist() == np.argsort(far[7])[:K].tolist()
    own = index.search({"profile": PROFILES[60], "tags": TAGS[60]}, K)
    assert [part.tolist() for part in index.search(index.vector(60), K)] == [part.tolist() for part in own]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"profile": PROFILES[0]}, "the columns 'profile' were given, and the index is made of 'profile', 'tags'"),
        ({"profile": PROFILES[0], "tags": TAGS[0, :2]}, r"column 'tags' of the vectors: an array of shape \(2,\)"),
        ({"profile": PROFILES[0], "tags": [0, 0, 0]}, "column 'tags' of the vectors: row 0 is all zeros"),
        ({"profile": PROFILES[:2], "tags": TAGS[:3]}, "vectors: there are 2 for 'profile', 3 for 'tags'"),
        ({"profile": PROFILES[0], "tags": TAGS[:1]}, "Give one of each column, or arrays of as many rows"),
        (PROFILES[0], "the index holds vectors of 11 numbers"),
    ],
)
def test_an_open_index_says_what_vectors_it_takes(folder, given, told):
    with pytest.raises(InputError, match=told):
        open_index(folder).search(given)


@SLOW
def test_an_index_of_sparse_columns_is_searched_by_their_names(spark, tmp_path):
    parts = whole(PROFILES), whole(TAGS)
    with fit(table_of(spark, *parts, MAPS, as_map), **QUICK) as index:
        index.save(tmp_path / "index")
    local = open_index(tmp_path / "index")
    assert "columns:  profile 0.8, tags 0.2" in local.info()
    far, _ = told([part[:20] for part in parts], parts, "cosine")
    for user in range(20):
        ids, distances = local.search({"profile": as_map(parts[0][user]), "tags": as_map(parts[1][user])}, K)
        np.testing.assert_allclose(distances, far[user, ids], rtol=1e-4, atol=1e-6)
        assert user in ids
    with pytest.raises(InputError, match=r"column 'tags' of the vectors: row 0 has a column .* above 1,073,741,822"):
        local.search({"profile": {0: 1.0}, "tags": {2**30: 1.0}})


@SLOW
def test_candidates_have_the_same_columns_and_an_evaluation_knows_them(spark, table):
    users, items = table.where("user_id < 50"), table.where("user_id >= 50")
    lists, report = neighbors_of(users, candidates=items, metric="inner_product")
    assert report.recall.mean == 1
    moved = {user: [(other - 50, far) for other, far in found] for user, found in lists.items()}
    rows = (PROFILES[50:], TAGS[50:])
    assert_nearest(moved, (PROFILES[:50], TAGS[:50]), rows, "inner_product", itself=True)
    exact = build_neighbors(table, **QUICK).table
    for weights, found in ((WEIGHTS, 1.0), ({"tags": 1}, None)):
        asked = Settings(vector_cols=weights, k=K, audit_users=60)
        recall = evaluate_neighbors(table, exact, asked, {}).recall.mean
        assert recall == found if found else recall < 0.8
    exact.unpersist()


@SLOW
def test_flags_and_files_name_weighted_columns(spark, table, tmp_path, capsys):
    table.write.parquet(str(tmp_path / "in"))
    config, flags = tmp_path / "night.toml", ["--k", str(K), "--audit-users", "60"]
    places = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--overwrite"]
    config.write_text("vector_cols = {profile = 0.8, tags = 0.2}\n")
    of_index = ["--index", str(tmp_path / "index")]
    assert main(["build", "--config", str(config), *places, *of_index, *flags]) == 0
    assert_nearest(lists_of(spark.read.parquet(str(tmp_path / "out"))), (PROFILES, TAGS), (PROFILES, TAGS), "cosine")
    assert read_report(tmp_path / "out.report")["settings"]["vector_cols"] == WEIGHTS
    config.write_text('vector_col = "nowhere"\n')  # a flag wins over it
    weighted = ["--vector-cols", "profile=0.8,tags=0.2"]
    assert main(["build", "--config", str(config), *places, *weighted, *flags]) == 0
    assert read_report(tmp_path / "out.report")["settings"]["vector_cols"] == WEIGHTS
    judged = ["--input", str(tmp_path / "in"), "--neighbors", str(tmp_path / "out"), *weighted, *flags]
    assert main(["evaluate", *judged]) == 0
    assert "recall   1.0000 of the exact 5 nearest" in capsys.readouterr().out
    assert main(["query", *places[:2], *of_index, "--output", str(tmp_path / "similar"), "--same-ids"]) == 0
    assert len(lists_of(spark.read.parquet(str(tmp_path / "similar")))) == N
    assert main(["fit", *places[:2], *of_index, "--overwrite", *weighted, *flags]) == 0
    assert "columns:  profile 0.8 (8 numbers), tags 0.2 (3 numbers)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("profile", "'profile' is not COLUMN=WEIGHT, such as profile=0.8"),
        ("a=1,b=much", "'b=much' is not COLUMN=WEIGHT"),
        ("a=1,a=2", "'a' comes twice"),
    ],
)
def test_a_flag_that_is_no_columns_with_weights_is_code_2(tmp_path, capsys, text, told):
    with pytest.raises(SystemExit) as caught:
        main(["build", "--input", "in", "--output", str(tmp_path / "out"), "--vector-cols", text])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_a_flag_with_a_weight_of_zero_is_code_2(tmp_path, capsys):
    assert main(["build", "--input", "in", "--output", str(tmp_path / "out"), "--vector-cols", "a=1,b=0"]) == 2
    assert "'vector_cols' is {'a': 1.0, 'b': 0.0}; it must be names of columns" in capsys.readouterr().err
    assert files_in(tmp_path) == []
