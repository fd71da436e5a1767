"""Grow: the limbs of a large forest, each on an executor, from the sampled vectors at home in a leaf of the trunk."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.config import Settings
from annspark.core.centre_forest import Forest, graft_limbs, grow_forest, grow_limb
from annspark.core.column_forest import ColumnForest, grow_columns
from annspark.core.coordinates import Coordinates
from annspark.core.plan import AnyForest, count_sampled_for_limbs
from annspark.core.sampling import draw_limit
from annspark.core.two_level import nearest_grouped
from annspark.core.vectors import Vectors, is_sparse, take_rows
from annspark.flow.read import Users
from annspark.spark.arrow import collect, numbers, to_binary
from annspark.spark.block import block_lengths
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import HASHES, LOWEST, TARGET, VECTORS

_LIMB, _CENTRES = "limb", "centres"


def grow(sample: Vectors, n_leaves: int, settings: Settings, *, rows: int, first_tree: int, trees: int) -> AnyForest:
    """Return a forest grown on the driver, of centres, or of columns for sparse rows.

    rows : how many users there are in all
    """
    if is_sparse(sample):
        homes = tuple(range(first_tree, first_tree + trees))
        if n_leaves == 1:  # a column that nobody has: the leaf of all others holds everybody
            return ColumnForest(np.array([-1], np.int32), np.ones(1, np.float32), unknown=1.0, buckets=0, homes=homes)
        return grow_columns(sample, rows, n_leaves, homes=homes, metric=settings.metric)
    return grow_forest(
        sample,
        n_leaves,
        first_tree=first_tree,
        trees=trees,
        split=settings.split,
        seed=settings.seed,
        metric=settings.metric,
    )


def grow_limbs(users: Users, trunk: Forest, n_leaves: int, settings: Settings) -> Forest:
    """Return the trunk with every leaf replaced by leaves grown from a larger sample than the driver could hold.

    n_leaves : about how many leaves a tree should have in the end
    """
    want = count_sampled_for_limbs(users.rows, n_leaves)
    n_limbs = sum(len(centres) for centres in trunk.trees)
    keys = partition_keys(n_limbs)
    limit = draw_limit(want, users.rows)
    near = users.table.where(F.col(LOWEST) <= limit).select(HASHES, *users.wire.names)
    drawn = near.mapInArrow(
        _limb_drawer(trunk, keys, limit, users.wire, users.coordinates),
        f"{TARGET} int, {HASHES} binary, {VECTORS} binary",
    )
    grower = _limb_grower(keys, len(trunk.origin), want / n_leaves, settings)
    schema = T.StructType([T.StructField(_LIMB, T.IntegerType()), T.StructField(_CENTRES, T.BinaryType())])
    found = collect(drawn.repartition(n_limbs, TARGET).mapInArrow(grower, schema))
    limbs = {
        limb: np.frombuffer(centres, np.float32).reshape(-1, len(trunk.origin))
        for limb, centres in zip(found[_LIMB].to_pylist(), found[_CENTRES].to_pylist(), strict=True)
    }
    return graft_limbs(trunk, limbs)


def _limb_drawer(
    trunk: Forest, keys: np.ndarray, limit: int, wire: Wire, coordinates: Coordinates
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    dim = len(trunk.origin)

    def draw(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            drawn = np.flatnonzero(hashes <= limit)
            points = trunk.residents(coordinates.rounded(take_rows(wire.read(batch), drawn)))
            first_limb = 0
            for groups in trunk.groups:
                limb = nearest_grouped(points, groups, 1)[:, 0] + first_limb
                order = np.argsort(limb, kind="stable")
                first, lengths = block_lengths(limb[order], 4 * dim + 8)
                columns = [
                    pa.array(keys[limb[order][first]]),
                    to_binary(hashes[drawn][order], lengths),
                    to_binary(points[order], lengths * dim),
                ]
                yield pa.RecordBatch.from_arrays(columns, [TARGET, HASHES, VECTORS])
                first_limb += len(groups.centres)

    return draw


def _limb_grower(
    keys: np.ndarray, dim: int, per_leaf: float, settings: Settings
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    limb_of = {int(key): limb for limb, key in enumerate(keys)}

    def grow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        drawn = pa.Table.from_batches(received)
        limb = limb_of[drawn[TARGET][0].as_py()]
        # In the order of the draw, the sample is the same however the table is partitioned.
        order = np.argsort(numbers(drawn[HASHES], np.int64), kind="stable")
        points = numbers(drawn[VECTORS], np.float32).reshape(-1, dim)[order]
        n_leaves = max(1, round(len(points) / per_leaf))
        centres = grow_limb(points, n_leaves, split=settings.split, seed=settings.seed, limb=limb)
        columns = [pa.array([limb], pa.int32()), to_binary(centres, np.array([centres.size]))]
        yield pa.RecordBatch.from_arrays(columns, [_LIMB, _CENTRES])

    return grow
