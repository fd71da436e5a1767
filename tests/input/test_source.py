from decimal import Decimal

import numpy as np
import pytest
from pyspark.ml.linalg import DenseVector, Vectors, VectorUDT
from pyspark.sql import types as T

from annspark.core.metric import prepare
from annspark.core.vectors import is_sparse
from annspark.errors import InputError
from annspark.flow.read import read_vectors
from annspark.input.source import open_source
from annspark.settings import Settings
from annspark.spark.arrow import collect, elements

# Small whole numbers, which every type of number holds; one row full, some nearly empty, one without numbers.
ROWS = [[0, 1, 0, 0, 3, 0], [2, 0, 0, 0, 0, 5], [1, 2, 3, 4, 5, 6], [0, 0, 0, 7, 0, 0], [0] * 6, [0, 0, 1, 0, 0, 0]]
BITS = [[0, 1, 0, 0, 1, 0, 1, 1], [1] * 8, [0] * 8, [1, 0, 0, 0, 0, 0, 0, 0]]


def members(row):
    return [i for i, x in enumerate(row) if x]


def amounts(row):
    return [x for x in row if x]


def floats(row):
    return [float(x) for x in row]


def as_map(row):
    return {i: x for i, x in enumerate(row) if x}


def mixed_mllib(row):
    return Vectors.dense(row) if row[2] else Vectors.sparse(len(row), members(row), amounts(row))


DENSE = {
    "array<double>": floats,
    "array<float>": floats,
    "array<tinyint>": list,
    "array<smallint>": list,
    "array<int>": list,
    "array<bigint>": list,
    "array<decimal(9,2)>": lambda row: [Decimal(x) for x in row],
    "mllib": Vectors.dense,
}
SPARSE = {
    "map<int,float>": lambda row: {i: float(x) for i, x in as_map(row).items()},
    "map<bigint,smallint>": as_map,
    "struct<indices:array<int>,values:array<float>>": lambda row: (members(row), floats(amounts(row))),
    "struct<values:array<int>,more:int,indices:array<bigint>>": lambda row: (amounts(row), 1, members(row)),
    "mllib": mixed_mllib,
}
SETS = {
    "array<int>": lambda row: members(row)[::-1],
    "array<bigint>": members,
    "array<boolean>": lambda row: [x > 0 for x in row],
    "array<float>": floats,
    "mllib": Vectors.dense,
} | SPARSE
FINGERPRINTS = {
    "binary": lambda row: bytes([int("".join(map(str, row)), 2)]),
    "array<boolean>": lambda row: [x > 0 for x in row],
    "array<double>": floats,
}
HAMMING = {
    "binary": lambda row: bytes([int("".join(map(str, row)), 2)]),
    "array<boolean>": lambda row: [x > 0 for x in row],
    "array<float>": floats,
    "array<tinyint>": list,
    "mllib": lambda row: Vectors.sparse(len(row), members(row), amounts(row)),
}


def everyday(kinds, *chosen):
    """Return kinds as parameters; all but those chosen are slow, as they repeat what those show."""
    assert set(chosen) <= set(kinds)
    return [pytest.param(kind, marks=() if kind in chosen else pytest.mark.slow, id=kind) for kind in kinds]


@pytest.fixture
def prepared(spark, stage):
    """Return {id: prepared vector} of rows in some form, and whether they travel sparse; the row -1 has no vector."""

    def call(rows, kind, convert, metric):
        vector = VectorUDT() if kind == "mllib" else spark.createDataFrame([], f"v {kind}").schema["v"].dataType
        schema = T.StructType([T.StructField("user_id", T.IntegerType()), T.StructField("vector", vector)])
        told = [(-1, None), *((i, convert(row)) for i, row in enumerate(rows))]
        table = spark.createDataFrame(told, schema).repartition(2)
        return decoded(read_vectors(table, Settings(metric=metric, on_bad_row="drop"), stage, 2), len(rows[0]))

    return call


def decoded(users, dim):
    assert users.examples["null_vector"] == -1
    blocks = collect(users.table)
    vectors, ids = users.wire.read(blocks), elements(blocks["ids"]).to_pylist()
    vectors = prepare(vectors, users.coordinates.metric)
    if is_sparse(vectors):
        assert vectors.shape[1] <= dim
        vectors.resize(len(ids), dim)
        vectors = vectors.toarray()
    return dict(zip(ids, vectors.tolist(), strict=True)), users.wire.sparse


def plain(rows, metric):
    """Return {id: prepared vector} of the rows a metric can use."""
    vectors = {i: np.array([row], float) for i, row in enumerate(rows) if metric != "cosine" or any(row)}
    if metric == "jaccard":
        vectors = {i: np.minimum(vector, 1) for i, vector in vectors.items()}
    return {i: prepare(vector, metric)[0].tolist() for i, vector in vectors.items()}


@pytest.mark.parametrize("kind", everyday(DENSE, "array<double>", "array<tinyint>", "array<decimal(9,2)>", "mllib"))
def test_every_dense_form_gives_the_prepared_rows_of_the_plain_one(prepared, kind):
    assert prepared(ROWS, kind, DENSE[kind], "manhattan") == (plain(ROWS, "manhattan"), False)


@pytest.mark.parametrize("kind", everyday(HAMMING, "binary", "array<boolean>", "mllib"))
def test_every_form_of_bits_gives_the_same_rows(prepared, kind):
    assert prepared(BITS, kind, HAMMING[kind], "hamming") == (plain(BITS, "hamming"), False)


@pytest.mark.parametrize("kind", everyday(SPARSE, *list(SPARSE)[0::2]))
def test_every_sparse_form_gives_the_prepared_rows_of_the_plain_one(prepared, kind):
    found, sparse = prepared(ROWS, kind, SPARSE[kind], "inner_product")
    assert sparse
    wanted = plain(ROWS, "inner_product")
    assert sorted(found) == sorted(wanted)
    for i, vector in found.items():
        np.testing.assert_allclose(vector, wanted[i], rtol=1e-6)


@pytest.mark.parametrize("kind", everyday(SETS, "array<int>", "array<boolean>", "mllib"))
def test_every_form_of_sets_gives_the_same_members(prepared, kind):
    assert prepared(ROWS, kind, SETS[kind], "jaccard") == (plain(ROWS, "jaccard"), True)


@pytest.mark.parametrize("kind", everyday(FINGERPRINTS, "binary"))
def test_every_form_of_fingerprints_gives_the_same_members(prepared, kind):
    assert prepared(BITS, kind, FINGERPRINTS[kind], "jaccard") == (plain(BITS, "jaccard"), True)


@pytest.mark.parametrize("kind", everyday(FINGERPRINTS, "binary"))
def test_fingerprints_of_another_length_are_dropped_as_vectors_are(spark, stage, kind):
    told = [*((i, FINGERPRINTS[kind](row)) for i, row in enumerate(BITS)), (8, FINGERPRINTS[kind](BITS[0]) * 2)]
    table = spark.createDataFrame([*told, (9, FINGERPRINTS[kind](BITS[0])[:0])], f"user_id int, vector {kind}")
    users = read_vectors(table, Settings(metric="jaccard", on_bad_row="drop"), stage, 2)
    assert (users.rows, users.dropped, users.wire.dim) == (4, {"wrong_length": 2}, 8)
    with pytest.raises(InputError, match=r"wrong_length 2 .* Most vectors have 8 numbers"):
        read_vectors(table, Settings(metric="jaccard"), stage, 2)


@pytest.mark.parametrize("kind", everyday(["tinyint", "smallint", "int", "bigint"], "tinyint"))
def test_vectors_of_0_and_1_that_are_no_sets_are_refused_with_what_to_do(spark, stage, kind):
    table = spark.createDataFrame(list(enumerate(BITS)), f"user_id int, vector array<{kind}>")
    with pytest.raises(InputError, match=r"repeated_member 4 .*cast vectors of 0 and 1 to array<boolean>, give counts"):
        read_vectors(table, Settings(metric="jaccard"), stage, 2)


@pytest.mark.spark35
def test_two_columns_give_the_rows_of_their_indices_and_values(spark, stage):
    told = [(-1, None, [1.0]), *((i, members(row), floats(amounts(row))) for i, row in enumerate(ROWS))]
    table = spark.createDataFrame(told, "user_id int, `the items` array<int>, `n.` array<double>")
    settings = Settings(vector_col="the items", values_col="n.", metric="euclidean", on_bad_row="drop")
    assert decoded(read_vectors(table, settings, stage, 2), 6) == (plain(ROWS, "euclidean"), True)


@pytest.mark.parametrize("metric", everyday(["cosine", "euclidean"], "cosine"))
def test_mllib_vectors_travel_dense_unless_most_numbers_are_zeros_whatever_comes_first(prepared, metric):
    full = [[1, 2, 3, 4, 5, 6]] * 6
    for rows, sparse in ((ROWS, True), (ROWS[::-1], True), (full + ROWS, False), (ROWS + full, False)):
        found, travels_sparse = prepared(rows, "mllib", mixed_mllib, metric)
        assert travels_sparse == sparse
        wanted = plain(rows, metric)
        assert sorted(found) == sorted(wanted)
        np.testing.assert_allclose([found[i] for i in wanted], list(wanted.values()), rtol=1e-6)


STRUCTS = {
    "parquet": "struct<type:tinyint,size:int,indices:array<int>,values:array<double>>",
    "json": "struct<indices:array<bigint>,size:bigint,type:bigint,values:array<double>>",
}


def as_struct(vector, names):
    """Return an MLlib vector as the fields of its struct, in that order."""
    told = {"type": 1, "size": None, "indices": None, "values": vector.toArray().tolist()}
    if not isinstance(vector, DenseVector):
        told = {"type": 0, "size": vector.size, "indices": vector.indices.tolist(), "values": vector.values.tolist()}
    return tuple(told[name] for name in names)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("metric", "convert", "writer"),
    [
        ("cosine", "mixed", "parquet"),
        ("manhattan", "mixed", "json"),
        pytest.param("cosine", "dense", "json", marks=SLOW),
        pytest.param("euclidean", "sparse", "parquet", marks=SLOW),
        pytest.param("euclidean", "mixed", "json", marks=SLOW),
        pytest.param("inner_product", "mixed", "json", marks=SLOW),
        pytest.param("jaccard", "dense", "parquet", marks=SLOW),
        pytest.param("jaccard", "sparse", "json", marks=SLOW),
        pytest.param("manhattan", "dense", "parquet", marks=SLOW),
        pytest.param("manhattan", "sparse", "json", marks=SLOW),
        pytest.param("hamming", "mixed", "parquet", marks=SLOW),
    ],
)
def test_mllib_vectors_that_lost_their_type_are_read_as_those_that_have_it(prepared, metric, convert, writer):
    make = {
        "mixed": lambda row: Vectors.dense(row) if row[1] else Vectors.sparse(len(row), members(row), amounts(row)),
        "dense": Vectors.dense,
        "sparse": lambda row: Vectors.sparse(len(row), members(row), amounts(row)),
    }[convert]
    kind = STRUCTS[writer]
    names = [part.split(":")[0] for part in kind[7:-1].split(",")]
    rows = BITS if metric == "hamming" else ROWS
    found = prepared(rows, kind, lambda row: as_struct(make(row), names), metric)
    assert found == prepared(rows, "mllib", make, metric)


def test_json_of_dense_mllib_vectors_alone_has_no_indices(prepared):
    kind = "struct<type:bigint,values:array<double>>"
    assert prepared(ROWS, kind, lambda row: (1, floats(row)), "euclidean") == (plain(ROWS, "euclidean"), False)


@pytest.mark.spark35
def test_structs_that_mllib_would_not_have_made_are_bad_rows_with_their_own_reason(spark, stage):
    rows = [(0, (0, 3, [0, 2], [1.0, 2.0])), (1, (1, None, None, [1.0, 0.0, 2.0])), (2, (0, 3, [0, 3], [1.0, 2.0])),
            (3, (0, 3, [0], [1.0, 2.0])), (4, (0, 3, [0, None], [1.0, 2.0])), (5, (1, None, None, [1.0, None, 2.0])),
            (6, (0, None, [0], [1.0])), (7, None), (8, (0, 3, None, None)), (9, (0, 3, [-1], [1.0]))]  # fmt: skip
    table = spark.createDataFrame(rows, f"user_id int, vector {STRUCTS['parquet']}")
    users = read_vectors(table, Settings(metric="manhattan", on_bad_row="drop"), stage, 2)
    assert users.dropped == {"null_vector": 2, "uneven": 1, "bad_index": 4, "nan": 1}
    assert users.examples == {"null_vector": 7, "uneven": 3, "bad_index": 2, "nan": 5}
    vectors, ids = users.wire.read(collect(users.table)), elements(collect(users.table)["ids"]).to_pylist()
    assert sorted(zip(ids, vectors.tolist(), strict=True)) == [(0, [1.0, 0.0, 2.0]), (1, [1.0, 0.0, 2.0])]


VECTOR_FORMS = [
    "arrays of numbers or booleans",
    "MLlib vectors",
    "binary (of bits) for hamming and jaccard",
    "Cast it.",
]
ID_FORMS = ["integers, decimals, strings, binary, dates or timestamps", "Cast it."]
NO_SPARSE = ["sparse vectors", "cosine, euclidean, inner_product, jaccard", "Choose one of these"]
STRUCT = "struct<indices:array<{}>,values:array<{}>>"


@pytest.mark.parametrize(
    "kind",
    ["double", "float", "boolean", "array<int>", "map<int,int>", "struct<a:int>", "void", "interval day to second"],
)
def test_ids_without_a_usable_order_are_refused(spark, kind):
    refused(spark, f"user_id {kind}, vector array<float>", {}, [f"'user_id' is {kind}", *ID_FORMS])


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        *((kind, "cosine") for kind in ("double", "string", "binary", "date", "array<string>", "array<array<float>>")),
        *((kind, "cosine") for kind in ("map<string,float>", "map<int,string>", "array<binary>", "void")),
        (STRUCT.format("int", "string"), "cosine"),
        (STRUCT.format("float", "float"), "cosine"),
        ("struct<indices:array<int>>", "cosine"),
        ("struct<indices:int,values:array<int>>", "euclidean"),
        ("string", "hamming"),
        ("array<string>", "jaccard"),
    ],
)
def test_columns_that_hold_no_vectors_are_refused(spark, kind, metric):
    refused(spark, f"user_id int, vector {kind}", {"metric": metric}, [f"'vector' is {kind};", *VECTOR_FORMS])


@pytest.mark.parametrize("metric", ["manhattan", "hamming"])
@pytest.mark.parametrize("kind", ["map<int,float>", STRUCT.format("int", "double")])
def test_sparse_vectors_are_refused_where_there_is_no_way_to_compare_them(spark, kind, metric):
    refused(spark, f"user_id int, vector {kind}", {"metric": metric}, [f"'vector' is {kind}", metric, *NO_SPARSE])


@pytest.mark.parametrize(
    ("indices", "values"),
    [("array<float>", "array<float>"), ("array<int>", "float"), ("int", "array<int>"), ("array<int>", "array<string>")],
)
def test_two_columns_of_other_types_are_refused(spark, indices, values):
    wanted = [f"'vector' and 'v' are {indices} and {values}", "arrays of integers", "arrays of numbers", "Cast them."]
    refused(spark, f"user_id int, vector {indices}, v {values}", {"values_col": "v"}, wanted)


@pytest.mark.parametrize("named", ["id_col", "vector_col", "values_col"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(spark, named):
    wanted = ["no column 'x'", "'user_id', 'vector'", "Name the right one with --", f"({named})."]
    refused(spark, "user_id int, vector array<int>", {named: "x"}, wanted)


def refused(spark, schema, named, parts):
    with pytest.raises(InputError) as caught:
        open_source(spark.createDataFrame([], schema), Settings(**named))
    told = str(caught.value)
    assert [part for part in parts if part not in told] == []
    assert "\n" not in told
