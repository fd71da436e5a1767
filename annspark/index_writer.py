"""Write: the executors write the vectors of an index, leaf by leaf; the driver writes the forest and the manifest."""

import os
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from annspark import __version__
from annspark.core.copies import route_residents
from annspark.core.plan import Plan, plan_parts
from annspark.core.vectors import take_rows
from annspark.errors import SettingsError, reason_of
from annspark.flow.first_rows import FirstRows
from annspark.flow.route import ship_vectors
from annspark.output import publish
from annspark.saved.manifest import ARRAYS, FIRST, MANIFEST, PART, Manifest, QueryCalibration, SavedFile, write_manifest
from annspark.saved.parts import write_part
from annspark.spark import files
from annspark.spark.arrow import Batches, Mapper, collect, elements, gathered, numbers, to_binary
from annspark.spark.cluster import partition_keys
from annspark.spark.wire import Wire
from annspark.tables import HASHES, HOMES, IDS, PARTITION_KEY
from annspark.tuned import Indexed

_CANNOT = "an executor cannot write there"  # begins the message of a task
_NUMBER, _FILE, _BYTES, _LEAVES, _LEAF_ROWS, _BATCH_ROWS = "number", "file", "bytes", "leaves", "leaf_rows", "batches"


def check_index(spark: SparkSession, name: str, overwrite: bool) -> publish.Output:
    """Return the place where an index is to be saved, and clear what dead runs to it have left.

    Raises SettingsError when something there may not be replaced, or when no folder can be published there whole.
    """
    return publish.check_folder(spark, name, overwrite, "index", _require_index_like)


def _require_index_like(name: str, place: str) -> None:
    names = files.names_in(place)
    other = [
        one for one in names if one not in (MANIFEST, ARRAYS, FIRST) and not one.startswith((PART, files.PUBLISHED))
    ]
    if names and (other or not {MANIFEST, ARRAYS} <= set(names)):
        raise SettingsError(
            f"index {name!r} holds something else than an index ({(other or names)[0]!r}), and it would be deleted. "
            "Give a folder of its own, or empty this one."
        )


def write_aside(spark: SparkSession, indexed: Indexed, output: publish.Output, cores: int) -> publish.Pending:
    """Write an index beside its place, under a name that readers skip."""
    folder = f"{output.aside}/index"
    files.make_folder(folder)
    write_index(indexed, folder, output.name, cores)
    return publish.Pending(spark, folder, output)


def write_index(indexed: Indexed, folder: str, given: str, cores: int) -> Manifest:
    """Write an index into a folder that exists and is empty, and return its manifest, which is written last.

    Executors write the files of vectors themselves, through PyArrow, so they must reach the folder as the driver does.
    A task that is tried again writes a file of another name; only the files of the tasks that ended are kept.

    given : the folder as messages name it, where the index goes when it is whole

    Raises SettingsError where executors cannot write, or the driver does not see what they have written.
    """
    users, forest = indexed.users, indexed.forest
    residents = indexed.residents[: len(forest.sizes)]
    plan = plan_parts(forest.sizes, residents, users.rows, users.width, cores)
    number_kind = "float64" if users.rounded else "float32"
    shipped = ship_vectors(users.table, forest, plan, users.wire, users.coordinates, route_residents, prepared=False)
    mapper = _write_mapper(folder, plan, users.wire, number_kind)
    schema = (
        f"{_NUMBER} int, {_FILE} string, {_BYTES} long, {_LEAVES} binary, {_LEAF_ROWS} binary, {_BATCH_ROWS} binary"
    )
    try:
        written = collect(shipped.repartition(plan.n_partitions, PARTITION_KEY).mapInArrow(mapper, schema))
    except Exception as error:
        if _CANNOT not in str(error):
            raise
        reason = reason_of(error).rpartition(f"{_CANNOT}: ")[2]
        raise SettingsError(
            f"index {given!r}: {_CANNOT} ({reason}). Give a folder that the driver and all executors may write to, by "
            "PyArrow and under the same name."
        ) from error
    written = written.sort_by(_NUMBER)
    leaf_rows = np.zeros(plan.n_leaves, np.int64)
    leaf_rows[numbers(written[_LEAVES], np.int64)] = numbers(written[_LEAF_ROWS], np.int64)
    saved = [
        SavedFile(name=one[_FILE], rows=int(np.frombuffer(one[_LEAF_ROWS], np.int64).sum()), bytes=one[_BYTES])
        for one in written.to_pylist()
    ]
    if indexed.first_rows is not None:
        saved.append(_write_first(folder, indexed.first_rows, number_kind))
    _require_seen(folder, given, saved)
    return write_manifest(
        folder,
        Manifest(
            version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=asdict(indexed.settings),
            rows=users.rows,
            dim=users.wire.dim,
            lengths=users.lengths,
            sparse=users.wire.sparse,
            id_type=T.StructType([T.StructField("id", users.id_kind)]).json(),
            numbers=number_kind,
            largest=users.largest,
            rounded=users.rounded,
            width=users.width,
            id_bytes=users.id_bytes,
            coordinates=users.coordinates,
            forest=forest,
            reach=np.array(indexed.reach, np.float32),
            query=_calibrated(indexed),
            leaf_rows=leaf_rows,
            batch_rows=numbers(written[_BATCH_ROWS], np.int64),
            part_batches=np.array([len(one) // 8 for one in written[_BATCH_ROWS].to_pylist()], np.int64),
            files=tuple(saved),
        ),
    )


def _write_mapper(folder: str, plan: Plan, wire: Wire, number_kind: str) -> Mapper:
    number_of = {int(key): number for number, key in enumerate(partition_keys(plan.n_partitions))}

    def write(batches: Batches) -> Batches:
        shipped = gathered(batches)
        if shipped is None:
            return
        number = number_of[shipped[PARTITION_KEY][0].as_py()]
        ids, leaf = elements(shipped[IDS]), numbers(shipped[HOMES], np.int32)
        order = pc.sort_indices(
            pa.table({"leaf": leaf, "id": ids}), sort_keys=[("leaf", "ascending"), ("id", "ascending")]
        )
        row = order.to_numpy()
        name = f"{PART}{number:05d}-{files.new_mark()}.arrow"
        leaf, hashes = leaf[row], numbers(shipped[HASHES], np.int64)[row]
        try:
            batch_rows = write_part(
                f"{folder}/{name}", leaf, ids.take(order), hashes, take_rows(wire.read(shipped), row), number_kind
            )
            n_bytes = files.size_of(f"{folder}/{name}")
        except OSError as error:
            # Without the path, which is that of a folder the user has not heard of.
            raise OSError(f"{_CANNOT}: {os.strerror(error.errno) if error.errno else error}") from error
        leaves, counts = np.unique(leaf, return_counts=True)
        binary = [to_binary(part.astype(np.int64), np.array([len(part)])) for part in (leaves, counts, batch_rows)]
        facts = [pa.array([number], pa.int32()), pa.array([name]), pa.array([n_bytes], pa.int64())]
        yield pa.RecordBatch.from_arrays([*facts, *binary], [_NUMBER, _FILE, _BYTES, _LEAVES, _LEAF_ROWS, _BATCH_ROWS])

    return write


def _write_first(folder: str, first_rows: FirstRows, number_kind: str) -> SavedFile:
    """Write the rows that every query is compared with."""
    n, path = len(first_rows.ids), f"{folder}/{FIRST}"
    write_part(path, np.zeros(n, np.int64), first_rows.ids, first_rows.hashes, first_rows.vectors, number_kind)
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
        if name.startswith(PART) and name not in wanted:
            files.remove(f"{folder}/{name}")


def _calibrated(indexed: Indexed) -> QueryCalibration:
    goal = indexed.calibration
    if goal is None:
        return QueryCalibration(target=None, probes=float(indexed.settings.probes or 1))
    return QueryCalibration(
        target=goal.target,
        probes=goal.probes,
        predicted=goal.predicted,
        low=goal.low,
        high=goal.high,
        users=goal.users,
    )
