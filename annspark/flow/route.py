"""Route: ship every vector once to each partition that joins one of its leaves."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.route import route_vectors
from annspark.flow.arrow import to_binary, vectors_from_binary
from annspark.flow.cluster import partition_keys
from annspark.tables import HOME, TARGET, USER_ID, VECTOR, VISITS

_SLICE_ROWS = 4096  # rows routed at once: what is in flight stays a few times this many vectors


def ship_vectors(vectors: DataFrame, forest: Forest, plan: Plan) -> DataFrame:
    """Return one row per vector and partition that wants it.

    vectors : user_id, vector (binary)
    returns : target (key of the partition), user_id, vector (binary), home (leaf, or -1 for a
              guest), visits (binary int32)
    """
    schema = T.StructType(
        [
            T.StructField(TARGET, T.IntegerType()),
            vectors.schema[USER_ID],
            T.StructField(VECTOR, T.BinaryType()),
            T.StructField(HOME, T.IntegerType()),
            T.StructField(VISITS, T.BinaryType()),
        ]
    )
    keys = partition_keys(vectors.sparkSession, plan.n_partitions)
    # The forest travels in the function's closure; Spark broadcasts a large closure by itself.
    return vectors.mapInArrow(_router(forest, plan, np.array(keys, np.int32)), schema)


def _router(
    forest: Forest, plan: Plan, keys: np.ndarray
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    dim = len(forest.origin)

    def route(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                part = batch.slice(start, _SLICE_ROWS)
                vectors = vectors_from_binary(part.column(1), dim)
                copies = route_vectors(forest, plan, vectors)
                columns = [
                    pa.array(keys[copies.partition]),
                    part.column(0).take(pa.array(copies.row)),
                    to_binary(vectors[copies.row], np.full(len(copies.row), dim)),
                    pa.array(copies.home),
                    to_binary(copies.visits, copies.n_visits),
                ]
                yield pa.RecordBatch.from_arrays(columns, [TARGET, USER_ID, VECTOR, HOME, VISITS])

    return route
