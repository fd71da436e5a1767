import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annspark.core.weighted import most_index
from annspark.input.check import REASONS, check_rows, check_sparse_rows
from annspark.input.weighted import judge_together

NAN, INF = math.nan, math.inf
WEIGHTS = (0.25, 4.0)  # whose roots are exact


# Every row alone, judged in plain Python: what a batch of them must come to.
def judge(user, vectors, metric):
    reasons = [reason for reason in (judge_one(user, vector, metric) for vector in vectors) if reason]
    if reasons:
        return min(reasons, key=REASONS.index)
    together = [root * x for root, vector in zip((0.5, 2), vectors, strict=True) for x in vector]
    too_large = metric == "inner_product" and any(abs(x) > 1e19 / math.sqrt(len(together)) for x in together)
    return "infinite" if too_large else ""


def judge_one(user, vector, metric):
    if user is None:
        return "null_id"
    if vector is None:
        return "null_vector"
    if any(x is None or math.isnan(x) for x in vector):
        return "nan"
    if any(math.isinf(x) or (metric == "inner_product" and abs(x) > 1e19 / math.sqrt(len(vector))) for x in vector):
        return "infinite"
    return "zero_vector" if metric == "cosine" and vector and not any(vector) else ""


def scaled(vector, root, metric):
    length = math.hypot(*vector) if metric == "cosine" else 1
    return [root * x / length for x in vector]


numbers = st.sampled_from([0.0, 1.0, -2.5, 6e18, NAN, INF, None])
vectors = st.none() | st.lists(numbers, max_size=3)
rows = st.tuples(st.sampled_from([1, 2, 2, 2, None]), vectors, vectors)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(rows, max_size=9), st.sampled_from(["cosine", "inner_product"]), st.sampled_from(["float", "double"]))
def test_any_mixture_of_rows_is_judged_row_by_row_and_judge_together(rows, metric, precision):
    kind = pa.list_(pa.float32() if precision == "float" else pa.float64())
    ids = pa.array([user for user, _, _ in rows], pa.int64())
    columns = [pa.array([row[i] for row in rows], kind) for i in (1, 2)]
    reason, good = judge_together([check_rows(ids, column, metric) for column in columns], WEIGHTS, metric)
    assert [REASONS[code] for code in reason] == [judge(row[0], row[1:], metric) for row in rows]
    met = []
    for lengths, (places, made) in good.items():
        assert made.shape == (len(places), sum(lengths))
        for place, vector in zip(places.tolist(), made.tolist(), strict=True):
            one, other = rows[place][1:]
            assert (len(one), len(other)) == lengths
            wanted = [*scaled(one, 0.5, metric), *scaled(other, 2, metric)]
            np.testing.assert_allclose(vector, wanted, rtol=1e-7 if precision == "float" else 1e-14)
            met.append(place)
    assert sorted(met) == np.flatnonzero(reason == 0).tolist()


def test_numbers_that_float32_holds_stay_float32():
    ids, column = pa.array([1, 2]), pa.array([[1.0, 0.5], [3.0, 2.0]])
    for weights, kind in (((1, 4), np.float32), ((1, 2), np.float64)):
        _, good = judge_together([check_rows(ids, column, "inner_product")] * 2, weights, "inner_product")
        assert good[2, 2][1].dtype == kind


@pytest.mark.parametrize("n", [2, 3])
def test_sparse_vectors_are_judge_together_and_too_large_indices_are_bad(n):
    most, ids = most_index(n), pa.array(range(4))
    indices = pa.array([[0, most], [5], [most + 1, 2], []], pa.list_(pa.int64()))
    values = pa.array([[2.0, 1.0], [3.0], [4.0, 4.0], []], pa.list_(pa.float64()))
    small = pa.array([[1], [7], [1], [2]], pa.list_(pa.int64())), pa.array([[1.0]] * 4)
    columns = [small] * (n - 1) + [(indices, values)]
    judged = [check_sparse_rows(ids, *column, "inner_product", most) for column in columns]
    reason, good = judge_together(judged, [1.0] * n, "inner_product")
    assert [REASONS[code] for code in reason] == ["", "", "bad_index", ""]
    [(lengths, (places, made))] = good.items()
    assert lengths == (made.shape[1],)
    assert places.tolist() == [0, 1, 3]
    first = dict(zip(made.indices[: made.indptr[1]].tolist(), made.data[: made.indptr[1]].tolist(), strict=True))
    assert first == {n - 1: 2.0, most * n + n - 1: 1.0} | {n + i: 1.0 for i in range(n - 1)}
    assert np.diff(made.indptr).tolist() == [n + 1, n, n - 1]


def test_a_weight_may_make_a_product_too_large():
    ids, column = pa.array([1, 2]), pa.array([[1.0, 1.0], [1e18, 1.0]])
    judged = [check_rows(ids, column, "inner_product")] * 2
    for weights, reasons in (((1.0, 1.0), ["", ""]), ((1.0, 1e4), ["", "infinite"]), ((1e300, 1.0), ["infinite"] * 2)):
        reason, _ = judge_together(judged, weights, "inner_product")
        assert [REASONS[code] for code in reason] == reasons
    assert judge_together([check_rows(ids, column, "cosine")] * 2, (1e300, 1.0), "cosine")[0].tolist() == [0, 0]
