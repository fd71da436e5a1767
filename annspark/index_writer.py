"""Write: the executors write the vectors of an index, leaf by leaf; the driver writes the forest and the manifest."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from annspark import __version__
from annspark.core.arrays import distinct, members_of
from annspark.core.calibrate import Calibration
from annspark.core.copies import route_homes, route_residents
from annspark.core.plan import Plan, count_slots, plan_parts
from annspark.core.vectors import Slices, slice_rows, take_rows
from annspark.core.visitors import Visitors, gather_visitors
from annspark.errors import SettingsError, reason_of
from annspark.flow.first_rows import FirstRows
from annspark.flow.read import Users
from annspark.flow.route import ship_vectors
from annspark.index_rows import CANNOT, cannot_write, write_lists
from annspark.listed import LIST, current
from annspark.output.folders import check_folder
from annspark.output.outputs import Output, Pending
from annspark.saved.kept import write_visitors
from annspark.saved.manifest import (
    ARRAYS,
    FIRST,
    MANIFEST,
    PART,
    ROWS,
    VISITORS,
    JoinFacts,
    Manifest,
    QueryCalibration,
    SavedFile,
    write_manifest,
)
from annspark.saved.parts import write_part
from annspark.spark import files
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, numbers, to_binary
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import HASHES, HOMES, IDS, N_VISITS, PARTITION_KEY, VISITS
from annspark.tuned import Indexed

_KINDS = (PART, ROWS, VISITORS)  # begin the names of files that tasks write
NUMBER, _FILES, _BYTES, _LEAVES, _LEAF_ROWS, _BATCH_ROWS = "number", "files", "bytes", "leaves", "leaf_rows", "batches"
VISITED = "visited"
WRITTEN = (
    f"{NUMBER} int, {_FILES} string, {_BYTES} string, {_LEAVES} binary, {_LEAF_ROWS} binary, {_BATCH_ROWS} binary, "
    f"{VISITED} binary"
)


def check_index(spark: SparkSession, name: str, overwrite: bool) -> Output:
    """Return the place where an index is to be saved, and clear what dead runs to it have left.

    Raises SettingsError when something there may not be replaced, or when no folder can be published there whole.
    """
    return check_folder(spark, name, overwrite, "index", _require_index_like)


def _require_index_like(name: str, place: str) -> None:
    folder = current(place)
    names = files.own_names(folder)
    if folder != place:  # beside what is published there nothing is to be lost
        names += [name for name in files.own_names(place) if name != LIST]
    other = [
        one for one in names if one not in (MANIFEST, ARRAYS, FIRST) and not one.startswith((*_KINDS, files.PUBLISHED))
    ]
    if names and (other or not {MANIFEST, ARRAYS} <= set(names)):
        raise SettingsError(
            f"index {name!r} holds something else than an index ({(other or names)[0]!r}), and it would be deleted. "
            "Give a folder of its own, or empty this one."
        )


def write_aside(spark: SparkSession, indexed: Indexed, output: Output, cores: int) -> Pending:
    """Write an index beside its place, under a name that readers skip."""
    folder = f"{output.aside}/index"
    files.make_folder(folder)
    write_index(indexed, folder, output.name, cores)
    return Pending(spark, folder, output)


def write_index(indexed: Indexed, folder: str, given: str, cores: int) -> Manifest:
    """Write an index into a folder that exists and is empty, and return its manifest, which is written last."""
    return finish_index(indexed, write_rows_of(indexed, folder, given, cores), folder, given)


def write_rows_of(indexed: Indexed, folder: str, given: str, cores: int) -> Manifest:
    """Write the rows of an index into a folder that exists and is empty, and return the manifest, not yet written.

    Executors write the files of vectors themselves, through PyArrow, so they must reach the folder as the driver does.
    A task that is tried again writes a file of another name; only the files of the tasks that ended are kept.

    given : the folder as messages name it, where the index goes when it is whole

    Raises SettingsError where executors cannot write, or the driver does not see what they have written.
    """
    users, forest, kept = indexed.users, indexed.forest, indexed.kept
    residents = indexed.residents[: len(forest.sizes)]
    plan = plan_parts(forest.sizes, residents, users.rows, users.width, cores)
    with_visits = kept is not None and kept.lists is not None and indexed.settings.candidate_col is None
    route = route_residents
    if kept is not None and with_visits:
        plan, route = replace(plan, probes=kept.probes, reach=kept.reach), route_homes
    shipped = ship_vectors(users.table, forest, plan, users.wire, users.coordinates, route, prepared=False)
    mapper = _write_mapper(folder, plan, users.wire, number_kind_of(users), visits=with_visits)
    with explained(given):
        written = collect(shipped.repartition(plan.n_partitions, PARTITION_KEY).mapInArrow(mapper, WRITTEN))
    manifest = manifest_of(indexed, written.sort_by(NUMBER), plan.n_leaves)
    if kept is not None and kept.lists is not None and kept.users is not None:
        slots = count_slots(kept.users.rows, kept.width, users.id_bytes, cores)
        with explained(given):
            manifest = manifest.with_files(write_lists(kept, manifest, folder, slots))
    return manifest


@contextmanager
def explained(given: str) -> Iterator[None]:
    """Raise SettingsError for a task that could not write a file of an index.

    given : the folder as messages name it
    """
    try:
        yield
    except Exception as error:
        if CANNOT not in str(error):
            raise
        reason = reason_of(error).rpartition(f"{CANNOT}: ")[2]
        raise SettingsError(
            f"index {given!r}: {CANNOT} ({reason}). Give a folder that the driver and all executors may write to, by "
            "PyArrow and under the same name."
        ) from error


def number_kind_of(users: Users) -> str:
    """Return the type in which the numbers of vectors are stored."""
    return "float64" if users.rounded else "float32"


def manifest_of(indexed: Indexed, written: pa.Table, n_leaves: int) -> Manifest:
    """Return the manifest of an index whose parts are written.

    written : what the tasks told, in the order of the parts
    """
    users, kept = indexed.users, indexed.kept
    leaf_rows = np.zeros(n_leaves, np.int64)
    leaf_rows[numbers(written[_LEAVES], np.int64)] = numbers(written[_LEAF_ROWS], np.int64)
    saved = []
    for one in written.to_pylist():
        rows = int(np.frombuffer(one[_LEAF_ROWS], np.int64).sum())
        for name, n_bytes in zip(one[_FILES].split(), one[_BYTES].split(), strict=True):
            saved.append(SavedFile(name=name, rows=rows if name.startswith(PART) else 0, bytes=int(n_bytes)))
    return Manifest(
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=asdict(indexed.settings),
        rows=users.rows,
        dim=users.wire.dim,
        lengths=users.lengths,
        sparse=users.wire.sparse,
        id_type=T.StructType([T.StructField("id", users.id_kind)]).json(),
        numbers=number_kind_of(users),
        largest=users.largest,
        rounded=users.rounded,
        width=users.width,
        id_bytes=users.id_bytes,
        coordinates=users.coordinates,
        forest=indexed.forest,
        reach=np.array(indexed.reach, np.float32),
        query=_calibrated(indexed.calibration, float(indexed.settings.probes or 1)),
        leaf_rows=leaf_rows,
        batch_rows=numbers(written[_BATCH_ROWS], np.int64),
        part_batches=np.array([len(one) // 8 for one in written[_BATCH_ROWS].to_pylist()], np.int64),
        files=tuple(saved),
        join=JoinFacts(kept.probes, kept.width, kept.table, _calibrated(kept.calibration, kept.probes), kept.pairs)
        if kept
        else None,
        join_reach=np.array(kept.reach if kept else (), np.float64),
    )


def finish_index(indexed: Indexed, manifest: Manifest, folder: str, given: str) -> Manifest:
    """Write the first rows and the manifest, after which the folder is an index; return the manifest."""
    if indexed.first_rows is not None:
        manifest = manifest.with_files([_write_first(folder, indexed.first_rows, manifest.numbers)])
    _require_seen(folder, given, list(manifest.files))
    return write_manifest(folder, manifest)


def _write_mapper(folder: str, plan: Plan, wire: Wire, number_kind: str, *, visits: bool) -> Mapper:
    number_of = {int(key): number for number, key in enumerate(partition_keys(plan.n_partitions))}

    def write(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:
            return
        number = number_of[shipped[PARTITION_KEY][0].as_py()]
        leaf = numbers(shipped[HOMES], np.int32)
        ids, hashes = elements(shipped[IDS]), numbers(shipped[HASHES], np.int64)
        order = order_in_part(leaf, ids)
        vectors = partial(slice_rows, take_rows(wire.read(shipped), order))
        rows = PartRows(ids.take(pa.array(order)), hashes[order], vectors, leaf[order])
        visitors = None
        if visits:
            counts = numbers(shipped[N_VISITS], np.int32)
            visited = numbers(shipped[VISITS], np.int32)[members_of(order, counts)]
            visitors = gather_visitors(rows.leaf, counts[order], visited)
        with cannot_write():
            told = write_files(folder, number, rows, visitors, number_kind)
        yield told

    return write


@dataclass(frozen=True)
class PartRows:
    """Rows of a part, in the order of (leaf, id).

    ids     : (n,)
    hashes  : int64 (n,)
    vectors : as in the input
    leaf    : int32 (n,), their home
    """

    ids: pa.Array
    hashes: np.ndarray
    vectors: Slices
    leaf: np.ndarray


def order_in_part(leaf: np.ndarray, ids: pa.Array) -> np.ndarray:
    """Return rows in the order of (leaf, id), in which a part has them: int (n,)."""
    by = [("leaf", "ascending"), ("id", "ascending")]
    order = pc.sort_indices(pa.table({"leaf": leaf, "id": ids}), sort_keys=by)
    return order.to_numpy().astype(np.int64)


def order_with_new(leaf: np.ndarray, ids: pa.Array, new_leaf: np.ndarray, new_ids: pa.Array) -> np.ndarray:
    """Return rows of a part and new ones, numbered after them, in the order of (leaf, id): int (n + n_new,).

    The rows of the part are in that order.  Only those of leaves that a new one joins are sorted again.
    """
    both, n = np.concatenate([leaf, new_leaf]), len(leaf)
    touched = np.isin(leaf, new_leaf)
    again = np.concatenate([np.flatnonzero(touched), n + np.arange(len(new_leaf))])
    mixed = pa.concat_arrays([ids.filter(pa.array(touched)), new_ids])
    again = again[order_in_part(both[again], mixed)]
    order = np.concatenate([np.flatnonzero(~touched), again])
    return order[np.argsort(both[order], kind="stable")]


def write_files(
    folder: str, number: int, rows: PartRows, visitors: Visitors | None, number_kind: str
) -> pa.RecordBatch:
    """Write a part of an index, and who visits which leaf if that is given; return what a task tells of it: WRITTEN.

    number   : of the part
    rows     : of the part
    visitors : of the rows
    """
    mark, visited = files.new_mark(), np.empty(0, np.int32)
    names = [f"{PART}{number:05d}-{mark}.arrow"]
    batch_rows = write_part(f"{folder}/{names[0]}", rows.leaf, rows.ids, rows.hashes, rows.vectors, number_kind)
    if visitors is not None:
        names.append(f"{VISITORS}{number:05d}-{mark}.arrow")
        write_visitors(f"{folder}/{names[1]}", visitors)
        visited = distinct(visitors.visited)
    sizes = [files.size_of(f"{folder}/{name}") for name in names]
    leaves, counts = np.unique(rows.leaf, return_counts=True)
    binary = [to_binary(part.astype(np.int64), np.array([len(part)])) for part in (leaves, counts, batch_rows)]
    binary += [to_binary(visited, np.array([len(visited)]))]
    facts = [pa.array([number], pa.int32()), pa.array([" ".join(names)]), pa.array([" ".join(map(str, sizes))])]
    columns = [NUMBER, _FILES, _BYTES, _LEAVES, _LEAF_ROWS, _BATCH_ROWS, VISITED]
    return pa.RecordBatch.from_arrays([*facts, *binary], columns)


def _write_first(folder: str, first_rows: FirstRows, number_kind: str) -> SavedFile:
    """Write the rows that every query is compared with."""
    n, path, vectors = len(first_rows.ids), f"{folder}/{FIRST}", partial(slice_rows, first_rows.vectors)
    write_part(path, np.zeros(n, np.int64), first_rows.ids, first_rows.hashes, vectors, number_kind)
    return SavedFile(name=FIRST, rows=n, bytes=files.size_of(path))


def _require_seen(folder: str, given: str, saved: list[SavedFile]) -> None:
    """Delete files of tasks that were tried again; raise SettingsError where a file of the others is missing."""
    there, wanted = files.names_in(folder), {file.name for file in saved}
    if missing := sorted(wanted - set(there)):
        raise SettingsError(
            f"index {given!r}: the driver does not see there what executors have written ({missing[0]!r}), so the two "
            "are on different file systems. Give a folder that both have."
        )
    for name in there:
        if name.startswith(_KINDS) and name not in wanted:
            files.remove(f"{folder}/{name}")


def _calibrated(goal: Calibration | None, probes: float) -> QueryCalibration:
    if goal is None:
        return QueryCalibration(target=None, probes=probes)
    return QueryCalibration(
        target=goal.target,
        probes=goal.probes,
        predicted=goal.predicted,
        low=goal.low,
        high=goal.high,
        users=goal.users,
    )
