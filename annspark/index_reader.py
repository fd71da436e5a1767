"""Read: a saved index as a table of blocks, which executors read from its files, one task a file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from annspark.core.calibrate import Calibration
from annspark.core.vectors import narrowed
from annspark.errors import InputError, SettingsError, reason_of
from annspark.flow.first_rows import FirstRows
from annspark.flow.read import Users
from annspark.saved.manifest import FIRST, Manifest, QueryCalibration
from annspark.saved.parts import open_part, read_batch
from annspark.settings import Settings, make_settings
from annspark.spark.arrow import Batches, Mapper
from annspark.spark.block import block_fields, block_users
from annspark.spark.types import is_collated
from annspark.spark.wire import Wire
from annspark.tables import HASHES, IDS, LOWEST
from annspark.tuned import Indexed, Kept


def read_index(spark: SparkSession, folder: str, manifest: Manifest) -> Indexed:
    """Return the index that a folder holds; its vectors are read whenever a step needs them.

    manifest : of the folder, as read_manifest returns it

    Raises InputError for an index that is damaged or not whole.
    """
    sizes = manifest.forest.sizes
    return Indexed(
        settings=_settings_of(manifest),
        users=_users_of(spark, manifest, folder),
        forest=manifest.forest,
        residents=tuple(np.split(manifest.leaf_rows.astype(np.float64), np.cumsum(sizes)[:-1])),
        first_rows=_first_of(manifest, folder) if manifest.has_first else None,
        reach=tuple(manifest.reach.tolist()),
        calibration=_calibration_of(manifest.query),
        kept=_kept_of(manifest),
    )


def _kept_of(manifest: Manifest) -> Kept | None:
    join = manifest.join
    if join is None:
        return None
    return Kept(
        probes=join.probes,
        reach=tuple(manifest.join_reach.tolist()),
        calibration=_calibration_of(join.calibrated),
        width=join.width,
        lists=None,
        pairs=join.pairs,
        table=join.table,
    )


def _settings_of(manifest: Manifest) -> Settings:
    try:
        return make_settings(dict(manifest.settings))
    except SettingsError:  # an earlier version had settings that this one does not have
        known = set(Settings.__dataclass_fields__)
        return make_settings({name: value for name, value in manifest.settings.items() if name in known})


def _users_of(spark: SparkSession, manifest: Manifest, folder: str) -> Users:
    kind = T.StructType.fromJson(json.loads(manifest.id_type))["id"].dataType
    wire = Wire(manifest.dim, manifest.sparse, manifest.grouped)
    schema = T.StructType(block_fields(T.StringType() if is_collated(kind) else kind, wire))
    # The parts come in the order of their leaves.  Those of the first tree hold every row once.
    ends = np.cumsum([file.rows for file in manifest.files if file.name in set(manifest.parts)])
    paths = [f"{folder}/{name}" for name in manifest.parts[: int(np.searchsorted(ends, manifest.rows)) + 1]]
    numbered = spark.range(0, len(paths), 1, len(paths))
    return Users(
        role="index",
        table=numbered.mapInArrow(_part_mapper(paths, wire), schema),
        rows=manifest.rows,
        wire=wire,
        lengths=manifest.lengths,
        coordinates=manifest.coordinates,
        largest=manifest.largest,
        rounded=manifest.rounded,
        width=manifest.width,
        id_kind=kind,
        read=manifest.rows,
        id_bytes=manifest.id_bytes,
        dropped={},
        examples={},
        staged=False,
    )


def _part_mapper(paths: list[str], wire: Wire) -> Mapper:
    """Return the function that yields the users of the parts with the given numbers, in blocks."""

    def read(batches: Batches) -> Batches:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                for blocks in _blocks_of(paths[number], wire):
                    yield pa.RecordBatch.from_arrays(blocks, [IDS, HASHES, *wire.names, LOWEST])

    return read


def _blocks_of(path: str, wire: Wire) -> Iterator[list[pa.Array]]:
    with _reading(path):
        part = open_part(path)
        for i in range(part.num_record_batches):
            ids, hashes, vectors = read_batch(part.get_batch(i), wire.dim, sparse=wire.sparse)
            yield block_users(ids, hashes, narrowed(vectors), wire)


def _first_of(manifest: Manifest, folder: str) -> FirstRows:
    with _reading(f"{folder}/{FIRST}"):
        part = open_part(f"{folder}/{FIRST}")
        ids, hashes, vectors = read_batch(part.get_batch(0), manifest.dim, sparse=manifest.sparse)
    return FirstRows(ids=ids, hashes=np.array(hashes), vectors=narrowed(vectors))


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Raise InputError for a file that is gone or damaged since the manifest was written."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"index: its file {path!r} cannot be read ({reason_of(error)}). If the index was replaced, load it again; "
            "else copy the whole folder again, or save the index again."
        ) from error


def _calibration_of(query: QueryCalibration | None) -> Calibration | None:
    if query is None or query.target is None:
        return None
    return Calibration(
        target=query.target,
        probes=query.probes,
        predicted=query.predicted or 0.0,
        low=query.low or 0.0,
        high=query.high or 0.0,
        users=query.users or 0,
        curve=(),
    )
