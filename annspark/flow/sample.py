"""Sample: the users whose seeded hash of the id is smallest; the same ones however the table is partitioned."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import types as T

from annspark.core.draw import draw_limit, mix
from annspark.flow.arrow import collect, elements, numbers, to_binary
from annspark.flow.block import id_type
from annspark.flow.read import Users
from annspark.tables import USER_ID, VECTOR

_SAMPLE, _PLACE = "sample", "place"


def sample_vectors(users: Users, want: dict[str, int], seed: int) -> dict[str, tuple[pa.Array, np.ndarray]]:
    """Bring seeded samples to the driver, all in one pass.

    want    : how many users for each purpose; samples for different purposes are independent of each other
    returns : per purpose ids, and float32 (min(want, rows), dim), in order of the hash
    """
    limits = {purpose: draw_limit(n, users.rows) for purpose, n in want.items()}
    schema = T.StructType(
        [
            T.StructField(_SAMPLE, T.IntegerType()),
            T.StructField(_PLACE, T.LongType()),
            T.StructField(USER_ID, id_type(users.table)),
            T.StructField(VECTOR, T.BinaryType()),
        ]
    )
    found = collect(users.table.mapInArrow(_drawer(limits, users.dim, seed), schema))
    samples = {}
    for i, (purpose, n) in enumerate(want.items()):
        mine = found.filter(pc.equal(found[_SAMPLE], i)).sort_by([(_PLACE, "ascending"), (USER_ID, "ascending")])
        mine = mine.slice(0, n)
        vectors = numbers(mine[VECTOR], np.float32).reshape(-1, users.dim)
        samples[purpose] = mine[USER_ID].combine_chunks(), vectors
    return samples


def _drawer(
    limits: dict[str, np.uint64], dim: int, seed: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def draw(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            hashes = numbers(batch.column(1), np.uint64)
            ids = elements(batch.column(0))
            vectors = numbers(batch.column(2), np.float32).reshape(-1, dim)
            for i, (purpose, limit) in enumerate(limits.items()):
                place = mix(hashes, seed, purpose)
                rows = np.flatnonzero(place <= limit)
                columns = [
                    pa.array(np.full(len(rows), i, np.int32)),
                    pa.array((place[rows] >> np.uint64(1)).astype(np.int64)),
                    ids.take(pa.array(rows)),
                    to_binary(vectors[rows], np.full(len(rows), dim)),
                ]
                yield pa.RecordBatch.from_arrays(columns, [_SAMPLE, _PLACE, USER_ID, VECTOR])

    return draw
