"""Route: ship every vector once to each partition that joins one of its leaves."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.forest import Forest
from annspark.core.plan import AnyForest, Plan
from annspark.core.route import hashes_by_home, route_vectors
from annspark.core.rows import slice_rows, take_rows
from annspark.flow.arrow import elements, numbers, to_binary, to_lists
from annspark.flow.block import block_lengths
from annspark.flow.cluster import partition_keys
from annspark.flow.wire import Wire, row_bytes
from annspark.tables import HASHES, HOMES, IDS, N_VISITS, TARGET, VISITS

_SLICE_BYTES = 4 << 20  # vectors routed at once: what is in flight stays a few times this


def ship_vectors(users: DataFrame, forest: AnyForest, plan: Plan, wire: Wire) -> DataFrame:
    """Return every vector once for each partition that wants it, in blocks.

    users   : ids, hashes and the columns of wire, vectors in float32
    wire    : how they travel; in half precision they are rounded around the middle of all, and the hashes that travel
              are those of hashes_by_home
    returns : target (key of the partition), ids, hashes, the columns of wire, homes (leaf, or -1 for a
              guest), visits, n_visits
    """
    schema = T.StructType(
        [
            T.StructField(TARGET, T.IntegerType()),
            users.schema[IDS],
            T.StructField(HASHES, T.BinaryType()),
            *wire.fields,
            *(T.StructField(name, T.BinaryType()) for name in (HOMES, VISITS, N_VISITS)),
        ]
    )
    keys = partition_keys(plan.n_partitions)
    # The forest travels in the function's closure; Spark broadcasts a large closure by itself.
    return users.mapInArrow(_router(forest, plan, keys, wire), schema)


def _router(
    forest: AnyForest, plan: Plan, keys: np.ndarray, wire: Wire
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    whole, middle = replace(wire, half=False), _middle(forest) if wire.half else 0

    def route(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ids, hashes = elements(batch.column(0)), numbers(batch.column(1), np.int64)
            vectors = whole.read(batch)
            each = row_bytes(vectors)
            step = max(1, _SLICE_BYTES // each)
            for start in range(0, len(ids), step):
                sent = slice_rows(vectors, start, start + step)
                if wire.half:  # rounded first: vectors that arrive equal have the same home and visits
                    sent = wire.encoded(sent - middle)
                    copies = route_vectors(forest, plan, wire.decoded(sent) + middle)
                    merge_by = hashes_by_home(copies, plan, hashes[start : start + step])
                else:
                    copies = route_vectors(forest, plan, sent)
                    merge_by = hashes[start : start + step]
                first, lengths = block_lengths(copies.partition, each)
                visits = np.add.reduceat(copies.n_visits, first)
                columns = [
                    pa.array(keys[copies.partition[first]]),
                    to_lists(ids.take(pa.array(start + copies.row)), lengths),
                    to_binary(merge_by[copies.row], lengths),
                    *wire.write(take_rows(sent, copies.row), lengths),
                    to_binary(copies.home, lengths),
                    to_binary(copies.visits, visits),
                    to_binary(copies.n_visits, lengths),
                ]
                yield pa.RecordBatch.from_arrays(columns, [TARGET, IDS, HASHES, *wire.names, HOMES, VISITS, N_VISITS])

    return route


def _middle(forest: AnyForest) -> np.ndarray | int:
    """Return what may be taken from all vectors, to leave their numbers small and their distances as they are."""
    return forest.origin if isinstance(forest, Forest) and forest.space.radius is None else 0
