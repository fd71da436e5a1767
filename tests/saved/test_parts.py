import pickle
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from annspark.core.vectors import slice_rows
from annspark.local import open_index
from annspark.saved import manifest, parts
from annspark.saved.parts import BATCH_ROWS, open_part, read_batch, write_part
from annspark.saved.store import Store
from tests.core.test_search import sparse_world
from tests.helpers import clustered
from tests.indexes import save_index


@pytest.mark.parametrize("numbers", ["float32", "float64"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_part_is_read_as_it_was_written(tmp_path, sparse, numbers):
    n, dim = 1500, 60 if sparse else 7
    vectors = sparse_world(0, n, "cosine") if sparse else clustered(n, dim)
    leaf, ids = np.sort(np.random.default_rng(0).integers(0, 40, n)), pa.array([f"id {i}" for i in range(n)])
    rows = write_part(f"{tmp_path}/x.arrow", leaf, ids, np.arange(n) * 3, partial(slice_rows, vectors), numbers)
    reader = open_part(f"{tmp_path}/x.arrow")
    assert reader.num_record_batches == len(rows)
    start = 0
    for number, size in enumerate(rows.tolist()):
        batch = reader.get_batch(number)
        some_ids, hashes, found = read_batch(batch, dim, sparse=sparse)
        wanted = slice_rows(vectors, start, start + size)
        assert some_ids.to_pylist() == ids[start : start + size].to_pylist()
        assert hashes.tolist() == list(range(3 * start, 3 * (start + size), 3))
        values = found.data if sparse else found
        assert values.dtype == numbers
        assert not values.flags.writeable  # it lies in the mapped file
        np.testing.assert_array_equal(found.toarray() if sparse else found, wanted.toarray() if sparse else wanted)
        start += size
    assert start == n


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([], []),
        ([3], [3]),
        ([100, 200, 212], [512]),
        ([100, 200, 213], [300, 213]),
        ([600, 5, 700, 600], [600, 5, 700, 600]),
        ([5, 600, 5, 5], [5, 600, 10]),
        ([1] * 1030, [512, 512, 6]),
    ],
)
def test_a_leaf_never_spans_two_batches(tmp_path, sizes, wanted):
    assert BATCH_ROWS == 512
    leaf, n = np.repeat(np.arange(len(sizes)) * 2, sizes), sum(sizes)
    rows = write_part(
        f"{tmp_path}/x", leaf, pa.array(range(n)), np.arange(n), partial(slice_rows, np.zeros((n, 2))), "float32"
    )
    assert rows.dtype == np.int64
    assert rows.tolist() == wanted


def test_what_tasks_call_is_pickled_by_reference():
    for function in (write_part, open_part, read_batch):
        assert len(pickle.dumps(function)) < 100


def test_an_index_is_read_on_other_file_systems(tmp_path, monkeypatch):
    wrote = save_index(tmp_path, clustered(700, 6), trees=2)
    wanted = open_index(str(tmp_path)).search(clustered(20, 6))
    for module in (parts, manifest):
        monkeypatch.setattr(module, "open_place", lambda path: (fs.SubTreeFileSystem("/", fs.LocalFileSystem()), path))
    index = open_index(str(tmp_path))
    for found, right in zip(index.search(clustered(20, 6)), wanted, strict=True):
        np.testing.assert_array_equal(found, right)
    assert len(index.vector(3)) == 6
    assert len(Store(str(tmp_path), wrote).first_tree()) >= 2


def test_an_index_is_opened_again_in_another_process(tmp_path):
    save_index(tmp_path, clustered(100, 6))
    index = open_index(str(tmp_path))
    again = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(again.search(np.ones(6))[0], index.search(np.ones(6))[0])
