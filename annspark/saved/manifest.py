"""The manifest of a saved index: what its files hold, and the forest that sends vectors to its leaves.

index.json holds what a person may want to read, forest.npz the arrays.  index.json is written last, so that a folder
without it is no index.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from annspark.allowed import require_no_credentials
from annspark.core.centre_forest import CentreForest
from annspark.core.column_forest import ColumnForest
from annspark.core.coordinates import Coordinates
from annspark.core.forest import Forest
from annspark.core.grouped_forest import GroupedForest
from annspark.core.metric import METRICS
from annspark.core.routing_space import PLAIN, RoutingSpace
from annspark.errors import InputError, reason_of
from annspark.filesystem import open_place
from annspark.listed import current

FORMAT = 2  # a change of the files that this code cannot read makes it one more
MANIFEST, ARRAYS, FIRST, PART = "index.json", "forest.npz", "first.arrow", "part-"
ROWS, VISITORS = "rows-", "visitors-"
_SAVE_AGAIN = "Save the index again"


@dataclass(frozen=True)
class SavedFile:
    """A file of the index, other than the manifest: its name, the rows it holds and its size."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class QueryCalibration:
    """How many leaves a vector that only asks goes to, and the recall that is expected of it.

    target          : the recall asked for; None where probes were given
    probes          : mean number of leaves of a tree that a vector goes to
    predicted       : recall that calibration measured; None where it measured none
    low, high       : interval of that recall
    users           : number of vectors it was measured with
    """

    target: float | None
    probes: float
    predicted: float | None = None
    low: float | None = None
    high: float | None = None
    users: int | None = None


@dataclass(frozen=True)
class JoinFacts:
    """How the rows of an index were joined, see Kept.

    probes     : mean number of leaves of a tree that a row went to, its home included
    width      : neighbors that a list has room for
    table      : fingerprint of the table that was published with the index; "" for none
    calibrated : the recall that was expected of the join
    pairs      : number of excluded pairs; None where none were given
    """

    probes: float
    width: int
    table: str
    calibrated: QueryCalibration
    pairs: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What is known of a saved index without opening its parts.

    version      : of the annspark that saved it
    created      : time, ISO 8601, UTC
    settings     : all settings it was saved with, by name
    rows         : number of vectors
    dim          : numbers of a vector; of sparse rows one more than the largest column
    lengths      : how many numbers of a dense vector are from each vector column; () for sparse rows
    sparse       : whether vectors are sparse rows
    id_type      : Spark's JSON of a struct with a single field, of the type of ids
    numbers      : "float32" or "float64", the type of stored numbers
    largest      : the largest absolute value of a number
    rounded      : whether float32 cannot hold all numbers exactly
    width        : mean size of a vector in the join, in units of 4 bytes
    id_bytes     : mean size of an id
    coordinates  : how numbers become vectors
    forest       : the trees
    reach        : float32 (trees,), the margin up to which a vector that asks visits leaves
    query        : how that was calibrated; None where it was not
    leaf_rows    : int64 (n_leaves,), rows of each leaf, tree after tree
    batch_rows   : int64 (n_batches,), rows of each batch, part after part
    part_batches : int64 (n_parts,), batches of each part
    files        : every file but the manifest
    join         : how the rows were joined; None where they were not
    join_reach   : float64 (trees that were joined,), the margin up to which rows visit leaves
    """

    version: str
    created: str
    settings: Mapping[str, Any]
    rows: int
    dim: int
    lengths: tuple[int, ...]
    sparse: bool
    id_type: str
    numbers: str
    largest: float
    rounded: bool
    width: float
    id_bytes: float
    coordinates: Coordinates
    forest: Forest
    reach: np.ndarray
    query: QueryCalibration | None
    leaf_rows: np.ndarray
    batch_rows: np.ndarray
    part_batches: np.ndarray
    files: tuple[SavedFile, ...]
    join: JoinFacts | None = None
    join_reach: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def metric(self) -> str:
        """The metric, a key of METRICS."""
        return self.coordinates.metric

    @property
    def grouped(self) -> bool:
        """Whether neighbors are looked for within groups."""
        return bool(self.settings.get("within"))

    @property
    def weights(self) -> dict[str, float]:
        """The columns that vectors are put together of, in their order, with their weights; {} for a single one."""
        return dict(sorted((self.settings.get("vector_cols") or {}).items()))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of their leaves."""
        return self._named(PART)

    @property
    def visitors(self) -> tuple[str, ...]:
        """Names of the files that tell who visits which leaf, one for each part of the trees that were joined.

        There are none where rows only ask, as with candidate_col.
        """
        return self._named(VISITORS)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the files of rows and their neighbors, by slot of the hashes of their ids."""
        return self._named(ROWS)

    def with_files(self, more: Iterable[SavedFile]) -> "Manifest":
        """Return the manifest with further files."""
        return replace(self, files=(*self.files, *more))

    def _named(self, begin: str) -> tuple[str, ...]:
        return tuple(sorted(file.name for file in self.files if file.name.startswith(begin)))

    @cached_property
    def part_of_leaf(self) -> np.ndarray:
        """The part that each leaf is in, whether it has rows or not: int32 (n_leaves,); -1 in a tree without rows."""
        rows = {file.name: file.rows for file in self.files}
        starts = np.cumsum([0] + [rows[name] for name in self.parts])[:-1]
        first_row = np.cumsum(self.leaf_rows) - self.leaf_rows
        # Empty leaves go with those before them, but for the first leaves of a tree.
        part = np.searchsorted(starts, first_row, side="right") - 1
        first_leaf = np.cumsum([0, *self.forest.sizes])
        for start, end in pairwise(first_leaf.tolist()):
            filled = np.flatnonzero(self.leaf_rows[start:end])
            if len(filled):
                part[start : start + filled[0]] = part[start + filled[0]]
                last = start + filled[-1]
                part[last + 1 : end] = part[last]
            else:
                part[start:end] = -1
        return part.astype(np.int32)

    @property
    def has_first(self) -> bool:
        """Whether there are rows that every vector is compared with."""
        return any(file.name == FIRST for file in self.files)


_KIND_OF_FOREST: dict[type, str] = {CentreForest: "centres", ColumnForest: "columns", GroupedForest: "groups"}
# Keys of index.json that are fields of Manifest as they are.
_PLAIN = (
    "version",
    "created",
    "settings",
    "rows",
    "dim",
    "sparse",
    "id_type",
    "numbers",
    "largest",
    "rounded",
    "width",
    "id_bytes",
)
_KINDS: dict[str, tuple[type, ...]] = {
    "version": (str,),
    "created": (str,),
    "settings": (dict,),
    "rows": (int,),
    "dim": (int,),
    "sparse": (bool,),
    "id_type": (str,),
    "numbers": (str,),
    "largest": (int, float),
    "rounded": (bool,),
    "width": (int, float),
    "id_bytes": (int, float),
    "coordinates": (dict,),
    "forest": (str,),
    "query": (dict, type(None)),
    "files": (list,),
}


def write_manifest(folder: str, manifest: Manifest) -> Manifest:
    """Write forest.npz and then index.json, and return the manifest with forest.npz among its files.

    manifest : its files are the parts, and first.arrow where there is one
    """
    data = io.BytesIO()
    np.savez(data, **_arrays_of(manifest))
    arrays = SavedFile(name=ARRAYS, rows=0, bytes=len(data.getvalue()))
    others = tuple(file for file in manifest.files if file.name != ARRAYS)
    manifest = replace(manifest, files=(*others, arrays))
    _write(f"{folder}/{ARRAYS}", data.getvalue())
    text = json.dumps(_facts_of(manifest), indent=1, sort_keys=True)
    _write(f"{folder}/{MANIFEST}", text.encode())
    return manifest


def _facts_of(manifest: Manifest) -> dict[str, Any]:
    """Return what index.json holds."""
    coordinates = manifest.coordinates
    return {
        "format": FORMAT,
        **{name: getattr(manifest, name) for name in _PLAIN},
        "settings": dict(manifest.settings),
        "lengths": list(manifest.lengths),
        "coordinates": {
            "exponent": coordinates.exponent,
            "double": coordinates.double,
        },
        "forest": _KIND_OF_FOREST[type(manifest.forest)],
        "query": asdict(manifest.query) if manifest.query else None,
        "join": asdict(manifest.join) if manifest.join else None,
        "files": [asdict(file) for file in manifest.files],
    }


def _arrays_of(manifest: Manifest) -> dict[str, Any]:
    """Return what forest.npz holds."""
    arrays: dict[str, Any] = {
        "leaf_rows": np.asarray(manifest.leaf_rows, np.int64),
        "reach": np.asarray(manifest.reach, np.float32),
        "batch_rows": np.asarray(manifest.batch_rows, np.int64),
        "part_batches": np.asarray(manifest.part_batches, np.int64),
        "join_reach": np.asarray(manifest.join_reach, np.float64),
    }
    if manifest.coordinates.origin is not None:
        arrays["coordinates_origin"] = manifest.coordinates.origin
    return arrays | _arrays_of_forest(manifest.forest)


def _arrays_of_forest(forest: Forest) -> dict[str, Any]:
    if isinstance(forest, GroupedForest):
        arrays = {"group_names": forest.names, "group_leaves": np.array(forest.n_shared, np.int64)}
        for number, of_group in enumerate(forest.forests):
            arrays |= {f"{number}_{name}": array for name, array in _arrays_of_forest(of_group).items()}
        return arrays
    if isinstance(forest, CentreForest):
        radius = np.nan if forest.space.radius is None else forest.space.radius
        return {
            "origin": forest.origin,
            "centres": np.concatenate(forest.trees),
            "tree_leaves": np.array(forest.sizes, np.int64),
            "radius": np.array(radius, np.float64),
        }
    if isinstance(forest, ColumnForest):
        return {
            "columns": forest.columns,
            "importance": forest.importance,
            "unknown": np.array(forest.unknown, np.float64),
            "n_shared": np.array(forest.n_shared, np.int64),
            "homes": np.array(forest.homes, np.int64),
            "longest": np.array(forest.longest, np.float64),
        }
    raise TypeError(f"no arrays are known of a {type(forest).__name__}")


def find_index(place: str) -> str:
    """Return the folder that has the files of the index at a place: on an object store it is one below the place.

    Raises InputError where PyArrow cannot reach it, and SettingsError for a path with a password in it.
    """
    require_no_credentials("index", place)
    with _reached(f"index {place!r}"):
        return current(place)


@contextmanager
def _reached(role: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{role}: PyArrow cannot reach it ({reason_of(error)}). Give a folder on a mounted file system, or one "
            "PyArrow knows: file, hdfs, s3, gs or abfss."
        ) from error


def read_manifest(folder: str) -> Manifest:
    """Read the manifest of an index; no vector is read.

    Raises InputError where there is no index, or one that is newer than this code, damaged or not whole.
    """
    role = f"index {folder!r}"
    with _reached(role):
        system, inside = open_place(folder)
        found = system.get_file_info(inside)
    if found.type != fs.FileType.Directory:
        kind = "there is no such folder" if found.type == fs.FileType.NotFound else "this is a file and no folder"
        raise InputError(f"{role}: {kind}. Give the folder of an index that annspark saved.")
    facts = _read_facts(role, system, inside)
    _require_files(role, facts, system, inside)
    try:
        with np.load(io.BytesIO(_read(system, f"{inside}/{ARRAYS}")), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        manifest = _manifest_of(facts, arrays)
        _require_sound(manifest)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{role}: {ARRAYS} is damaged ({_in_words(error)}), and without it no leaf is found. {_SAVE_AGAIN}, or "
            "copy the whole folder again."
        ) from error
    return manifest


def _read_facts(role: str, system: fs.FileSystem, inside: str) -> dict[str, Any]:
    """Return what index.json holds, having checked that it is an index's and of a format that is known."""
    if system.get_file_info(f"{inside}/{MANIFEST}").type != fs.FileType.File:
        raise InputError(
            f"{role}: there is no {MANIFEST} in it, so it is no index that annspark saved, or its saving did not end. "
            "Give the folder of an index, or save it again."
        )
    try:
        facts = json.loads(_read(system, f"{inside}/{MANIFEST}"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{role}: {MANIFEST} is damaged ({_in_words(error)}). {_SAVE_AGAIN}, or copy the whole folder again."
        ) from error
    number = facts.get("format") if isinstance(facts, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(
            f"{role}: its {MANIFEST} is not one of annspark, which has a number as 'format'. Give the folder of an "
            "index that annspark saved."
        )
    if number > FORMAT:
        raise InputError(
            f"{role}: made by annspark {facts.get('version', 'of a later version')} with format {number}; this "
            f"annspark reads {FORMAT}. Upgrade annspark, or save the index again with this one."
        )
    missing = sorted(_KINDS.keys() - facts.keys())
    wrong = sorted(name for name, kinds in _KINDS.items() if name in facts and not isinstance(facts[name], kinds))
    if missing and len(missing) > len(_KINDS) // 2:
        raise InputError(
            f"{role}: its {MANIFEST} is not one of annspark, which has {', '.join(sorted(_KINDS))}. Give the folder of "
            "an index that annspark saved."
        )
    if missing or wrong:
        what = f"lacks {', '.join(missing)}" if missing else f"has another type than annspark wrote in {wrong[0]!r}"
        raise InputError(f"{role}: {MANIFEST} is damaged: it {what}. {_SAVE_AGAIN}, or copy the whole folder again.")
    return dict(facts)


def _require_files(role: str, facts: Mapping[str, Any], system: fs.FileSystem, inside: str) -> None:
    """Raise InputError where a file is missing or of another size than it was saved with."""
    listed = {info.base_name: info for info in system.get_file_info(fs.FileSelector(inside))}
    for file in facts["files"]:
        try:
            name, size = str(file["name"]), int(file["bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{role}: {MANIFEST} is damaged: a file is listed as {file!r}. {_SAVE_AGAIN}, or copy the whole folder "
                "again."
            ) from error
        found = listed.get(name)
        if found is None or found.type != fs.FileType.File:
            raise InputError(
                f"{role}: its file {name!r} of {size:,} bytes is missing. Copy the whole folder again, or save the "
                "index again."
            )
        if found.size != size:
            raise InputError(
                f"{role}: its file {name!r} has {found.size:,} bytes and was saved with {size:,}. Copy the whole "
                "folder again, or save the index again."
            )
    if ARRAYS not in {file["name"] for file in facts["files"]}:
        raise InputError(f"{role}: {MANIFEST} is damaged: it lists no {ARRAYS}. {_SAVE_AGAIN}.")


def _manifest_of(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Manifest:
    given, metric = facts["coordinates"], facts["settings"]["metric"]
    if metric not in METRICS:
        raise ValueError(f"{metric!r} is no metric")
    coordinates = Coordinates(
        metric, arrays.get("coordinates_origin"), exponent=int(given["exponent"]), double=bool(given["double"])
    )
    query, join = facts["query"], facts.get("join")
    return Manifest(
        **{name: facts[name] for name in _PLAIN},
        # The first indexes do not have them.
        lengths=tuple(int(length) for length in facts.get("lengths", [] if facts["sparse"] else [facts["dim"]])),
        coordinates=coordinates,
        forest=_groups_of(arrays, sparse=facts["sparse"])
        if facts["forest"] == "groups"
        else _forest_of(arrays, sparse=facts["forest"] == "columns"),
        reach=arrays["reach"].astype(np.float32),
        query=None if query is None else _calibration_of(query),
        leaf_rows=arrays["leaf_rows"].astype(np.int64),
        batch_rows=arrays["batch_rows"].astype(np.int64),
        part_batches=arrays["part_batches"].astype(np.int64),
        files=tuple(
            SavedFile(**{field.name: file[field.name] for field in fields(SavedFile)}) for file in facts["files"]
        ),
        join=None if join is None else JoinFacts(**join | {"calibrated": _calibration_of(join["calibrated"])}),
        join_reach=arrays.get("join_reach", np.empty(0)),
    )


def _calibration_of(facts: Mapping[str, Any]) -> QueryCalibration:
    known = {field.name for field in fields(QueryCalibration)}
    return QueryCalibration(**{name: value for name, value in facts.items() if name in known})


def _groups_of(arrays: Mapping[str, np.ndarray], *, sparse: bool) -> GroupedForest:
    by_group: list[dict[str, np.ndarray]] = [{} for _ in arrays["group_names"]]
    for name, array in arrays.items():
        number, _, inner = name.partition("_")
        if number.isdecimal():
            by_group[int(number)][inner] = array
    forests = tuple(_forest_of(of_group, sparse=sparse) for of_group in by_group)
    return GroupedForest(arrays["group_names"].astype(np.int64), forests, int(arrays["group_leaves"]))


def _forest_of(arrays: Mapping[str, np.ndarray], *, sparse: bool) -> CentreForest | ColumnForest:
    return _columns_of(arrays) if sparse else _centres_of(arrays)


def _centres_of(arrays: Mapping[str, np.ndarray]) -> CentreForest:
    cuts = np.cumsum(arrays["tree_leaves"])
    if len(cuts) == 0 or (arrays["tree_leaves"] < 1).any() or cuts[-1] != len(arrays["centres"]):
        raise ValueError("its trees do not have as many leaves as there are centres")
    radius = float(arrays["radius"])
    return CentreForest(
        origin=arrays["origin"].astype(np.float32),
        trees=tuple(np.split(arrays["centres"].astype(np.float32), cuts[:-1])),
        space=PLAIN if np.isnan(radius) else RoutingSpace(radius),
    )


def _columns_of(arrays: Mapping[str, np.ndarray]) -> ColumnForest:
    if len(arrays["columns"]) != len(arrays["importance"]):
        raise ValueError("its columns are not as many as their importances")
    return ColumnForest(
        columns=arrays["columns"].astype(np.int32),
        importance=arrays["importance"].astype(np.float32),
        unknown=float(arrays["unknown"]),
        n_shared=int(arrays["n_shared"]),
        homes=tuple(int(home) for home in arrays["homes"]),
        longest=float(arrays["longest"]),
    )


def _require_sound(manifest: Manifest) -> None:
    """Raise ValueError where arrays do not fit each other or the facts."""
    sizes, stored = manifest.forest.sizes, int(manifest.leaf_rows.sum())
    first_tree = int(manifest.leaf_rows[: sizes[0]].sum())
    origin, forest = manifest.coordinates.origin, manifest.forest
    forests = forest.forests if isinstance(forest, GroupedForest) else (forest,)
    checks = {
        "the leaves with rows are not those of its trees": manifest.leaf_rows.shape == (sum(sizes),),
        "there is not a reach for each tree": manifest.reach.shape == (len(sizes),),
        "its batches do not hold the rows of its leaves": manifest.batch_rows.sum() == stored,
        "its parts do not have the batches": manifest.part_batches.sum() == len(manifest.batch_rows),
        "the batches are not those of the parts": len(manifest.part_batches) == len(manifest.parts),
        "its first tree does not hold all rows": first_tree == manifest.rows,
        "its vectors are not as long as their columns' together": manifest.sparse
        or sum(manifest.lengths) == manifest.dim,
        "its origin is of another length than the vectors": origin is None or origin.shape == (manifest.dim,),
        "its numbers are of no known type": manifest.numbers in ("float32", "float64"),
        "its vectors are sparse and its forest is not, or the other way round": all(
            manifest.sparse == isinstance(one, ColumnForest) for one in forests
        ),
        "its centres are of another length than the vectors": all(
            isinstance(one, ColumnForest) or _fits(one, manifest.dim) for one in forests
        ),
        "it has groups and its forest has none, or the other way round": manifest.grouped
        == isinstance(forest, GroupedForest),
        "more trees were joined than it has": len(manifest.join_reach) <= len(sizes),
    }
    for wrong, fine in checks.items():
        if not fine:
            raise ValueError(wrong)


def _fits(forest: Any, dim: int) -> bool:
    wanted = dim + (forest.space.radius is not None)
    return bool(forest.origin.shape == (wanted,) and all(tree.shape[1:] == (wanted,) for tree in forest.trees))


def manifest_as_text(manifest: Manifest) -> str:
    """Return some lines for a person: what the index holds and what recall is expected of it."""
    sizes = manifest.forest.sizes
    kind = "sparse" if manifest.sparse else "dense"
    trees = f"{len(sizes):,} tree{'s' if len(sizes) > 1 else ''}"
    lines = {
        "rows": f"{manifest.rows:,}",
        "vectors": f"{manifest.dim:,} {'columns' if manifest.sparse else 'numbers'}, {kind}, {manifest.numbers}",
        **({"columns": _weights_in_words(manifest)} if manifest.weights else {}),
        **({"groups": f"by {manifest.settings['within']}"} if manifest.grouped else {}),
        "metric": manifest.metric,
        "ids": _plain_type(manifest.id_type),
        "forest": f"{trees} with {sum(sizes):,} leaves, of which {np.count_nonzero(manifest.leaf_rows):,} hold rows",
        "queries": _calibration_in_words(manifest.query),
        "size": f"{sum(file.bytes for file in manifest.files):,} bytes in {len(manifest.files):,} files",
        "saved": f"{manifest.created} by annspark {manifest.version}, format {FORMAT}",
    }
    return "\n".join(f"{name + ':':<9} {value}" for name, value in lines.items())


def _weights_in_words(manifest: Manifest) -> str:
    lengths = [""] * len(manifest.weights) if manifest.sparse else [f" ({n:,} numbers)" for n in manifest.lengths]
    each = zip(manifest.weights.items(), lengths, strict=True)
    return ", ".join(f"{name} {weight:g}{length}" for (name, weight), length in each)


def _calibration_in_words(query: QueryCalibration | None) -> str:
    if query is None:
        return "not calibrated"
    visited = f"{query.probes:,.4g} leaves of a tree on average"
    if query.target is None:
        return f"{visited}, as asked for"
    measured = ""
    if query.predicted is not None:
        interval = f" ({query.low:.3f} to {query.high:.3f})" if query.low is not None and query.high is not None else ""
        asked = f" of {query.users:,} vectors" if query.users else ""
        measured = f", {query.predicted:.3f}{interval}{asked} measured"
    return f"recall {query.target:g} asked for{measured}; {visited}"


def _plain_type(id_type: str) -> str:
    """Return the name of the type of ids; text that is not as Spark writes it is returned as it is."""
    try:
        named = json.loads(id_type)["fields"][0]["type"]
    except (ValueError, TypeError, LookupError):
        return id_type
    return named if isinstance(named, str) else id_type


def _in_words(error: BaseException) -> str:
    return f"there is no array {error}" if isinstance(error, KeyError) else reason_of(error)


def _read(system: fs.FileSystem, inside: str) -> bytes:
    with system.open_input_stream(inside) as stream:
        return bytes(stream.read())


def _write(path: str, data: bytes) -> None:
    system, inside = open_place(path)
    with system.open_output_stream(inside) as stream:
        stream.write(data)
