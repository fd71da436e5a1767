"""Ask: in every leaf of a partition, compare the queries that go there with the vectors that are at home in it."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from annspark.core.coordinates import Coordinates
from annspark.core.copies import route_queries, route_residents
from annspark.core.excluded import Excluded
from annspark.core.forest import Forest
from annspark.core.join import Joined, join_queries
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.vectors import Vectors, take_rows
from annspark.flow.join import joined_batches, joined_schema
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.spark.arrow import Batches, Mapper, elements, gathered, numbers
from annspark.spark.block import id_type, read_excluded
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter, watch_shipped
from annspark.spark.wire import Wire
from annspark.tables import (
    HASHES,
    HOMES,
    IDS,
    N_VISITS,
    PARTITION_KEY,
    QUERY_IDS,
    VISITS,
)


def ship_both(users: Users, queries: Users, forest: Forest, plan: Plan, meter: Meter) -> DataFrame:
    """Return a copy of every user for the partition of its home, and of every query for each partition it goes to.

    returns : the columns of ship_vectors, with the ids of users in ids and those of queries in query_ids; the other is
              null
    """
    wire, coordinates = queries.wire, queries.coordinates
    at_home = ship_vectors(users.table, forest, plan, wire, coordinates, route_residents)
    asking = ship_vectors(queries.table, forest, plan, wire, coordinates, route_queries)
    asking = watch_shipped(asking, meter, wire).withColumnRenamed(IDS, QUERY_IDS)
    return at_home.unionByName(asking, allowMissingColumns=True)


def ask_partitions(
    shipped: DataFrame,
    plan: Plan,
    n_merge_partitions: int,
    wire: Wire,
    coordinates: Coordinates,
    k: int,
    *,
    own: bool,
) -> DataFrame:
    """Return, for every partition, the k nearest residents that it found for each query shipped to it.

    shipped            : as ship_both returns it
    n_merge_partitions : number of partitions of the merge
    own                : leave out the resident with the id of the query
    returns            : as join_partitions, with a list for every query of the partition
    """
    schema = joined_schema(id_type(shipped, QUERY_IDS), id_type(shipped, IDS))
    keys = partition_keys(n_merge_partitions)
    by_partition = shipped.repartition(plan.n_partitions, PARTITION_KEY)
    return by_partition.mapInArrow(_ask_mapper(keys, plan.shared, wire, coordinates, k, own), schema)


def _ask_mapper(keys: np.ndarray, shared: range, wire: Wire, coordinates: Coordinates, k: int, own: bool) -> Mapper:
    def ask(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:
            return
        asks = shipped[QUERY_IDS].is_valid()
        asking, at_home = shipped.filter(asks), shipped.filter(pc.invert(asks))
        del shipped
        if len(asking) == 0:
            return
        residents = residents_of(
            elements(at_home[IDS]),
            numbers(at_home[HASHES], np.int64),
            wire.read(at_home),
            numbers(at_home[HOMES], np.int32),
        )
        del at_home
        queries = queries_in(asking, QUERY_IDS, wire)
        joined = answer(queries, residents, shared, coordinates, k, own=own)
        yield from joined_batches(joined, np.arange(len(queries.ids)), queries.hashes, keys, queries.ids, residents.ids)

    return ask


@dataclass(frozen=True)
class Residents:
    """Rows that are at home in leaves, in the order of their ids.

    ids     : (n,)
    hashes  : int64 (n,), of the ids
    vectors : ready to be joined
    home    : int32 (n,), home leaf
    """

    ids: pa.Array
    hashes: np.ndarray
    vectors: Vectors
    home: np.ndarray


def residents_of(ids: pa.Array, hashes: np.ndarray, vectors: Vectors, home: np.ndarray) -> Residents:
    """Return rows that are at home in leaves, given in any order."""
    by_id = pc.sort_indices(ids).to_numpy()
    return Residents(ids.take(pa.array(by_id)), hashes[by_id], take_rows(vectors, by_id), home[by_id])


@dataclass(frozen=True)
class Queries:
    """Rows that ask.

    ids      : (n,)
    hashes   : int64 (n,), of the ids
    vectors  : ready to be joined
    visits   : the leaves that they go to
    excluded : what they exclude; None where no pairs are excluded
    """

    ids: pa.Array
    hashes: np.ndarray
    vectors: Vectors
    visits: Visits
    excluded: Excluded | None


def queries_in(shipped: pa.Table, ids: str, wire: Wire) -> Queries:
    """Return the queries of a partition.

    shipped : as ship_vectors returns them, routed by route_queries
    ids     : name of the column of their ids
    """
    n_visits = numbers(shipped[N_VISITS], np.int32)
    row = np.repeat(np.arange(len(n_visits), dtype=np.int32), n_visits)
    return Queries(
        ids=elements(shipped[ids]),
        hashes=numbers(shipped[HASHES], np.int64),
        vectors=wire.read(shipped),
        visits=Visits(row, numbers(shipped[VISITS], np.int32)),
        excluded=read_excluded(shipped),
    )


def answer(
    queries: Queries, residents: Residents, shared: range, coordinates: Coordinates, k: int, *, own: bool
) -> Joined:
    """Return the k nearest residents of the leaves that each query goes to, with distances in the units of the input.

    shared : the leaves that small groups share
    own    : leave out the resident with the id of the query
    """
    pairs = queries.excluded.among(residents.hashes) if queries.excluded else None
    # One more than asked for, because the resident of the query's own id is left out.
    joined = join_queries(
        residents.vectors,
        residents.home,
        queries.vectors,
        queries.visits,
        k + own,
        coordinates.metric,
        pairs,
        shared,
    )
    if own:
        itself = pc.fill_null(pc.index_in(queries.ids, residents.ids), -1).to_numpy()
        joined = _without(joined, itself, k)
    return replace(joined, distances=coordinates.in_input_units(joined.distances))


def _without(joined: Joined, left_out: np.ndarray, k: int) -> Joined:
    """Return lists of k neighbors without the resident given for each query.

    joined   : with lists of k + 1
    left_out : int (n,), a resident, -1 for none
    """
    itself = (joined.neighbors == left_out[:, None]) & (left_out >= 0)[:, None]
    # The neighbor that is left out goes to the end of the list, and the others keep their order.
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    neighbors, distances = (np.take_along_axis(part, order, axis=1) for part in (joined.neighbors, joined.distances))
    return replace(joined, neighbors=neighbors, distances=distances)
