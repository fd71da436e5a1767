"""Ask: in every leaf of a partition, compare the queries that go there with the vectors that are at home in it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from annspark.core.coordinates import Coordinates
from annspark.core.copies import route_queries, route_residents
from annspark.core.forest import Forest
from annspark.core.join import Joined, join_queries
from annspark.core.plan import Plan
from annspark.core.routes import Visits
from annspark.core.sampling import slot_of
from annspark.core.vectors import take_rows
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.spark.arrow import OUT_ROWS, Batches, Mapper, elements, gathered, numbers
from annspark.spark.block import block_lists, candidate_schema, id_type
from annspark.spark.cluster import partition_keys
from annspark.spark.meter import Meter, watch_shipped
from annspark.spark.wire import Wire
from annspark.tables import (
    COUNTS,
    DISTANCES,
    HASHES,
    HOMES,
    IDS,
    MAX_ROWS,
    N_VISITS,
    NEIGHBOR_IDS,
    PAIRS,
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
    same_ids: bool,
) -> DataFrame:
    """Return, for every partition, the k nearest residents that it found for each query shipped to it.

    shipped            : as ship_both returns it
    n_merge_partitions : number of partitions of the merge
    same_ids           : leave out the resident with the id of the query
    returns            : as join_partitions, with a list for every query of the partition
    """
    user, neighbor = id_type(shipped, QUERY_IDS), id_type(shipped, IDS)
    schema = T.StructType(candidate_schema(user, neighbor).fields)
    schema = schema.add(PAIRS, T.LongType()).add(MAX_ROWS, T.LongType())
    keys = partition_keys(n_merge_partitions)
    by_partition = shipped.repartition(plan.n_partitions, PARTITION_KEY)
    return by_partition.mapInArrow(_ask_mapper(keys, wire, coordinates, k, same_ids), schema)


def _ask_mapper(keys: np.ndarray, wire: Wire, coordinates: Coordinates, k: int, same_ids: bool) -> Mapper:
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
        residents = take_rows(wire.read(at_home), by_id)
        del at_home
        hashes, queries = numbers(asking[HASHES], np.int64), wire.read(asking)
        visiting = np.repeat(np.arange(len(query_ids)), numbers(asking[N_VISITS], np.int32))
        visits = Visits(visiting, numbers(asking[VISITS], np.int32))
        # One more than asked for, because the resident of the query's own id is left out.
        joined = join_queries(residents, home, queries, visits, k + same_ids, coordinates.metric)
        if same_ids:
            own = pc.fill_null(pc.index_in(query_ids, ids), -1).to_numpy()
            joined = _without(joined, own, k)
        distances = coordinates.in_input_units(joined.distances)
        slot = slot_of(hashes, len(keys))
        listed = np.argsort(slot, kind="stable")
        for start in range(0, len(listed), OUT_ROWS):
            rows = listed[start : start + OUT_ROWS]
            lists = block_lists(slot[rows], keys, query_ids, rows, joined.neighbors[rows], distances[rows], ids)
            is_first = np.zeros(len(lists[0]), np.int64)
            is_first[0] = start == 0
            columns = [*lists, pa.array(is_first * joined.pairs), pa.array(is_first * joined.max_rows)]
            names = [PARTITION_KEY, IDS, NEIGHBOR_IDS, DISTANCES, COUNTS, PAIRS, MAX_ROWS]
            yield pa.RecordBatch.from_arrays(columns, names)

    return ask


def _without(joined: Joined, own: np.ndarray, k: int) -> Joined:
    """Return lists of k neighbors without the resident given for each query.

    joined : with lists of k + 1
    own    : int (n,), a resident, -1 for none
    """
    itself = (joined.neighbors == own[:, None]) & (own >= 0)[:, None]
    # The neighbor that is left out goes to the end of the list, and the others keep their order.
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    neighbors, distances = (np.take_along_axis(part, order, axis=1) for part in (joined.neighbors, joined.distances))
    return Joined(neighbors=neighbors, distances=distances, pairs=joined.pairs, max_rows=joined.max_rows)
