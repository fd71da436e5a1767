"""Exact: the exact neighbors of sampled users, found in one pass over all vectors."""

import numpy as np
import pyarrow as pa
from pyspark.sql import types as T

from annspark.core.arrays import distinct
from annspark.core.coordinates import Coordinates
from annspark.core.exact import search_exactly
from annspark.core.excluded import Excluded, concatenate
from annspark.core.nearest_lists import Nearest, empty_lists
from annspark.core.vectors import Vectors, concatenate_rows, len_of, take_rows
from annspark.flow.read import Users
from annspark.flow.sample import Sample
from annspark.spark.arrow import Batches, Mapper, collect, numbers, to_binary
from annspark.spark.block import blocks_holding, excluded_fields, read_excluded, write_excluded
from annspark.spark.steps import Steps
from annspark.spark.wire import Wire
from annspark.tables import DISTANCES, HASHES

_STEP = "exact"


def find_exact(users: Users, samples: list[Sample], k: int, *, own: bool = True) -> list[Nearest]:
    """Return the exact k nearest of every user of each sample; fewer only where there are fewer other users.

    Distances are float64 and are computed from the numbers of the input.

    A sampled user is itself a row of the table.  Its hash tells which row that is, and that row is left out.  With more
    than k equal vectors the row may not be among the k + 1 nearest; then one of these, at distance 0, is left out.

    own : leave out the row with the hash of the sampled user; not where samples are of another table
    """
    coordinates = users.coordinates
    queries = coordinates.for_exact_search(concatenate_rows([sample.own for sample in samples]))
    n_queries = len_of(queries)
    named = [sample.excluded for sample in samples if sample.excluded]
    excluded = concatenate(named) if named else None
    hashes_asked, m = np.concatenate([sample.hashes for sample in samples]), k + 1
    schema = T.StructType([T.StructField(name, T.BinaryType()) for name in (DISTANCES, HASHES)])
    blocks = users.table.select(HASHES, *users.wire.names)
    parts = collect(blocks.mapInArrow(_nearest_mapper(queries, m, coordinates, users.wire, excluded), schema))

    def side_by_side(name: str, dtype: type[np.generic]) -> np.ndarray:
        by_part = numbers(parts[name], dtype).reshape(len(parts), n_queries, m)
        return np.moveaxis(by_part, 0, 1).reshape(n_queries, len(parts) * m)

    distances, hashes = side_by_side(DISTANCES, np.float64), side_by_side(HASHES, np.int64)
    if own:
        distances = np.where(hashes == hashes_asked[:, None], np.inf, distances)
    distances = coordinates.in_input_units(distances)
    first = np.lexsort((hashes, distances), axis=1)[:, :k]
    cut = np.cumsum([len(sample.ids) for sample in samples])[:-1]
    nearest = (np.split(np.take_along_axis(values, first, axis=1), cut) for values in (distances, hashes))
    return [Nearest(*columns) for columns in zip(*nearest, strict=True)]


def find_exact_once(steps: Steps, users: Users, samples: list[Sample], k: int, *, own: bool = True) -> list[Nearest]:
    """Return what an earlier run has kept of find_exact, or call it and keep what it returns for the next run."""
    if kept := steps.load(_STEP):
        return [
            Nearest(kept.arrays[f"{DISTANCES}{number}"], kept.arrays[f"{HASHES}{number}"])
            for number in range(len(samples))
        ]
    found = find_exact(users, samples, k, own=own)
    arrays = {f"{DISTANCES}{number}": nearest.distances for number, nearest in enumerate(found)}
    steps.save(_STEP, arrays=arrays | {f"{HASHES}{number}": nearest.hashes for number, nearest in enumerate(found)})
    return found


def _nearest_mapper(
    queries: Vectors, m: int, coordinates: Coordinates, wire: Wire, excluded: Excluded | None
) -> Mapper:
    """Return the function that yields the m nearest vectors of a partition for every query, as one row of bytes."""

    def search(batches: Batches) -> Batches:
        best = empty_lists(len_of(queries), m)
        for batch in batches:
            vectors, hashes = coordinates.for_exact_search(wire.read(batch)), numbers(batch.column(0), np.int64)
            pairs = excluded.among(hashes) if excluded else None
            best = search_exactly(queries, vectors, hashes, best, coordinates.metric, pairs)
        if np.isfinite(best.distances).any():
            columns = [to_binary(values, np.array([values.size])) for values in (best.distances, best.hashes)]
            yield pa.RecordBatch.from_arrays(columns, [DISTANCES, HASHES])

    return search


def vectors_of(users: Users, wanted: np.ndarray) -> tuple[np.ndarray, Vectors]:
    """Return the users whose hashes are in wanted: int64 (n,) hashes, ascending, and their vectors as in the input."""
    return find_rows(users, wanted)[:2]


def find_rows(users: Users, wanted: np.ndarray) -> tuple[np.ndarray, Vectors, Excluded | None]:
    """Return vectors_of, and what these users exclude, None where no pairs are excluded."""
    wire, more = users.wire, excluded_fields(users.table)
    wanted = distinct(wanted)
    blocks = blocks_holding(users.table, wanted, users.rows) if users.staged else users.table
    blocks = blocks.select(HASHES, *wire.names, *(field.name for field in more))
    schema = T.StructType([T.StructField(HASHES, T.BinaryType()), *wire.fields, *more])
    found = collect(blocks.mapInArrow(_wanted_rows_mapper(wanted, wire), schema))
    hashes, excluded = numbers(found[HASHES], np.int64), read_excluded(found)
    order = np.argsort(hashes, kind="stable")
    return hashes[order], take_rows(wire.read(found), order), excluded.take(order) if excluded else None


def _wanted_rows_mapper(wanted: np.ndarray, wire: Wire) -> Mapper:
    def pick(batches: Batches) -> Batches:
        for batch in batches:
            hashes = numbers(batch.column(0), np.int64)
            place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            rows = np.flatnonzero(wanted[place] == hashes) if len(wanted) else np.empty(0, np.int64)
            once = np.array([len(rows)])
            columns = [to_binary(hashes[rows], once), *wire.write(take_rows(wire.read(batch), rows), once)]
            excluded = read_excluded(batch)
            columns += write_excluded(excluded.take(rows), once) if excluded else []
            yield pa.RecordBatch.from_arrays(columns, batch.schema.names)

    return pick
