import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annspark.spark.arrow import collect, elements, numbers, ranks_of_ids, to_binary, to_lists

pytestmark = pytest.mark.spark35

thorough = settings(derandomize=True, deadline=None, max_examples=60)


@thorough
@given(n=st.integers(0, 12), dim=st.integers(1, 9), cut=st.integers(0, 12), seed=st.integers(0, 9))
def test_vectors_come_back_from_binary_whole_sliced_and_chunked(n, dim, cut, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    column = to_binary(vectors, np.full(n, dim))
    cut = min(cut, n)
    np.testing.assert_array_equal(numbers(column, np.float32), vectors.ravel())
    np.testing.assert_array_equal(numbers(column.slice(cut), np.float32), vectors[cut:].ravel())
    chunked = pa.chunked_array([column.slice(0, cut), column.slice(cut), column.slice(0, 0)])
    np.testing.assert_array_equal(numbers(chunked, np.float32), vectors.ravel())
    wide = column.cast(pa.large_binary())
    np.testing.assert_array_equal(numbers(wide.slice(cut), np.float32), vectors[cut:].ravel())


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint64])
def test_no_chunks_hold_no_numbers(dtype):
    found = numbers(pa.chunked_array([], pa.binary()), dtype)
    assert (found.size, found.dtype) == (0, dtype)


@thorough
@given(lists=st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=12), cut=st.integers(0, 12))
def test_elements_of_lists_come_back_sliced_and_chunked(lists, cut):
    flat = [value for one in lists for value in one]
    column = to_lists(pa.array(flat, pa.int32()), np.array([len(one) for one in lists], np.int64))
    assert column.to_pylist() == lists
    assert elements(column.slice(cut)).to_pylist() == [value for one in lists[cut:] for value in one]
    chunked = pa.chunked_array([column.slice(0, cut), column.slice(cut)])
    assert elements(chunked).to_pylist() == flat


def test_a_batch_beyond_what_binary_can_hold_is_refused_with_advice():
    with pytest.raises(ValueError, match="maxRecordsPerBatch"):
        to_binary(np.empty(1, np.float32), np.array([2**29]))


def test_lists_are_cut_at_their_lengths():
    lists = to_lists(pa.array(["a", "b", "c"]), np.array([2, 0, 1]))
    assert lists.to_pylist() == [["a", "b"], [], ["c"]]


@thorough
@given(st.data())
def test_ranks_follow_the_order_of_ids_over_all_columns(data):
    ids = data.draw(st.sampled_from([st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.integers(-2, 2)]))
    some, more = (data.draw(st.lists(ids, min_size=1, max_size=9)) for _ in range(2))
    distinct, (first, second) = ranks_of_ids(pa.array(some), pa.array(more))
    # Spark and Arrow order strings by their bytes.
    order = sorted(set(some + more), key=lambda i: i.encode() if isinstance(i, str) else i)
    assert distinct.to_pylist() == order
    assert [order[i] for i in first] == some
    assert [order[i] for i in second] == more


def test_no_ids_have_no_ranks():
    distinct, (ranks,) = ranks_of_ids(pa.array([], pa.int64()))
    assert len(distinct) == len(ranks) == 0


def test_collect_brings_every_row_and_type(spark):
    table = spark.createDataFrame([(1, "a", bytearray(b"xy"), 0.5)], "i int, s string, b binary, f float")
    found = collect(table)
    assert found.column_names == ["i", "s", "b", "f"]
    assert found.to_pylist() == [{"i": 1, "s": "a", "b": b"xy", "f": 0.5}]
