import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

import annspark.local as module
from annspark.core.metric import METRICS
from annspark.core.query_leaves import Extent, column_leaves
from annspark.core.routing_space import RoutingSpace
from annspark.core.vectors import slice_rows, sparse_rows
from annspark.errors import InputError, SettingsError
from annspark.local import open_index
from annspark.saved.manifest import FORMAT, manifest_as_text, read_manifest
from annspark.saved.store import Store
from tests.core.test_search import SPARSE, sparse_world, world
from tests.core.worlds import DENSE
from tests.helpers import REPOSITORY, clustered, grid
from tests.indexes import save_index
from tests.oracle import between

ALL = 10**6  # leaves


def assert_nearest(found, rows, queries, metric, k, ids=None):
    """Assert that ids and distances are those of the k nearest rows, by (distance, id)."""
    ids_found, distances = found
    far = between(queries, rows, metric)
    m = min(k, rows.shape[0])
    assert ids_found.shape == distances.shape == (queries.shape[0], m)
    place = {one: at for at, one in enumerate(range(rows.shape[0]) if ids is None else ids)}
    told = -distances if metric == "inner_product" else distances
    for i in range(len(told)):
        at = [place[one] for one in ids_found[i].tolist()]
        assert len(set(at)) == m
        np.testing.assert_allclose(told[i], far[i, at], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(told[i], np.sort(far[i])[:m], rtol=1e-4, atol=1e-6)
        keys = list(zip(told[i].tolist(), ids_found[i].tolist(), strict=True))
        assert keys == sorted(keys)


def same(one, other):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


@pytest.fixture
def together(monkeypatch):
    """Search even two vectors together; a single one is searched in its own way all the same."""
    monkeypatch.setattr(module, "_FEW", 1)


# Groups


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize(
    ("metric", "kind"),
    [("cosine", "dense"), ("inner_product", "dense"), ("euclidean", "sparse"), ("jaccard", "sparse")],
)
def test_a_group_is_searched_alone(tmp_path, metric, kind, trees):
    """Two large groups, one of which is null, small ones in common leaves, and one that the index does not have."""
    names = [None, "large", "b", "c", "d", "e", "nobody"]
    of_row = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [300, 250, 30, 3, 1, 16]))
    if kind == "dense":
        rows, queries = world(metric, 600), world(metric, 660)[600:]
    else:
        rows, queries = sparse_world(0, 600, metric), csr_array(sparse_world(1, 60, metric))
    ids = [f"row {i:03}" for i in range(600)]
    save_index(tmp_path, rows, ids, metric=metric, trees=trees, groups=[names[i] for i in of_row])
    index, of_query = open_index(str(tmp_path)), np.arange(60) % 7
    found = index.search(queries, 20, probes=ALL, within=[names[i] for i in of_query])
    assert [part.shape for part in found] == [(60, 20), (60, 20)]
    for group, name in enumerate(names):
        asking, members = np.flatnonzero(of_query == group), np.flatnonzero(of_row == group)
        m = min(20, len(members))
        if m and (kind == "dense" or group > 1):
            of_group = tuple(part[asking, :m] for part in found)
            assert_nearest(of_group, rows[members], queries[asking], metric, m, [ids[i] for i in members])
        elif m:  # sparse rows of large groups do not meet all others
            nearest = np.sort(between(queries[asking], rows[members], metric))[:, :m]
            np.testing.assert_allclose(found[1][asking].mean(), nearest.mean(), rtol=0.02)
        assert (found[0][asking, m:] == None).all()  # noqa: E711
        assert (found[1][asking, m:] == (-np.inf if metric == "inner_product" else np.inf)).all()
        one = index.search(index.vector(ids[7]), 20, probes=ALL, within={"language": name})
        assert [len(part) for part in one] == [m, m]
        assert {int(text[4:]) for text in one[0]} <= set(members.tolist())


# Dense vectors


@pytest.mark.parametrize("trees", [1, 3])
@pytest.mark.parametrize("metric", DENSE)
def test_all_leaves_hold_the_exact_nearest(together, tmp_path, metric, trees):
    rows = world(metric, 700)
    save_index(tmp_path, rows, metric=metric, trees=trees, parts=3)
    index = open_index(str(tmp_path))
    assert (len(index), index.metric, index.dim) == (700, metric, 12)
    queries = world(metric, 720)[680:]
    found = index.search(queries, 7, probes=ALL)
    assert found[0].dtype == np.int64
    assert found[1].dtype == np.float32
    assert_nearest(found, rows, queries, metric, 7)
    for i in (0, 13, 39):
        same(index.search(queries[i], 7, probes=ALL), (found[0][i], found[1][i]))


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("metric", DENSE)
def test_few_and_many_vectors_find_the_same(monkeypatch, tmp_path, metric, trees):
    rows = world(metric, 900)
    save_index(tmp_path, rows, metric=metric, trees=trees, leaves=30, probes=3)
    index, queries = open_index(str(tmp_path)), world(metric, 980)[900:]
    one_by_one = [index.search(query) for query in queries]
    one_by_one = tuple(np.stack(part) for part in zip(*one_by_one, strict=True))
    same(index.search(queries), one_by_one)
    same(index.search(queries[:3]), tuple(part[:3] for part in one_by_one))
    monkeypatch.setattr(module, "_IN_FLIGHT", 500)
    monkeypatch.setattr(module, "_AT_ONCE", 17)
    monkeypatch.setattr("annspark.core.search._ALONE", 2000)
    same(index.search(queries), one_by_one)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    same(open_index(str(tmp_path)).search(queries), one_by_one)


def test_a_calibrated_search_finds_most(tmp_path):
    rows = clustered(3000, 16)
    save_index(tmp_path, rows, leaves=30, probes=6)
    queries = clustered(3100, 16)[3000:]
    ids, _ = open_index(str(tmp_path)).search(queries)
    wanted = np.argsort(between(queries, rows, "cosine"), axis=1)[:, :10]
    assert np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(ids, wanted, strict=True)]) > 0.9


@pytest.mark.parametrize("metric", DENSE)
def test_ties_and_twins_come_in_the_order_of_ids(together, tmp_path, metric):
    rows = grid(4, 3, twins=80)
    rows = (rows > 2).astype(np.float32) if metric == "hamming" else rows
    ids = np.random.default_rng(0).permutation(10 * len(rows))[: len(rows)] - 500
    save_index(tmp_path, rows, ids.tolist(), metric=metric, trees=2)
    index = open_index(str(tmp_path))
    for k in (1, 3, 50, 500):
        found = index.search(rows[::9], k, probes=ALL)
        assert_nearest(found, rows, rows[::9], metric, k, ids.tolist())
        same(index.search(rows[9], k, probes=ALL), (found[0][1], found[1][1]))


@pytest.mark.parametrize("k", [1, 39, 40, 1000])
def test_where_leaves_hold_fewer_than_k_rows_further_ones_are_searched(together, tmp_path, k):
    rows = clustered(40, 5)
    save_index(tmp_path, rows, leaves=10, probes=1, parts=4)
    index = open_index(str(tmp_path))
    for query in rows[:6]:
        ids, distances = index.search(query, k)
        assert len(ids) == len(distances) == len(np.unique(ids)) == min(k, 40)
    assert index.search(rows, k)[0].shape == (40, min(k, 40))


def test_hubs_are_compared_with_every_vector(together, tmp_path, monkeypatch):
    rows = clustered(500, 8)
    rows[7] *= 50
    monkeypatch.setattr(RoutingSpace, "are_hubs", lambda self, vectors: np.linalg.norm(vectors, axis=1) > 40)
    manifest = save_index(tmp_path, rows, metric="inner_product", leaves=20, trees=2)
    assert manifest.has_first
    index = open_index(str(tmp_path))
    queries = rows[np.flatnonzero((rows @ rows.T).argmax(axis=1) == 7)[:20]]
    assert len(queries) == 20
    assert (index.search(queries, 3, probes=1)[0][:, 0] == 7).all()
    assert index.search(queries[0], 3, probes=1)[0][0] == 7
    assert_nearest(index.search(queries, 9, probes=ALL), rows, queries, "inner_product", 9)


@pytest.mark.parametrize("size", [1e-30, 1e17])
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_numbers_may_be_large_or_small(together, tmp_path, metric, size):
    rows = (clustered(400, 6) * np.float32(size)).astype(np.float32)
    save_index(tmp_path, rows, metric=metric)
    _, distances = open_index(str(tmp_path)).search(rows[:20], 5, probes=ALL)
    far = between(rows[:20].astype(np.float64) / size, rows.astype(np.float64) / size, metric)
    np.testing.assert_allclose(distances / (1 if metric == "cosine" else size), np.sort(far)[:, :5], 1e-4, 1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "manhattan"])
def test_vectors_may_be_far_from_the_origin_and_in_double_precision(together, tmp_path, metric):
    rows = clustered(400, 6).astype(np.float64) + 1e5
    manifest = save_index(tmp_path, rows, metric=metric)
    assert manifest.numbers == "float64"
    assert manifest.coordinates.origin is not None
    index = open_index(str(tmp_path))
    assert_nearest(index.search(rows[:30], 5, probes=ALL), rows, rows[:30], metric, 5)
    assert_nearest([part[None] for part in index.search(rows[3], 5, probes=ALL)], rows, rows[3:4], metric, 5)
    np.testing.assert_array_equal(index.vector(17), rows[17])


def test_forms_of_dense_vectors(tmp_path):
    rows = clustered(200, 6)
    save_index(tmp_path, rows, metric="euclidean")
    index = open_index(tmp_path)
    wanted = index.search(rows[5])
    for form in (rows[5].tolist(), tuple(rows[5].tolist()), rows[5].astype(np.float64), list(rows[5])):
        same(index.search(form), wanted)
    several = index.search(rows[3:6])
    same(index.search(rows[3:6].tolist()), several)
    same(index.search(list(rows[3:6])), several)
    same(index.search(np.asfortranarray(rows[3:6])), several)
    same(index.search(rows[5].astype(np.int64)), index.search(rows[5].astype(np.int64).astype(float)))
    empty = index.search(np.empty((0, 6)))
    assert empty[0].shape == empty[1].shape == (0, 10)
    assert empty[0].dtype == np.int64


def test_bits_may_be_packed(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2, (300, 16)).astype(np.float32)
    save_index(tmp_path, rows, metric="hamming")
    index = open_index(str(tmp_path))
    wanted = index.search(rows[:9], 5)
    packed = np.packbits(rows[:9].astype(bool), axis=1)
    same(index.search([row.tobytes() for row in packed], 5), wanted)
    same(index.search(rows[:9].astype(bool), 5), wanted)
    same(index.search(packed[0].tobytes(), 5), (wanted[0][0], wanted[1][0]))


IDS = {
    "strings": [f"user-{i * 37 % 300}é" for i in range(300)],
    "bytes": [bytes([i % 251, i // 251]) for i in range(300)],
    "dates": [date.fromordinal(700000 + i * 7 % 300) for i in range(300)],
    "decimals": [Decimal(i * 7 % 300) / 100 for i in range(300)],
    "small integers": pa.array([i - 100 for i in range(300)], pa.int16()),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_type(together, tmp_path, kind):
    rows, ids = grid(3, 4, twins=179), IDS[kind]
    assert len(rows) == 300
    save_index(tmp_path, rows, ids, metric="euclidean", trees=2)
    index, plain = open_index(str(tmp_path)), list(ids.to_pylist() if isinstance(ids, pa.Array) else ids)
    found = index.search(rows[:20], 30, probes=ALL)
    assert found[0].dtype == (np.int64 if kind == "small integers" else object)
    assert_nearest(found, rows, rows[:20], "euclidean", 30, plain)
    for at in (0, 13, 299):
        np.testing.assert_array_equal(index.vector(plain[at]), rows[at])
    for missing in ("nobody", b"\xff\xff\xff", 10**30, 5.5, None, Decimal(7777), date(1, 1, 1)):
        with pytest.raises(KeyError):
            index.vector(missing)


def test_threads_give_the_same(tmp_path):
    rows = clustered(2000, 16)
    save_index(tmp_path, rows, leaves=40)
    wanted = [open_index(str(tmp_path)).search(query) for query in rows[:200]]
    index = open_index(str(tmp_path))
    with ThreadPoolExecutor(4) as threads:
        for found, right in zip(threads.map(index.search, rows[:200]), wanted, strict=True):
            same(found, right)
        assert len({id(ids) for ids in threads.map(lambda i: index.vector(i) is not None, range(8))}) == 1


def test_opening_reads_no_vectors(tmp_path, monkeypatch):
    save_index(tmp_path, clustered(200, 6))
    monkeypatch.setattr("annspark.saved.store.open_part", None)
    assert len(open_index(str(tmp_path))) == 200


# Sparse rows


@pytest.mark.parametrize("trees", [1, 2])
@pytest.mark.parametrize("metric", SPARSE)
def test_sparse_rows_find_the_nearest_of_the_leaves_they_go_to(tmp_path, metric, trees):
    rows, queries = sparse_world(0, 900, metric), sparse_world(1, 20, metric)
    manifest = save_index(tmp_path, rows, metric=metric, trees=trees, sample=50, k=1)
    index, store = open_index(str(tmp_path)), Store(str(tmp_path), manifest)
    found = index.search(csr_array(queries), 7, probes=3)
    prepared = manifest.coordinates.for_routing(queries)
    for i in range(20):
        leaves = column_leaves(manifest.forest, slice_rows(prepared, i, i + 1), Extent(3.0, None)).tolist()
        ids = [store.rows_of(leaf)[0] for leaf in leaves if manifest.leaf_rows[leaf]] + [store.first_rows()[0]]
        compared = np.unique(np.concatenate([some.to_numpy() for some in ids]))
        assert 200 < len(compared) < 800
        one = (found[0][i : i + 1], found[1][i : i + 1])
        assert_nearest(one, rows[compared], slice_rows(queries, i, i + 1), metric, 7, compared.tolist())
        as_dict = dict(zip(*(part.tolist() for part in entries(queries, i)), strict=True))
        same(index.search(list(as_dict) if metric == "jaccard" else as_dict, 7, probes=3), (one[0][0], one[1][0]))


def entries(rows, i):
    one = slice_rows(rows, i, i + 1)
    return one.indices, one.data


@pytest.mark.parametrize("metric", SPARSE)
def test_rows_related_to_none_find_the_nearest_unrelated_ones(tmp_path, metric):
    rows = sparse_world(0, 900, metric)
    save_index(tmp_path, rows, metric=metric, probes=2)
    queries = sparse_rows(np.ones(4, np.int64), np.arange(100, 104, dtype=np.int32), np.ones(4, np.float32), 104)
    found = open_index(str(tmp_path)).search(queries, 10)
    wider = sparse_rows(np.diff(rows.indptr), rows.indices, rows.data, 104)
    assert_nearest(found, wider, queries, metric, 10)
    if metric != "euclidean":
        assert (found[0] == np.arange(10)).all()


@pytest.mark.parametrize("k", [350, 900, 5000])
@pytest.mark.parametrize("metric", SPARSE)
def test_more_neighbors_than_there_are_first_rows(tmp_path, metric, k):
    rows = sparse_world(0, 900, metric, width=5000)
    save_index(tmp_path, rows, metric=metric, probes=2, trees=2)
    index, queries = open_index(str(tmp_path)), sparse_world(1, 3, metric, width=5000)
    found = index.search(queries, k)
    assert found[0].shape == (3, min(k, 900))
    if k > 500:  # more than are compared at first, so that all are
        assert_nearest(found, rows, queries, metric, k)


def test_forms_of_sparse_rows(tmp_path):
    rows = sparse_world(0, 300, "cosine")
    save_index(tmp_path, rows)
    index = open_index(str(tmp_path))
    whole = slice_rows(rows, 3, 6)
    several, dense = index.search(csr_array(whole)), whole.toarray()
    one = (several[0][0], several[1][0])
    as_dict = dict(zip(*map(list, entries(rows, 3)), strict=True))
    same(index.search(as_dict), one)
    same(index.search(index.vector(3)), one)
    same(index.search(dense[0]), one)
    same(index.search(dense[0].tolist()), one)
    same(index.search(dense), several)
    same(index.search([index.vector(i) for i in (3, 4, 5)]), several)
    unknown = index.search({**as_dict, 10**9: 0.0})
    same(unknown, one)
    assert index.search({10**9: 1.0})[1].tolist() == [1.0] * 10
    assert index.search([])[0].shape == (0, 10)


def test_forms_of_sets(tmp_path):
    rows = sparse_world(0, 300, "jaccard")
    save_index(tmp_path, rows, metric="jaccard")
    index = open_index(str(tmp_path))
    members = index.vector(3)
    assert members == set(entries(rows, 3)[0].tolist())
    wanted = index.search(members)
    bits = np.zeros(64, bool)
    bits[list(members)] = True
    for form in (list(members), np.array(list(members)), frozenset(members), bits, np.packbits(bits).tobytes()):
        same(index.search(form), wanted)
    several = index.search([members, index.vector(4)])
    assert several[0].shape == (2, 10)
    same(index.search([list(members), list(index.vector(4))]), several)
    assert index.search(set())[1].tolist() == [1.0] * 10
    assert index.search([])[1].shape == (10,)


# What is refused


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.ones(5), r"shape \(5,\) was given, and the index holds vectors of 6 numbers"),
        (np.ones((3, 7)), r"shape \(3, 7\)"),
        (np.ones((1, 3, 6)), r"shape \(1, 3, 6\)"),
        (3.5, r"shape \(\)"),
        ("six", "str 'six' is no vector of numbers"),
        ([[1, 2], [3]], "nor several of one length"),
        (None, r"shape \(\)"),
        ([[1.0] * 6, [np.nan] * 6], "row 1 holds NaN or infinite numbers"),
        ([np.inf] * 6, "row 0 holds NaN or infinite"),
        (np.zeros(6), "row 0 is all zeros, which has no direction and so no cosine"),
        ({1: 2.0}, "dict"),
    ],
)
def test_dense_vectors_that_do_not_fit_are_refused(tmp_path, vectors, words):
    save_index(tmp_path, clustered(50, 6))
    with pytest.raises(InputError, match=words):
        open_index(str(tmp_path)).search(vectors)


@pytest.mark.parametrize(
    ("metric", "vectors", "words"),
    [
        ("cosine", {-1: 2.0}, "column below 0"),
        ("cosine", {2**31: 2.0}, "column below 0 or above 2,147,483,646"),
        ("cosine", {"a": 2.0}, "Give {column: number}"),
        ("cosine", {1: "x"}, "is no vector of the index"),
        ("cosine", {1: np.nan}, "row 0 holds NaN"),
        ("cosine", [{1: 1.0}, {}], "row 1 is all zeros"),
        ("cosine", {1, 2}, "Give {column: number}"),
        ("cosine", 7, "int 7 is no vector"),
        ("jaccard", [1, 1], "a member comes twice"),
        ("jaccard", {"a"}, "Give a set or list of whole numbers"),
        ("jaccard", [0.5], "Give a set or list of whole numbers"),
        ("euclidean", {1: 1e30}, "row 0 is so long"),
    ],
)
def test_sparse_rows_that_do_not_fit_are_refused(tmp_path, metric, vectors, words):
    save_index(tmp_path, sparse_world(0, 50, metric), metric=metric)
    with pytest.raises(InputError, match=words):
        open_index(str(tmp_path)).search(vectors)


def test_numbers_that_are_no_bits_and_vectors_that_are_too_long_are_refused(tmp_path):
    save_index(tmp_path / "bits", world("hamming", 50), metric="hamming")
    with pytest.raises(InputError, match="row 1 holds numbers other than 0 and 1"):
        open_index(str(tmp_path / "bits")).search([[0] * 12, [2] * 12])
    save_index(tmp_path / "long", world("euclidean", 50), metric="euclidean")
    with pytest.raises(InputError, match="row 300 is so long"):
        open_index(str(tmp_path / "long")).search([[0.0] * 12] * 300 + [[1e30] * 12])


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10", None])
def test_k_and_probes_are_whole_numbers(tmp_path, value):
    save_index(tmp_path, clustered(50, 6))
    index = open_index(str(tmp_path))
    with pytest.raises(SettingsError, match=r"'k' is .*; it must be a whole number, 1 or more"):
        index.search(np.ones(6), value)
    if value is not None:
        with pytest.raises(SettingsError, match="'probes' is "):
            index.search(np.ones(6), 3, value)


# Folders that are no whole index


@pytest.fixture
def saved(tmp_path):
    save_index(tmp_path / "index", clustered(300, 6))
    return tmp_path / "index"


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        open_index(str(folder))
    assert str(caught.value).startswith(f"index {str(folder)!r}: ")
    return str(caught.value).partition(": ")[2]


def test_a_folder_that_is_not_there(tmp_path):
    assert refused(tmp_path / "none").startswith("there is no such folder")
    (tmp_path / "file").write_text("x")
    assert refused(tmp_path / "file").startswith("this is a file and no folder")
    assert "cannot reach it" in refused("nowhere://x")
    with pytest.raises(SettingsError, match="'path' is None"):
        open_index(None)


def test_a_folder_that_is_no_index(tmp_path):
    assert refused(tmp_path).startswith("there is no index.json in it")
    for foreign in ("[1, 2]", '{"a": 1}', '{"format": "parquet"}', '{"format": 1, "name": "x"}', '{"format": true}'):
        (tmp_path / "index.json").write_text(foreign)
        assert "is not one of annspark" in refused(tmp_path)


def test_an_index_of_a_newer_format(saved):
    change(saved, format=FORMAT + 1, version="9.1")
    assert refused(saved).startswith(f"made by annspark 9.1 with format {FORMAT + 1}; this annspark reads {FORMAT}. ")


def change(folder, **facts):
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_damaged_manifest(saved):
    path = saved / "index.json"
    text = path.read_text()
    path.write_text(text[:-20])
    assert refused(saved).startswith("index.json is damaged")
    path.write_text(text)
    change(saved, rows="many")
    assert "another type than annspark wrote in 'rows'" in refused(saved)
    path.write_text(text)
    change(saved, files=[{"name": "x"}])
    assert "a file is listed as" in refused(saved)
    facts = json.loads(text)
    del facts["dim"]
    path.write_text(json.dumps(facts))
    assert "it lacks dim" in refused(saved)
    for wrong in ({"rows": 299}, {"dim": 7}, {"sparse": True}, {"numbers": "float16"}, {"coordinates": {}}):
        path.write_text(text)
        change(saved, **wrong)
        assert refused(saved).startswith("forest.npz is damaged") or "damaged" in refused(saved)


def test_a_file_that_is_missing_or_not_whole(saved):
    part = next(saved.glob("part-00001*"))
    data = part.read_bytes()
    part.write_bytes(data[:-10])
    assert f"its file {part.name!r} has {len(data) - 10:,} bytes and was saved with {len(data):,}" in refused(saved)
    part.unlink()
    assert f"its file {part.name!r} of {len(data):,} bytes is missing" in refused(saved)


def test_a_forest_that_cannot_be_read(saved):
    path = saved / "forest.npz"
    size = path.stat().st_size
    path.write_bytes(b"x" * size)
    assert refused(saved).startswith("forest.npz is damaged")


def test_a_part_that_is_damaged_is_named_when_it_is_read(saved):
    for part in saved.glob("part-*"):
        part.write_bytes(b"x" * part.stat().st_size)
    with pytest.raises(InputError, match=r"its file 'part-\d+-test.arrow' cannot be read"):
        open_index(str(saved)).search(np.ones(6))


# The manifest


@pytest.mark.parametrize("metric", [*DENSE, "jaccard"])
def test_a_manifest_is_read_as_it_was_written(tmp_path, metric):
    rows = sparse_world(0, 90, "jaccard") if metric == "jaccard" else world(metric, 90)
    wrote = save_index(tmp_path, rows, metric=metric, trees=2)
    read = read_manifest(str(tmp_path))
    for name, value in vars(wrote).items():
        if name == "forest":
            assert read.forest.sizes == value.sizes
            for part in fields(value):
                np.testing.assert_equal(*(getattr(forest, part.name) for forest in (read.forest, value)))
        else:
            np.testing.assert_equal(getattr(read, name), value)
    assert sum(file.rows for file in read.files if file.name.startswith("part-")) >= len(
        rows.toarray() if metric == "jaccard" else rows
    )


def test_a_manifest_in_words(tmp_path):
    manifest = save_index(tmp_path, clustered(1200, 6))
    text = manifest_as_text(manifest)
    for words in (
        "1,200",
        "6 numbers, dense, float32",
        "cosine",
        "long",
        "1 tree with",
        "0.95 asked for",
        "2024-01-02",
    ):
        assert words in text
    assert open_index(str(tmp_path)).info() == text


def test_spark_is_not_needed(tmp_path):
    save_index(tmp_path, clustered(100, 6))
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "pandas", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import annspark
index = annspark.open_index({str(tmp_path)!r})
print(index.search([[1.0] * 6] * 9)[0].shape, len(index.vector(3)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(9, 10) 6"


def test_every_metric_is_searched():
    assert set(DENSE) | set(SPARSE) == set(METRICS)
