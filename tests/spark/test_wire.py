import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from annspark.spark.arrow import to_binary
from annspark.spark.wire import Wire

pytestmark = pytest.mark.spark35

RNG = np.random.default_rng(3)


def blocks_of(parts, wire):
    """Return blocks of two rows each, the numbers of every part in its own precision."""
    columns = {name: [] for name in ("hashes", *wire.names)}
    for vectors in parts:
        lengths = np.full(vectors.shape[0] // 2, 2)
        columns["hashes"].append(to_binary(np.arange(vectors.shape[0]), lengths))
        for name, column in zip(wire.names, wire.write(vectors, lengths), strict=True):
            columns[name].append(column)
    return pa.table({name: pa.chunked_array(chunks) for name, chunks in columns.items()})


def dense(kind, n=6):
    return RNG.normal(size=(n, 3)).astype(kind)


def sparse(kind):
    rows = csr_array(np.where(RNG.random((6, 9)) < 0.3, RNG.normal(size=(6, 9)), 0).astype(kind))
    rows.sort_indices()
    return rows


@pytest.mark.parametrize("make", [dense, sparse])
@pytest.mark.parametrize(
    "kinds",
    [[np.float32], [np.float64], [np.float32, np.float64], [np.float64, np.float32, np.float32, np.float64]],
    ids=["float32", "float64", "both", "in turns"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["one piece", "chunks"])
def test_vectors_arrive_as_they_were_written_whatever_the_precision_of_each_block(make, kinds, whole):
    parts = [make(kind) for kind in kinds]
    wire = Wire(9 if make is sparse else 3, make is sparse)
    blocks = blocks_of(parts, wire)
    read = wire.read(blocks.combine_chunks() if whole else blocks)
    numbers = read.data if make is sparse else read
    assert numbers.dtype == (np.float64 if np.float64 in kinds else np.float32)
    plain = [part.toarray() if make is sparse else part for part in parts]
    np.testing.assert_array_equal(read.toarray() if make is sparse else read, np.concatenate(plain))


def test_no_blocks_are_no_vectors():
    wire = Wire(3)
    assert wire.read(blocks_of([dense(np.float32, 0)], wire)).shape == (0, 3)
