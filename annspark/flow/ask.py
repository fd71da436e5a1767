"""Ask: in every leaf of a partition, compare the queries that go there with the vectors that are at home in it."""

from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from annspark.core.coordinates import Coordinates
from annspark.core.copies import route_queries, route_residents
from annspark.core.forest import Forest
from annspark.core.join import Joined, join_queries
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.vectors import take_rows
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
        ids, query_ids = elements(at_home[IDS]), elements(asking[QUERY_IDS])
        order = pc.sort_indices(ids)
        ids, by_id = ids.take(order), order.to_numpy()
        home = numbers(at_home[HOMES], np.int32)[by_id]
        residents, resident_hashes = take_rows(wire.read(at_home), by_id), numbers(at_home[HASHES], np.int64)[by_id]
        del at_home
        hashes, queries = numbers(asking[HASHES], np.int64), wire.read(asking)
        visiting = np.repeat(np.arange(len(query_ids)), numbers(asking[N_VISITS], np.int32))
        visits = Visits(visiting, numbers(asking[VISITS], np.int32))
        excluded = read_excluded(asking)
        pairs = excluded.among(resident_hashes) if excluded else None
        # One more than asked for, because the resident of the query's own id is left out.
        joined = join_queries(residents, home, queries, visits, k + own, coordinates.metric, pairs, shared)
        if own:
            itself = pc.fill_null(pc.index_in(query_ids, ids), -1).to_numpy()
            joined = _without(joined, itself, k)
        joined = replace(joined, distances=coordinates.in_input_units(joined.distances))
        yield from joined_batches(joined, np.arange(len(query_ids)), hashes, keys, query_ids, ids)

    return ask


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
