import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annspark.input.check import MEANING, MOST_INDEX, REASONS, check_rows, check_sparse_rows, mllib_lists

NAN, INF = math.nan, math.inf
SPARSE = ("cosine", "euclidean", "inner_product", "jaccard")
INDICES, VALUES = pa.list_(pa.int64()), pa.list_(pa.float64())


# Every row alone, judged in plain Python: what a batch of them must come to.
def judge(user, indices, values, metric):
    if user is None:
        return "null_id"
    if indices is None or values is None:
        return "null_vector"
    if len(indices) != len(values):
        return "uneven"
    if any(i is None or not 0 <= i <= MOST_INDEX for i in indices):
        return "bad_index"
    if len(set(indices)) < len(indices):
        return "repeated_index"
    if any(x is None or math.isnan(x) for x in values):
        return "nan"
    limit = {"euclidean": 1e38, "inner_product": 1e19}.get(metric, math.inf) / math.sqrt(len(values) or 1)
    if any(math.isinf(x) or abs(x) > limit for x in values):
        return "infinite"
    return "zero_vector" if metric == "cosine" and not any(values) else ""


def check(rows, metric, skip=0):
    """Return the reason of each row, and the good rows as {row: {column: value}}, of a batch that is a slice."""
    ids = pa.array([user for user, _, _ in rows], pa.int64()).slice(skip)
    indices = pa.array([indices for _, indices, _ in rows], INDICES).slice(skip)
    values = None if metric == "sets" else pa.array([values for _, _, values in rows], VALUES).slice(skip)
    reason, good = check_sparse_rows(ids, indices, values, "jaccard" if metric == "sets" else metric)
    return [REASONS[code] for code in reason], as_dicts(good)


def as_dicts(good):
    found = {}
    for width, (rows, vectors) in good.items():
        assert vectors.shape == (len(rows), width)
        assert vectors.data.dtype == np.float32 or (vectors.data != vectors.data.astype(np.float32)).any()
        for i, row in enumerate(rows):
            mine = slice(vectors.indptr[i], vectors.indptr[i + 1])
            columns = vectors.indices[mine].tolist()
            assert columns == sorted(set(columns))
            found[int(row)] = dict(zip(columns, vectors.data[mine].tolist(), strict=True))
    return found


def wanted(indices, values, metric):
    """Return what is kept of a good row."""
    kept = {i: x for i, x in sorted(zip(indices, values, strict=True)) if x}
    if metric == "jaccard":
        return dict.fromkeys(kept, 1.0)
    return kept


columns = st.sampled_from([0, 1, 2, 7, 2**31 - 2, 2**31 - 1, 2**62, -1, None])
numbers = st.sampled_from([0.0, -0.0, 1.0, -2.5, 3e-200, 3e37, -0.8e18, 0.1, NAN, INF, -INF, None])
pairs = st.lists(st.tuples(columns, numbers), max_size=4).map(lambda some: tuple(map(list, zip(*some, strict=True))))
even = pairs.map(lambda some: some or ([], []))
uneven = st.tuples(st.none() | st.lists(columns, max_size=3), st.none() | st.lists(numbers, max_size=3))
rows = st.tuples(st.sampled_from([1, 2, None]), even | uneven).map(lambda row: (row[0], *row[1]))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(rows, max_size=8), st.sampled_from(SPARSE), st.integers(0, 3))
def test_any_mixture_of_sparse_rows_in_a_batch_is_judged_row_by_row(rows, metric, skip):
    reasons, found = check(rows, metric, skip)
    rows = rows[skip:]
    judged = [judge(*row, metric) for row in rows]
    assert reasons == judged
    assert sorted(found) == [i for i, reason in enumerate(judged) if not reason]
    for i, vector in found.items():
        expected = wanted(*rows[i][1:], metric)
        assert list(vector) == list(expected)
        assert list(vector.values()) == list(expected.values())


def judge_set(user, members):
    if user is None:
        return "null_id"
    if members is None:
        return "null_vector"
    if any(i is None or not 0 <= i <= MOST_INDEX for i in members):
        return "bad_index"
    return "repeated_member" if len(set(members)) < len(members) else ""


sets = st.tuples(st.sampled_from([1, None]), st.none() | st.lists(columns, max_size=4), st.none())


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(sets, max_size=8))
def test_sets_have_each_member_once_and_need_no_values(rows):
    reasons, found = check(rows, "sets")
    assert reasons == [judge_set(user, members) for user, members, _ in rows]
    good = {i: members for i, (_, members, _) in enumerate(rows) if not reasons[i]}
    assert found == {i: dict.fromkeys(sorted(set(members)), 1.0) for i, members in good.items()}


SPARSE_ROWS = {
    "null_id": (None, [1], [1.0]),
    "null_vector": (1, [1], None),
    "uneven": (1, [1, 2], [1.0]),
    "bad_index": (1, [-1], [1.0]),
    "repeated_index": (1, [3, 3], [1.0, 2.0]),
    "nan": (1, [1], [NAN]),
    "infinite": (1, [1], [INF]),
    "zero_vector": (1, [1], [0.0]),
}


@pytest.mark.parametrize("reason", SPARSE_ROWS)
def test_every_reason_is_told_of_a_sparse_row_and_means_something(reason):
    assert check([(1, [1], [1.0]), SPARSE_ROWS[reason]], "cosine")[0] == ["", reason]
    assert MEANING[reason]


def test_of_several_faults_the_first_of_the_list_is_told():
    faults = [
        (None, None, None),
        (1, None, [NAN]),
        (1, [-1, 2], [1.0]),
        (1, [-1, -1], [INF, NAN]),
        (1, [2, 2], [NAN, 1.0]),
    ]
    assert check(faults, "cosine")[0] == ["null_id", "null_vector", "uneven", "bad_index", "repeated_index"]


DENSE_ROWS = {
    "null_id": (None, [1.0, 0.0]),
    "null_vector": (1, None),
    "nan": (1, [NAN, 1.0]),
    "infinite": (1, [-INF, 1.0]),
    "not_binary": (1, [0.5, 1.0]),
}


@pytest.mark.parametrize("reason", DENSE_ROWS)
def test_every_reason_is_told_of_a_dense_row_under_hamming(reason):
    rows = [(1, [1.0, 0.0]), (1, [0.0, 0.0]), DENSE_ROWS[reason]]
    told, good = check_rows(pa.array([user for user, _ in rows]), pa.array([vector for _, vector in rows]), "hamming")
    assert [REASONS[code] for code in told] == ["", "", reason]
    assert good[2][1].tolist() == [[1, 0], [0, 0]]


def test_numbers_too_small_for_float32_are_members_of_a_jaccard_set_and_a_null_is_none():
    vectors = pa.array([[0.0, 1e-300, -2.0], [0.0] * 3, [1.0, None, 0.0], [INF, 0.0, 0.0], None])
    told, good = check_rows(pa.array(range(5)), vectors, "jaccard")
    assert [REASONS[code] for code in told] == ["", "", "nan", "infinite", "null_vector"]
    assert as_dicts(good) == {0: {1: 1.0, 2: 1.0}, 1: {}}


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.none() | st.binary(max_size=3), max_size=6), st.integers(0, 3))
def test_binary_sets_are_the_places_of_bits_and_keep_their_length(values, skip):
    ids, bits = pa.array([1] * len(values)).slice(skip), pa.array(values, pa.binary()).slice(skip)
    told, good = check_rows(ids, bits, "jaccard")
    _, dense = check_rows(ids, bits, "hamming")
    assert [REASONS[code] for code in told] == ["null_vector" if value is None else "" for value in values[skip:]]
    assert {length: rows.tolist() for length, (rows, _) in good.items()} == {
        length: rows.tolist() for length, (rows, _) in dense.items()
    }
    for length, (_, vectors) in good.items():
        assert vectors.data.dtype == np.float32
        np.testing.assert_array_equal(vectors.toarray(), dense[length][1])


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.none() | st.binary(max_size=3), max_size=6), st.integers(0, 3))
def test_binary_vectors_are_bits_the_highest_first(values, skip):
    told, good = check_rows(
        pa.array([1] * len(values)).slice(skip), pa.array(values, pa.binary()).slice(skip), "hamming"
    )
    values = values[skip:]
    assert [REASONS[code] for code in told] == ["null_vector" if value is None else "" for value in values]
    found = {row: vector.tolist() for rows, vectors in good.values() for row, vector in zip(rows, vectors, strict=True)}
    bits = {
        i: [int(bit) for byte in value for bit in f"{byte:08b}"] for i, value in enumerate(values) if value is not None
    }
    assert found == bits


MLLIB = pa.struct([("type", pa.int8()), ("size", pa.int32()), ("indices", pa.list_(pa.int32())), ("values", VALUES)])
finite = st.floats(allow_nan=False)
dense = st.lists(finite, max_size=3).map(lambda values: (None, values))
sparse = st.dictionaries(st.integers(0, 9), finite).map(lambda some: (list(some), list(some.values())))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.none() | dense | sparse, max_size=6), st.integers(0, 3))
def test_mllib_vectors_in_any_mixture_become_indices_and_values(vectors, skip):
    structs = [one and {"type": 0, "size": None, "indices": one[0], "values": one[1]} for one in vectors]
    indices, values = mllib_lists(pa.array(structs, MLLIB).slice(skip))
    vectors = vectors[skip:]
    assert values.to_pylist() == [one and one[1] for one in vectors]
    of_dense = [list(range(len(one[1]))) if one and one[0] is None else one and one[0] for one in vectors]
    assert indices.to_pylist() == [one or [] for one in of_dense]
