import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.metric import prepare
from annspark.errors import InputError
from annspark.flow.read import read_vectors
from annspark.flow.sample import sample_vectors
from annspark.input.check import REASONS, check_rows
from annspark.settings import Settings
from annspark.spark.staging import staging
from tests.helpers import clustered, files_in, make_table, users_in

SLOW = pytest.mark.slow
NAN, INF = math.nan, math.inf
FLOATS = "user_id int, vector array<float>"
# One row for every reason, in a table whose vectors have three numbers.
BAD = {
    "null_id": (None, [1.0, 2.0, 3.0]),
    "null_vector": (101, None),
    "nan": (102, [1.0, NAN, 3.0]),
    "infinite": (103, [1.0, -INF, 3.0]),
    "zero_vector": (104, [0.0, 0.0, 0.0]),
    "wrong_length": (105, [1.0, 2.0]),
    "duplicate_id": (7, [3.0, 2.0, 1.0]),
}
GOOD = [(i, [float(i), 1.0, 2.0]) for i in range(1, 21)]


@pytest.fixture
def read(spark, stage):
    """Return read_vectors for a list of rows."""

    def call(rows, schema=FLOATS, *, partitions=3, stage=stage, **named):
        return read_vectors(spark.createDataFrame(rows, schema).repartition(partitions), Settings(**named), stage, 2)

    return call


def prepared(users):
    """Return the valid rows, as {id: vector}, prepared for the metric around the origin."""
    rows = users_in(users.table, users.wire.dim)
    vectors = np.array([vector for _, _, vector in rows])
    coordinates = sample_vectors(users, [])[0].coordinates
    ready = prepare(vectors, coordinates.metric, exponent=coordinates.exponent).tolist()
    vectors = {user: vector for (user, _, _), vector in zip(rows, ready, strict=True)}
    assert len(rows) == len(vectors) == users.rows
    return vectors


def as_prepared(vectors, metric):
    return prepare(np.array(vectors, np.float32), metric).tolist()


@pytest.mark.parametrize(
    ("id_type", "ids"),
    [
        ("tinyint", [-128, 0, 127]),
        pytest.param("smallint", [-5, 0, 2**15 - 1], marks=SLOW),
        pytest.param("int", [-(2**31), 0, 2**31 - 1], marks=SLOW),
        ("bigint", [-(2**63), 0, 2**63 - 1]),
        pytest.param("string", ["", "b c", "é"], marks=SLOW),
    ],
)
def test_every_id_type_is_accepted_and_kept(read, id_type, ids):
    lists = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    users = read(list(zip(ids, lists, strict=True)), f"user_id {id_type}, vector array<float>")
    assert users.table.schema["ids"].dataType.simpleString() == f"array<{id_type}>"
    assert prepared(users) == dict(zip(ids, as_prepared(lists, "cosine"), strict=True))
    assert (users.rows, users.read, users.wire.dim, users.dropped) == (3, 3, 2, {})


@pytest.mark.spark35
@pytest.mark.parametrize(
    ("vector_type", "metric"),
    [
        ("mllib", "cosine"),
        ("array<double>", "euclidean"),
        pytest.param("array<float>", "cosine", marks=SLOW),
        pytest.param("mllib", "euclidean", marks=SLOW),
    ],
)
def test_every_vector_type_is_accepted_and_gives_the_same_bytes(read, vector_type, metric):
    from pyspark.ml.linalg import Vectors, VectorUDT

    lists = [[1.5, -2.0, 0.25], [0.0, 4.0, 1e-3], [1e3, 0.0, 7.0]]
    if vector_type == "mllib":
        rows = [(i, Vectors.dense(one)) for i, one in enumerate(lists)]
        schema = T.StructType([T.StructField("user_id", T.IntegerType()), T.StructField("vector", VectorUDT())])
    else:
        rows, schema = list(enumerate(lists)), f"user_id int, vector {vector_type}"
    users = read(rows, schema, metric=metric)
    wanted = prepare(np.array(lists, np.float64), metric).tolist()
    for i, vector in prepared(users).items():
        np.testing.assert_allclose(vector, wanted[i], rtol=1e-6)


def test_a_null_mllib_vector_is_a_null_vector(read):
    from pyspark.ml.linalg import Vectors, VectorUDT

    schema = T.StructType([T.StructField("user_id", T.IntegerType()), T.StructField("vector", VectorUDT())])
    users = read([(1, Vectors.dense([1.0, 2.0])), (2, None)], schema, on_bad_row="drop")
    assert users.dropped == {"null_vector": 1}
    assert users.examples == {"null_vector": 2}


@pytest.mark.parametrize(
    "reason", [pytest.param(reason, marks=SLOW if reason in ("null_vector", "infinite") else ()) for reason in BAD]
)
def test_one_bad_row_fails_by_default_with_reason_and_example(read, reason):
    row = BAD[reason]
    with pytest.raises(InputError) as caught:
        read([*GOOD, row])
    told = str(caught.value)
    assert f"{reason} 1 (" in told
    assert f"for example user_id {row[0]!r}" in told
    assert "1 of 21 rows cannot be used" in told
    assert "'user_id' and 'vector'" in told
    assert "--on-bad-row drop" in told


@pytest.mark.spark35
def test_all_reasons_together_are_counted_each_with_an_example_and_dropped(read):
    users = read([*GOOD, *BAD.values(), *BAD.values()], on_bad_row="drop", partitions=2)
    # The two copies of the duplicate join the good row with this id.
    assert users.dropped == dict.fromkeys(BAD, 2)
    assert users.examples == {reason: row[0] for reason, row in BAD.items()}
    assert (users.read, users.rows, users.wire.dim) == (34, 20, 3)
    assert set(prepared(users)) == {i for i, _ in GOOD}


@pytest.mark.slow
def test_counts_do_not_depend_on_partitions(read):
    rows = [*GOOD, *BAD.values()]
    one, many = (read(rows, on_bad_row="drop", partitions=n) for n in (1, 9))
    assert (one.dropped, one.examples, one.rows) == (many.dropped, many.examples, many.rows)
    assert prepared(one) == prepared(many)


@pytest.mark.parametrize("vector_type", [pytest.param("array<float>", marks=SLOW), "array<double>"])
def test_a_null_element_counts_as_nan(read, vector_type):
    users = read([*GOOD, (50, [1.0, None, 2.0])], f"user_id int, vector {vector_type}", on_bad_row="drop")
    assert users.dropped == {"nan": 1}
    assert users.examples == {"nan": 50}


def test_an_empty_vector_has_the_wrong_length(read):
    users = read([*GOOD, (50, [])], on_bad_row="drop")
    assert users.dropped == {"wrong_length": 1}


@pytest.mark.parametrize("metric", ["cosine", pytest.param("euclidean", marks=SLOW)])
def test_a_table_of_empty_vectors_has_no_valid_row(read, metric):
    with pytest.raises(InputError, match=r"no valid row among 3: wrong_length 3"):
        read([(i, []) for i in range(3)], metric=metric, on_bad_row="drop")


def test_the_most_frequent_length_is_the_right_one(read):
    rows = [(1, [1.0]), (2, [1.0, 2.0]), (3, [2.0, 1.0]), (4, [1.0, 2.0, 3.0])]
    users = read(rows, on_bad_row="drop")
    assert users.wire.dim == 2
    assert users.dropped == {"wrong_length": 2}
    assert set(prepared(users)) == {2, 3}


def test_zero_vectors_are_good_under_euclidean_only(read):
    rows = [*GOOD, BAD["zero_vector"]]
    users = read(rows, metric="euclidean")
    assert users.dropped == {}
    assert prepared(users)[104] == [0.0, 0.0, 0.0]


def test_numbers_whose_distances_overflow_are_infinite_where_there_are_such_distances(read):
    rows = [*GOOD, (50, [1e38, 1.0, 1.0])]
    for metric in ("euclidean", "manhattan", "inner_product"):
        assert read(rows, metric=metric, on_bad_row="drop").dropped == {"infinite": 1}
    huge = prepared(read(rows))[50]
    np.testing.assert_allclose(huge, [1, 0, 0], atol=1e-6)


def test_one_large_number_is_no_reason_to_lose_the_others(read):
    users = read([*GOOD, (50, [1e30, 1.0, 1.0])], metric="euclidean")
    found, unit = prepared(users), 2.0 ** sample_vectors(users, [])[0].coordinates.exponent
    assert np.isfinite(np.square(found[50], dtype=np.float32)).all()
    np.testing.assert_array_equal(found[7], np.array([7, 1, 2]) * unit)


def test_of_duplicates_the_same_single_row_stays_however_they_are_partitioned(read):
    rows = [(i % 10, [float(i), 1.0, 2.0]) for i in range(40)]
    one, many = (read(rows[::step], on_bad_row="drop", partitions=n) for step, n in ((1, 1), (-1, 7)))
    assert one.dropped == many.dropped == {"duplicate_id": 30}
    assert one.examples == many.examples == {"duplicate_id": 0}
    assert prepared(one) == prepared(many)
    assert len(prepared(one)) == 10
    candidates = {i: as_prepared([[float(i + 10 * j), 1.0, 2.0] for j in range(4)], "cosine") for i in range(10)}
    assert all(vector in candidates[i] for i, vector in prepared(one).items())


@pytest.mark.slow
def test_exact_duplicates_of_a_row_leave_one(read):
    users = read([*GOOD, *GOOD, *GOOD], on_bad_row="drop")
    assert users.dropped == {"duplicate_id": 40}
    assert prepared(users) == dict(zip(range(1, 21), as_prepared([v for _, v in GOOD], "cosine"), strict=True))


def test_a_bad_row_does_not_make_its_id_a_duplicate(read):
    users = read([*GOOD, (1, None), (2, [NAN, 1.0, 1.0])], on_bad_row="drop")
    assert users.dropped == {"null_vector": 1, "nan": 1}


def test_staging_to_a_folder_gives_the_same_rows(read, tmp_path):
    rows = [*GOOD, *BAD.values()]
    cached = read(rows, on_bad_row="drop")
    with staging(str(tmp_path)) as to_folder:
        written = read(rows, stage=to_folder, on_bad_row="drop")
        assert prepared(cached) == prepared(written)
        assert cached.dropped == written.dropped
    assert files_in(tmp_path) == []


def test_an_empty_table_is_refused(read):
    with pytest.raises(InputError, match="no valid row among 0"):
        read([])


def test_a_table_of_bad_rows_only_is_refused_with_the_reasons(read):
    with pytest.raises(InputError, match="no valid row among 2: null_vector 2"):
        read([(1, None), (2, None)], on_bad_row="drop")


def test_columns_are_taken_by_their_exact_names(spark, stage):
    rows = [(i, vector, "other") for i, vector in GOOD]
    table = spark.createDataFrame(rows, "`user. id` int, `the vector.v1` array<float>, user string")
    users = read_vectors(table, Settings(id_col="user. id", vector_col="the vector.v1"), stage, 2)
    assert users.table.columns == ["ids", "hashes", "vectors", "lowest"]
    assert set(prepared(users)) == set(range(1, 21))


def test_columns_named_like_our_own_may_mean_something_else(spark, stage):
    table = spark.createDataFrame([(i, vector) for i, vector in GOOD], "vector int, user_id array<float>")
    users = read_vectors(table, Settings(id_col="vector", vector_col="user_id"), stage, 2)
    assert set(prepared(users)) == set(range(1, 21))


@pytest.mark.parametrize(
    ("schema", "named", "parts"),
    [
        ("id int, vector array<float>", {}, ["no column 'user_id'", "'id', 'vector'"]),
        ("user_id int, v array<float>", {}, ["no column 'vector'", "'user_id', 'v'"]),
        ("user_id double, vector array<float>", {}, ["'user_id' is double", "integers, decimals, strings", "Cast"]),
        ("user_id int, vector array<string>", {}, ["'vector' is array<string>", "arrays of numbers", "MLlib"]),
        ("user_id int, vector string", {}, ["'vector' is string", "arrays of numbers", "Cast"]),
        ("user_id int, vector map<int,float>", {"metric": "manhattan"}, ["'vector' is map<int,float>", "cosine"]),
        ("user_id int, v array<int>, w map<int,int>", {"vector_col": "v", "values_col": "w"}, ["'v' and 'w'", "Cast"]),
        ("`a.b` boolean, vector array<float>", {"id_col": "a.b"}, ["'a.b' is boolean", "integers, decimals"]),
        ("user_id int, a struct<b: array<float>>", {"vector_col": "a.b"}, ["no column 'a.b'", "'user_id', 'a'"]),
    ],
)
def test_unfit_columns_are_named_with_what_was_found_and_what_is_allowed(spark, stage, schema, named, parts):
    with pytest.raises(InputError) as caught:
        read_vectors(spark.createDataFrame([], schema), Settings(**named), stage, 2)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


# Every row alone, judged in plain Python: what a batch of them must come to.
def judge(user, vector, metric):
    if user is None:
        return "null_id"
    if vector is None:
        return "null_vector"
    if any(x is None or math.isnan(x) for x in vector):
        return "nan"
    if any(math.isinf(x) or (metric == "euclidean" and abs(x) > 1e38 / math.sqrt(len(vector))) for x in vector):
        return "infinite"
    return "zero_vector" if metric == "cosine" and vector and not any(vector) else ""


numbers = st.sampled_from([0.0, -0.0, 1.0, -2.5, 3e37, -1e38, NAN, INF, -INF, None])
rows = st.tuples(st.sampled_from([1, 2, None]), st.none() | st.lists(numbers, max_size=3))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(rows, max_size=9), st.sampled_from(["cosine", "euclidean"]), st.sampled_from(["float", "double"]),
    st.integers(0, 3),
)  # fmt: skip
def test_any_mixture_of_rows_in_a_batch_is_judged_row_by_row(rows, metric, precision, skip):
    kind = pa.list_(pa.float32() if precision == "float" else pa.float64())
    # A slice, because Arrow hands out views of larger buffers.
    ids = pa.array([user for user, _ in rows], pa.int64()).slice(skip)
    lists = pa.array([vector for _, vector in rows], kind).slice(skip)
    rows = rows[skip:]
    reason, good = check_rows(ids, lists, metric)
    judged = [judge(*row, metric) for row in rows]
    assert [REASONS[code] for code in reason] == judged
    found = {row: vector for rows, vectors in good.values() for row, vector in zip(rows, vectors, strict=True)}
    assert sorted(found) == [i for i, reason in enumerate(judged) if not reason]
    for i, vector in found.items():
        assert len(vector) in good
        np.testing.assert_array_equal(vector, np.array(rows[i][1], np.float32 if precision == "float" else np.float64))


def test_hashes_follow_from_the_ids_alone(spark, stage, read):
    vectors = clustered(60, 8)
    first = {user: hashed for user, hashed, _ in users_in(read(list(enumerate(vectors.tolist()))).table, 8)}
    other = read(list(enumerate(vectors[::-1].tolist())), partitions=1).table
    assert {user: hashed for user, hashed, _ in users_in(other, 8)} == first
    assert len(set(first.values())) == 60


def test_users_travel_many_to_a_block_and_none_is_lost(spark, stage):
    vectors = clustered(3000, 16)
    users = read_vectors(make_table(spark, vectors, partitions=2), Settings(metric="euclidean"), stage, 2)
    assert prepared(users) == dict(enumerate(vectors.tolist()))
    assert users.id_bytes == 8
    assert users.table.count() < 3000 / 20


@pytest.mark.parametrize("partitions", [1, pytest.param(4, marks=SLOW)])
def test_a_large_input_is_spread_over_the_cores(spark, stage, monkeypatch, partitions):
    monkeypatch.setattr("annspark.flow.read._SPREAD_BYTES", 1000)
    vectors = clustered(3000, 16)
    users = read_vectors(make_table(spark, vectors, partitions=partitions), Settings(metric="euclidean"), stage, 4)
    assert prepared(users) == dict(enumerate(vectors.tolist()))
    used = users.table.select(F.spark_partition_id().alias("partition")).distinct().count()
    assert used >= 4


def test_nulls_of_a_file_that_lacks_the_column_are_told_with_its_name(spark, stage, tmp_path):
    table = spark.createDataFrame(GOOD, FLOATS)
    table.coalesce(1).write.parquet(str(tmp_path / "in"))
    table.select("user_id").coalesce(1).write.parquet(str(tmp_path / "more"))
    next((tmp_path / "more").glob("*.parquet")).rename(tmp_path / "in" / "lacking.parquet")
    read = spark.read.schema(FLOATS).parquet(str(tmp_path / "in"))
    with pytest.raises(InputError, match=r"null_vector 20 .* A null is in file:.*/in/lacking.parquet: a column a file"):
        read_vectors(read, Settings(), stage, 2)
