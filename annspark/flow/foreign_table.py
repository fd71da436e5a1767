"""Foreign: neighbor tables of any make, whose distances are computed anew from the vectors."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.nearest import places
from annspark.errors import InputError
from annspark.flow.audit import count_popularity, measure_pairs
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.input.given import find_column, shown
from annspark.settings import Settings
from annspark.spark.arrow import collect
from annspark.spark.block import id_type, seeded_hash
from annspark.tables import DISTANCE, NEIGHBOR_ID, NEIGHBORS, RANK, USER_ID, quoted

_HASH = "hash"


@dataclass(frozen=True)
class Found:
    """The neighbors a table has for sampled users.

    distances  : float64 (n_users, k), true ones, inf for what is no neighbor or not there
    popularity : int (n_users,), how often each is somebody's neighbor
    rows       : users of the table
    faults     : what was wrong with the sampled users' lists, and how often
    """

    distances: np.ndarray
    popularity: np.ndarray
    rows: int
    faults: dict[str, int]


def look_up(table: DataFrame, sample: Sample, users: Users, settings: Settings) -> Found:
    """Return what a neighbor table holds for sampled users, judged by the users' vectors and not by its own word.

    table : a row per user with an array of ids, the nearest first, or of structs with neighbor_id, in the order of
            their rank or distance, else the nearest first; or a row per neighbor, with neighbor_id and rank or
            distance.  Where neither says which come first, all are measured and the nearest count
    """
    kind, last, k = id_type(users.table), int(sample.hashes.max()), min(settings.k, users.rows - 1)
    # An id that is none of the input's type is nobody's.
    cast = [F.expr(f"try_cast({name} AS {kind.simpleString()})").alias(name) for name in (USER_ID, NEIGHBOR_ID)]
    told, ordered = _as_pairs(table, settings)
    pairs = told.select(*cast, RANK).where(F.col(USER_ID).isNotNull())
    hashed = seeded_hash(F.col(NEIGHBOR_ID), settings.seed)
    few = collect(
        pairs.where(seeded_hash(F.col(USER_ID), settings.seed) <= last)
        .where(F.col(NEIGHBOR_ID).isNotNull())
        .select(USER_ID, NEIGHBOR_ID, RANK, hashed.alias(_HASH))
    ).sort_by([(RANK, "ascending"), (NEIGHBOR_ID, "ascending")])
    popularity = count_popularity(pairs.select(NEIGHBOR_ID), sample, settings.seed)
    query = pc.fill_null(pc.index_in(few[USER_ID], sample.ids), -1).to_numpy()
    measured = measure_pairs(users, users.coordinates.whole(sample.own), query.clip(min=0), few[_HASH].to_numpy())
    exists = np.isfinite(measured)
    itself = pc.equal(few[USER_ID], few[NEIGHBOR_ID]).to_numpy()
    order = np.lexsort((np.arange(len(few)), few[_HASH].to_numpy(), query))
    again = np.zeros(len(few), bool)
    same = (np.diff(query[order]) == 0) & (np.diff(few[_HASH].to_numpy()[order]) == 0)
    again[order[1:][same]] = True
    good = np.flatnonzero(exists & ~itself & ~again & (query >= 0))
    good = good[np.argsort(query[good], kind="stable")]
    count = np.bincount(query[good], minlength=len(sample.ids))
    among = places(count)
    width = k if ordered else max(k, int(count.max(initial=0)))
    good, among = good[among < width], among[among < width]
    distances = np.full((len(sample.ids), width), np.inf)
    distances[query[good], among] = measured[good]
    faults = {
        "unknown neighbor": int((~exists & (query >= 0)).sum()),
        "own neighbor": int(itself.sum()),
        "neighbor twice": int((again & (query >= 0)).sum()),
        "user without neighbors": int((count == 0).sum()),
    }
    user = F.col(quoted(settings.id_col))
    rows = table.select(user).where(user.isNotNull()).distinct().count()
    return Found(np.sort(distances, axis=1)[:, :k], popularity, rows, {name: n for name, n in faults.items() if n})


def _as_pairs(table: DataFrame, settings: Settings) -> tuple[DataFrame, bool]:
    """Return user_id, neighbor_id and a rank, and whether that orders a user's neighbors; InputError if it cannot."""
    names = (settings.id_col, NEIGHBORS, NEIGHBOR_ID, RANK, DISTANCE)
    found = {name: find_column(table, name, "neighbors") for name in names}
    if found[settings.id_col] is None:
        raise InputError(
            f"neighbors: no column {settings.id_col!r}; there are {shown(table.columns)}. "
            "Rename the column of users, so that it is named as in the input."
        )
    user_id = F.col(quoted(settings.id_col)).alias(USER_ID)
    nested = found[NEIGHBORS]
    if nested is not None and isinstance(nested.dataType, T.ArrayType):
        element = nested.dataType.elementType
        if isinstance(element, T.StructType) and NEIGHBOR_ID not in element.names:
            raise InputError(
                f"neighbors: the structs of {NEIGHBORS!r} have no field {NEIGHBOR_ID!r}; there are "
                f"{shown(element.names)}. Rename the one that holds the neighbor."
            )
        lists = table.select(user_id, F.posexplode(NEIGHBORS).alias(RANK, NEIGHBOR_ID))
        if not isinstance(element, T.StructType):
            return lists, True
        # What collect_list makes is in no order.
        told = (F.col(NEIGHBOR_ID)[name] for name in (RANK, DISTANCE) if _is_number_in(element, name))
        first = next(told, F.col(RANK)).alias(RANK)
        return lists.select(USER_ID, first, F.col(NEIGHBOR_ID)[NEIGHBOR_ID].alias(NEIGHBOR_ID)), True
    if found[NEIGHBOR_ID] is None:
        raise InputError(
            f"neighbors: neither an array column {NEIGHBORS!r} nor a column {NEIGHBOR_ID!r}; there are "
            f"{shown(table.columns)}. Rename the one that holds the neighbors."
        )
    order = next((field for field in (found[RANK], found[DISTANCE]) if field is not None), None)
    if order is not None and not isinstance(order.dataType, T.NumericType):
        raise InputError(
            f"neighbors column {order.name!r} is {order.dataType.simpleString()}; it must be a number, the smallest "
            "first. Cast it, or leave it out: then all neighbors are measured."
        )
    first = (F.col(order.name) if order else F.lit(0)).alias(RANK)
    return table.select(user_id, first, F.col(NEIGHBOR_ID).alias(NEIGHBOR_ID)), order is not None


def _is_number_in(kind: T.StructType, name: str) -> bool:
    return name in kind.names and isinstance(kind[name].dataType, T.NumericType)
