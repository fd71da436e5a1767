"""Foreign tables: read the neighbors in a table of any origin, and compute their distances anew from the vectors."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.arrays import places_in_groups
from annspark.errors import InputError
from annspark.flow.audit import count_popularity, measure_pairs
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.input.neighbor_columns import find_neighbor_columns
from annspark.settings import Settings
from annspark.spark.arrow import collect
from annspark.spark.block import id_type, seeded_hash
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID, quoted

_HASH = "hash"


@dataclass(frozen=True)
class ForeignNeighbors:
    """The neighbors that a table has for sampled users.

    distances  : float64 (n_users, k), true distances, ascending; inf where there is no valid neighbor
    popularity : int (n_users,), in how many users' lists each of the sampled users stands
    rows       : number of users in the table
    faults     : what is wrong with the sampled users' lists, and how often
    """

    distances: np.ndarray
    popularity: np.ndarray
    rows: int
    faults: dict[str, int]


def look_up(table: DataFrame, sample: Sample, users: Users, settings: Settings) -> ForeignNeighbors:
    """Return the neighbors that a table has for sampled users, with distances computed from the users' vectors.

    table : a row per user with an array of neighbors: ids, the nearest first, or structs with neighbor_id, in the order
            of their rank or distance where they have one, else the nearest first; or a row per neighbor, with
            neighbor_id and rank or distance.  Rows with neither are not ordered: then all of a user's neighbors are
            measured, and the nearest k count
    """
    k, kind = min(settings.k, users.rows - 1), id_type(users.table).simpleString()
    pairs, ordered = _as_pairs(table, settings)
    # An id that cannot be cast to the input's type belongs to no user.
    cast = [F.expr(f"try_cast({name} AS {kind})").alias(name) for name in (USER_ID, NEIGHBOR_ID)]
    pairs = pairs.select(*cast, RANK).where(F.col(USER_ID).isNotNull())
    sampled = _pairs_of_sample(pairs, sample, settings.seed)
    popularity = count_popularity(pairs.select(NEIGHBOR_ID), sample, settings.seed)
    distances, faults = _measured(sampled, sample, users, k, ordered)
    user = F.col(quoted(settings.id_col))
    rows = table.select(user).where(user.isNotNull()).distinct().count()
    return ForeignNeighbors(distances=distances, popularity=popularity, rows=rows, faults=faults)


def _pairs_of_sample(pairs: DataFrame, sample: Sample, seed: int) -> pa.Table:
    """Collect the pairs of users whose hashes are not above the sample's: user_id, neighbor_id, rank, hash; by rank."""
    last, hashed = int(sample.hashes.max()), seeded_hash(F.col(NEIGHBOR_ID), seed)
    return collect(
        pairs.where(seeded_hash(F.col(USER_ID), seed) <= last)
        .where(F.col(NEIGHBOR_ID).isNotNull())
        .select(USER_ID, NEIGHBOR_ID, RANK, hashed.alias(_HASH))
    ).sort_by([(RANK, "ascending"), (NEIGHBOR_ID, "ascending")])


def _measured(
    pairs: pa.Table, sample: Sample, users: Users, k: int, ordered: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """Measure the valid pairs, and count the others.

    pairs   : user_id, neighbor_id, hash (of the neighbor), each user's in order
    ordered : the first k of a user count, not the nearest k
    returns : distances, and faults, as ForeignNeighbors has them
    """
    hashes = pairs[_HASH].to_numpy()
    query = pc.fill_null(pc.index_in(pairs[USER_ID], sample.ids), -1).to_numpy()
    measured = measure_pairs(users, users.coordinates.for_exact_search(sample.own), query.clip(min=0), hashes)
    exists = np.isfinite(measured)
    is_itself = pc.equal(pairs[USER_ID], pairs[NEIGHBOR_ID]).to_numpy()
    order = np.lexsort((np.arange(len(pairs)), hashes, query))
    is_repeated = np.zeros(len(pairs), bool)
    same = (np.diff(query[order]) == 0) & (np.diff(hashes[order]) == 0)
    is_repeated[order[1:][same]] = True
    valid = np.flatnonzero(exists & ~is_itself & ~is_repeated & (query >= 0))
    valid = valid[np.argsort(query[valid], kind="stable")]
    count = np.bincount(query[valid], minlength=len(sample.ids))
    rank = places_in_groups(count)
    width = k if ordered else max(k, int(count.max(initial=0)))
    valid, rank = valid[rank < width], rank[rank < width]
    distances = np.full((len(sample.ids), width), np.inf)
    distances[query[valid], rank] = measured[valid]
    faults = {
        "unknown neighbor": int((~exists & (query >= 0)).sum()),
        "own neighbor": int(is_itself.sum()),
        "neighbor twice": int((is_repeated & (query >= 0)).sum()),
        "user without neighbors": int((count == 0).sum()),
    }
    return np.sort(distances, axis=1)[:, :k], {name: n for name, n in faults.items() if n}


def _as_pairs(table: DataFrame, settings: Settings) -> tuple[DataFrame, bool]:
    """Return user_id, neighbor_id and rank, and whether rank orders a user's neighbors.

    Raises InputError where columns are missing or of unusable types.
    """
    columns = find_neighbor_columns(table, settings.id_col)
    user_id = F.col(quoted(settings.id_col)).alias(USER_ID)
    ordering = [name for name in (RANK, DISTANCE) if name in columns.told]
    if columns.nested:
        lists = table.select(user_id, F.posexplode(NEIGHBORS).alias(RANK, NEIGHBOR_ID))
        if not columns.structs:
            return lists, True
        # An array of structs may come from collect_list, which keeps no order: their rank or distance gives it.
        ranks = (F.col(NEIGHBOR_ID)[name] for name in ordering if isinstance(columns.told[name], T.NumericType))
        rank = next(ranks, F.col(RANK)).alias(RANK)
        return lists.select(USER_ID, rank, F.col(NEIGHBOR_ID)[NEIGHBOR_ID].alias(NEIGHBOR_ID)), True
    ranked = next(iter(ordering), None)
    if ranked is not None and not isinstance(columns.told[ranked], T.NumericType):
        raise InputError(
            f"neighbors column {ranked!r} is {columns.told[ranked].simpleString()}; it must be a number, the smallest "
            "first. Cast it, or leave it out: then all neighbors are measured."
        )
    rank = (F.col(ranked) if ranked else F.lit(0)).alias(RANK)
    return table.select(user_id, rank, F.col(NEIGHBOR_ID).alias(NEIGHBOR_ID)), ranked is not None
