"""Route: ship every vector once to each partition that joins its home leaf or a leaf it probes."""

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.copies import Router, route_vectors
from annspark.core.forest import Forest
from annspark.core.plan import Plan
from annspark.core.vectors import in_kind, slice_rows, take_rows
from annspark.spark.arrow import Batches, Mapper, elements, numbers, to_binary, to_lists
from annspark.spark.block import block_lengths, excluded_bytes, excluded_fields, read_excluded, write_excluded
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire, row_bytes
from annspark.tables import EXCLUDED, HASHES, HOMES, IDS, N_EXCLUDED, N_VISITS, PARTITION_KEY, VISITS

_SLICE_BYTES = 4 << 20  # vectors routed at once; memory in use is a few times this


def ship_vectors(
    users: DataFrame,
    forest: Forest,
    plan: Plan,
    wire: Wire,
    coordinates: Coordinates,
    route: Router = route_vectors,
    *,
    prepared: bool = True,
) -> DataFrame:
    """Return a copy of every vector for each partition that needs it, in blocks.

    users    : ids, hashes and the columns of wire, vectors as in the input; perhaps those of excluded_fields
    route    : decides which partitions need a vector
    prepared : ship vectors ready to be joined, and not as in the input
    returns  : partition_key, ids, hashes, the columns of wire (vectors ready to be joined), homes (the home leaf, or -1
              where another partition joins it), visits (the leaves probed), n_visits (how many), and the columns of
              excluded_fields where users has them
    """
    schema = T.StructType(
        [
            T.StructField(PARTITION_KEY, T.IntegerType()),
            users.schema[IDS],
            T.StructField(HASHES, T.BinaryType()),
            *wire.fields,
            *(T.StructField(name, T.BinaryType()) for name in (HOMES, VISITS, N_VISITS)),
            *excluded_fields(users),
        ]
    )
    keys = partition_keys(plan.n_partitions)
    # The forest is part of the function's closure; Spark broadcasts a large closure by itself.
    return users.mapInArrow(_route_mapper(forest, plan, keys, wire, coordinates, route, prepared), schema)


def _route_mapper(
    forest: Forest, plan: Plan, keys: np.ndarray, wire: Wire, coordinates: Coordinates, route: Router, prepared: bool
) -> Mapper:
    def ship(batches: Batches) -> Batches:
        for batch in batches:
            ids, hashes = elements(batch.column(0)), numbers(batch.column(1), np.int64)
            vectors, excluded = wire.read(batch), read_excluded(batch)
            each = row_bytes(vectors) + excluded_bytes(excluded)
            step = max(1, _SLICE_BYTES // each)
            for start in range(0, len(ids), step):
                own = slice_rows(vectors, start, start + step)
                joined = coordinates.for_join(own)
                copies, sent = route(forest, plan, in_kind(joined, np.float32)), joined if prepared else own
                first, lengths = block_lengths(copies.partition, each)
                visits = np.add.reduceat(copies.n_visits, first)
                columns = [
                    pa.array(keys[copies.partition[first]]),
                    to_lists(ids.take(pa.array(start + copies.row)), lengths),
                    to_binary(hashes[start + copies.row], lengths),
                    *wire.write(take_rows(sent, copies.row), lengths),
                    to_binary(copies.home, lengths),
                    to_binary(copies.visits, visits),
                    to_binary(copies.n_visits, lengths),
                ]
                names = [PARTITION_KEY, IDS, HASHES, *wire.names, HOMES, VISITS, N_VISITS]
                if excluded is not None:
                    columns += write_excluded(excluded.take(start + copies.row), lengths)
                    names += [EXCLUDED, N_EXCLUDED]
                yield pa.RecordBatch.from_arrays(columns, names)

    return ship
