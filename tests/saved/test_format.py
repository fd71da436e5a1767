"""Indexes that the first version with indexes saved are opened and loaded by every later one."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark import load, open_index
from tests.helpers import REPOSITORY, lists_of, make_table
from tests.oracle import between

KEPT = REPOSITORY / "tests" / "saved" / "format-1"
IDS = {"dense": list(range(300)), "sparse": [f"row {i}" for i in range(300)]}


def vectors_in(index, kind):
    """Return all vectors of an index, in the order of IDS."""
    found = [index.vector(one) for one in IDS[kind]]
    if kind == "dense":
        return np.stack(found)
    whole = np.zeros((300, index.dim))
    for row, vector in zip(whole, found, strict=True):
        row[list(vector)] = list(vector.values())
    return csr_array(whole)


@pytest.mark.parametrize(("kind", "metric"), [("dense", "cosine"), ("sparse", "inner_product")])
def test_an_index_kept_from_format_1_is_opened_and_finds_its_own_rows(kind, metric):
    index = open_index(str(KEPT / kind))
    assert (len(index), index.metric, index.manifest.settings["k"]) == (300, metric, 5)
    vectors = vectors_in(index, kind)
    far = between(vectors, vectors, metric)
    found = 0
    for row, distances in enumerate(far):
        ids, told = index.search(index.vector(IDS[kind][row]), k=5)
        near = [IDS[kind].index(one) for one in ids.tolist()]
        sign = -1 if metric == "inner_product" else 1
        np.testing.assert_allclose(sign * told, distances[near], rtol=1e-5, atol=1e-6)
        found += (distances[near] <= np.sort(distances)[4] + 1e-6).sum()
    assert found > 0.88 * 5 * 300


@pytest.mark.slow
def test_a_session_loads_them_and_gives_the_same_answers(spark):
    index, loaded = open_index(str(KEPT / "dense")), load(spark, KEPT / "dense")
    vectors = vectors_in(index, "dense")
    result = loaded.query(make_table(spark, vectors[:40]), probes=300)
    for row, found in lists_of(result.table).items():
        ids, distances = index.search(vectors[row], k=5, probes=300)
        assert found == list(zip(ids.tolist(), distances.tolist(), strict=True))
    result.table.unpersist()
