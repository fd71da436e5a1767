"""Any schema and any values: a clear error, or a sound table.

A few examples every day, 25 with --all of tests/run.sh; FUZZ=200 tries more, and others each time.
"""

import math
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.ml.linalg import Vectors, VectorUDT
from pyspark.sql import types as T

from annspark import InputError, build_neighbors
from annspark.core.metric import METRICS
from tests.helpers import lists_of, long_lists_of

DIM = 3
ODD = [math.nan, math.inf, -math.inf, 5e-324, 1e-45, -1e-30, 1e-19, 0.8e17, 1e30, -1e38, 1e300]
PLAIN = [0.0, -0.0, 1.0, 1.0, 2.0, -1.5, 0.1]
floats = st.sampled_from([*3 * PLAIN, *ODD])
wholes = st.sampled_from([0, 0, 1, 1, 2, -3, 2**31 - 1])
columns = st.sampled_from([0, 1, 2, 3, 9, 2**31 - 2, 2**31 - 1, -1])
lengths = st.sampled_from([*9 * [DIM], 0, 1, 4])


def lists_from(items):
    return lengths.flatmap(lambda n: st.lists(items, min_size=n, max_size=n))


def with_nulls(values):
    return st.integers(0, 14).flatmap(lambda n: values if n else st.none())


good_columns = st.dictionaries(st.integers(0, 9), floats, max_size=4)
rows_of_columns = st.lists(st.tuples(columns, with_nulls(floats)), max_size=4)
VECTORS = {
    "array<float>": lists_from(with_nulls(floats)),
    "array<double>": lists_from(floats),
    "array<int>": lists_from(wholes),
    "array<boolean>": lists_from(with_nulls(st.booleans())),
    "array<decimal(9,2)>": lists_from(wholes.map(lambda n: Decimal(n % 1000))),
    "map<int,double>": st.dictionaries(columns, with_nulls(floats), max_size=4),
    "map<bigint,float>": good_columns,
    "struct<indices:array<int>,values:array<double>>": rows_of_columns.map(
        lambda some: ([i for i, _ in some], [x for _, x in some])
    ),
    "binary": st.sampled_from([b"", b"\x00", b"\x01", b"\xff", b"ab"]),
    "mllib": lists_from(floats).map(Vectors.dense) | good_columns.map(lambda some: Vectors.sparse(10, some)),
    "array<string>": st.just(["a"]),
    "map<string,int>": st.just({"a": 1}),
}
IDS = {
    "int": st.integers(-4, 9),
    "bigint": st.sampled_from([-(2**63), 2**63 - 1, *range(9)]),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=2),
    "binary": st.binary(max_size=2),
    "decimal(20,2)": st.integers(-5, 9).map(lambda n: Decimal(n) / 4),
    "date": st.integers(0, 9).map(lambda n: date(1969, 12, 25 + n % 7)),
    "timestamp": st.integers(0, 9).map(lambda n: datetime(1970, 1, 1, 0, 0, 0, n, tzinfo=UTC)),
    "double": st.floats(0, 1),
    "boolean": st.booleans(),
}
WRONG = {"array<string>", "map<string,int>", "double", "boolean"}
SOMETIMES_WRONG = {kind for kind in VECTORS if kind.startswith(("map", "struct", "binary"))}
kinds = st.tuples(st.sampled_from([*2 * list(IDS), "int", "string"]), st.sampled_from(list(VECTORS)))


def rows_of(kind):
    id_kind, vector_kind = kind
    row = st.tuples(with_nulls(IDS[id_kind]), with_nulls(VECTORS[vector_kind]))
    rows = st.lists(row, max_size=14)
    again = st.lists(st.integers(0, 13), max_size=8)
    return st.tuples(st.just(kind), rows, again)


def field_of(kind):
    return VectorUDT() if kind == "mllib" else T.DataType.fromDDL(kind)


def holds(vector):
    """Return all numbers of a vector of any form, or None where it cannot be a good one."""
    if vector is None or isinstance(vector, bytes):
        return None if vector is None else []
    if isinstance(vector, dict):
        return list(vector.values())
    if isinstance(vector, tuple):
        return vector[1]
    return list(getattr(vector, "values", vector))


def is_hopeless(user, vector):
    numbers = holds(vector)
    return user is None or numbers is None or any(x is None or not math.isfinite(x) for x in numbers)


def is_plain(user, vector):
    """Say whether a row is good under every metric that takes vectors of this form, if most are DIM long."""
    if is_hopeless(user, vector):
        return False
    numbers = [float(x) for x in holds(vector)]
    if isinstance(vector, dict | tuple) or hasattr(vector, "indices"):
        return False
    return len(numbers) == DIM and all(x in (0, 1) for x in numbers) and any(numbers)


@settings(
    derandomize="FUZZ" not in os.environ,
    deadline=None,
    max_examples=int(os.environ.get("FUZZ", "25" if os.environ.get("ANNSPARK_TESTS") == "all" else "8")),
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a smaller example would take as many builds again
    print_blob=True,
)
@given(
    told=kinds.flatmap(rows_of),
    metric=st.sampled_from(list(METRICS)),
    k=st.sampled_from([1, 3, 20]),
    shape=st.sampled_from(["nested", "long"]),
    on_bad_row=st.sampled_from(["drop", "drop", "fail"]),
    leaf_rows=st.sampled_from([1, 3, 100]),
    probes=st.sampled_from([1, 3]),
)
def test_any_table_gives_a_clear_error_or_a_sound_table(spark, told, metric, k, shape, on_bad_row, leaf_rows, probes):
    (id_kind, vector_kind), rows, again = told
    rows = rows + [rows[i] for i in again if i < len(rows)]
    schema = T.StructType([T.StructField("user_id", field_of(id_kind)), T.StructField("vector", field_of(vector_kind))])
    table = spark.createDataFrame(rows, schema).repartition(2)
    named = {"k": k, "metric": metric, "shape": shape, "on_bad_row": on_bad_row, "audit_users": 5, "probes": probes}
    result = error = None
    with patch("annspark.flow.grow.count_leaves", lambda n, *_: max(1, n // leaf_rows)):
        try:
            result = build_neighbors(table, **named)
        except InputError as caught:
            error = str(caught)
    if result is None:
        assert_clear(error, {id_kind, vector_kind}, rows, on_bad_row)
        return
    try:
        assert_sound(result, rows, k, metric, shape)
    finally:
        result.table.unpersist()


def assert_clear(error, kinds, rows, on_bad_row):
    """Assert that an error is one line, about columns, bad rows not to be dropped, or no good ones at all."""
    assert "\n" not in error
    assert len(error) > 40
    if "rows cannot be used" in error:
        assert on_bad_row == "fail"
        assert len({user for user, _ in rows}) < len(rows) or not all(is_plain(*row) for row in rows)
    elif "no valid row" in error:
        assert not any(is_plain(*row) for row in rows)
    else:
        assert kinds & (WRONG | SOMETIMES_WRONG)


def assert_sound(result, rows, k, metric, shape):
    counts, lists = result.report.rows, (long_lists_of if shape == "long" else lists_of)(result.table)
    assert (counts.read, counts.short) == (len(rows), 0)
    assert counts.valid == counts.read - sum(counts.dropped.values())
    lonely = shape == "long" and counts.valid == 1  # no neighbor, no row
    assert counts.written == len(lists) == (0 if lonely else counts.valid)
    hopeful = {user for user, vector in rows if not is_hopeless(user, vector)}
    assert set(lists) <= {unzoned(user) for user in hopeful}
    if not {"wrong_length"} & set(counts.dropped) and counts.valid > 1:
        assert {unzoned(user) for user, vector in rows if is_plain(user, vector)} <= set(lists)
    for user, neighbors in lists.items():
        others, values = [other for other, _ in neighbors], [value for _, value in neighbors]
        assert len(neighbors) == min(k, counts.valid - 1)
        assert len(set(others) - {user}) == len(others)
        assert set(others) <= set(lists)
        assert np.isfinite(values).all()
        assert values == sorted(values, reverse=METRICS[metric].largest)


def unzoned(user):
    """Return an id as Spark hands it out: times without their zone, in local time."""
    return user.astimezone().replace(tzinfo=None) if isinstance(user, datetime) else user
