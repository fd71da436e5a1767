"""Grow: the driver grows the forest from a sample; of a forest too large for that, executors grow the limbs.

The driver then grows only the trunk.  A limb replaces a leaf of the trunk, and is grown from the sampled vectors that
are at home in that leaf.
"""

from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.centre_forest import CentreForest, graft_limbs, grow_forest, grow_limb
from annspark.core.column_forest import ColumnForest, grow_columns
from annspark.core.coordinates import Coordinates
from annspark.core.forest import Forest
from annspark.core.grouped_forest import grow_grouped
from annspark.core.plan import count_leaves, count_limbs, count_sampled, count_sampled_for_limbs
from annspark.core.sampling import draw_limit
from annspark.core.two_level import nearest_grouped
from annspark.core.vectors import Vectors, is_sparse, take_rows
from annspark.flow.read import Users
from annspark.settings import Settings
from annspark.spark.arrow import Batches, Mapper, collect, gathered, numbers, to_binary
from annspark.spark.block import block_lengths
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import HASHES, LOWEST, PARTITION_KEY, VECTORS

_LIMB, _CENTRES = "limb", "centres"


def leaves_for(rows: int, settings: Settings) -> int:
    """Return how many leaves a tree of this many users should have."""
    return count_leaves(rows, settings.leaf_rows, settings.k)


def count_forest_sample(users: Users, settings: Settings) -> int:
    """Return how many users the driver grows the forest from."""
    n_leaves = leaves_for(users.rows, settings)
    return count_sampled(users.rows, users.width, count_limbs(n_leaves, users.width) or n_leaves)


def grow(users: Users, sample: Vectors, settings: Settings, *, trees: int, first_tree: int = 0) -> Forest:
    """Return a forest for the users: of centres for dense vectors, of columns for sparse rows, or one for each group.

    sample     : vectors of sampled users
    first_tree : number of the first tree; a tree depends on its number and not on the other trees
    """
    numbers_of_trees = range(first_tree, first_tree + trees)
    n_leaves = leaves_for(users.rows, settings)
    if users.groups is not None:
        return grow_grouped(
            sample,
            users.groups.large,
            users.groups.small_rows,
            partial(leaves_for, settings=settings),
            lambda some, rows: _grow_here(some, rows, leaves_for(rows, settings), settings, numbers_of_trees),
        )
    n_limbs = 0 if users.wire.sparse else count_limbs(n_leaves, users.width)
    forest = _grow_here(sample, users.rows, n_limbs or n_leaves, settings, numbers_of_trees)
    return grow_limbs(users, forest, n_leaves, settings) if isinstance(forest, CentreForest) and n_limbs else forest


def _grow_here(sample: Vectors, rows: int, n_leaves: int, settings: Settings, trees: range) -> Forest:
    """Return a forest that the driver grows from sampled vectors.

    rows  : number of all vectors
    trees : their numbers
    """
    if not is_sparse(sample):
        return grow_forest(
            sample,
            n_leaves,
            first_tree=trees.start,
            trees=len(trees),
            split=settings.split,
            seed=settings.seed,
            metric=settings.metric,
        )
    homes = tuple(trees)
    if n_leaves == 1:  # no row has column -1, so every row is in the leaf of the rest
        return ColumnForest(np.array([-1], np.int32), np.ones(1, np.float32), unknown=1.0, n_shared=0, homes=homes)
    return grow_columns(sample, rows, n_leaves, homes=homes, metric=settings.metric)


def grow_limbs(users: Users, trunk: CentreForest, n_leaves: int, settings: Settings) -> CentreForest:
    """Return the trunk with every leaf replaced by a limb, grown from a larger sample than the driver could hold.

    n_leaves : about how many leaves a whole tree should have
    """
    want = count_sampled_for_limbs(users.rows, n_leaves)
    n_limbs = sum(len(centres) for centres in trunk.trees)
    keys = partition_keys(n_limbs)
    limit = draw_limit(want, users.rows)
    blocks = users.table.where(F.col(LOWEST) <= limit).select(HASHES, *users.wire.names)
    drawn = blocks.mapInArrow(
        _limb_sample_mapper(trunk, keys, limit, users.wire, users.coordinates),
        f"{PARTITION_KEY} int, {HASHES} binary, {VECTORS} binary",
    )
    mapper = _limb_mapper(keys, len(trunk.origin), want / n_leaves, settings)
    schema = T.StructType([T.StructField(_LIMB, T.IntegerType()), T.StructField(_CENTRES, T.BinaryType())])
    grown = collect(drawn.repartition(n_limbs, PARTITION_KEY).mapInArrow(mapper, schema))
    limbs = {
        limb: np.frombuffer(centres, np.float32).reshape(-1, len(trunk.origin))
        for limb, centres in zip(grown[_LIMB].to_pylist(), grown[_CENTRES].to_pylist(), strict=True)
    }
    return graft_limbs(trunk, limbs)


def _limb_sample_mapper(
    trunk: CentreForest, keys: np.ndarray, limit: int, wire: Wire, coordinates: Coordinates
) -> Mapper:
    dim = len(trunk.origin)

    def draw(batches: Batches) -> Batches:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            drawn = np.flatnonzero(hashes <= limit)
            points = trunk.home_points(coordinates.for_routing(take_rows(wire.read(batch), drawn)))
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
                yield pa.RecordBatch.from_arrays(columns, [PARTITION_KEY, HASHES, VECTORS])
                first_limb += len(groups.centres)

    return draw


def _limb_mapper(keys: np.ndarray, dim: int, per_leaf: float, settings: Settings) -> Mapper:
    limb_of = {int(key): limb for limb, key in enumerate(keys)}

    def grow(batches: Batches) -> Batches:
        drawn = gathered(batches)
        if drawn is None:
            return
        limb = limb_of[drawn[PARTITION_KEY][0].as_py()]
        # Sorted by hash, the sample is the same however the table is partitioned.
        order = np.argsort(numbers(drawn[HASHES], np.int64), kind="stable")
        points = numbers(drawn[VECTORS], np.float32).reshape(-1, dim)[order]
        n_leaves = max(1, round(len(points) / per_leaf))
        centres = grow_limb(points, n_leaves, split=settings.split, seed=settings.seed, limb=limb)
        columns = [pa.array([limb], pa.int32()), to_binary(centres, np.array([centres.size]))]
        yield pa.RecordBatch.from_arrays(columns, [_LIMB, _CENTRES])

    return grow
