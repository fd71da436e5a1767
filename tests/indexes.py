"""Saved indexes made from arrays, without Spark: a forest is grown, homes are found, and the parts are written."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from annspark.core.centre_forest import grow_forest
from annspark.core.column_forest import grow_columns
from annspark.core.coordinates import Coordinates, choose_coordinates
from annspark.core.first_rows import count_first_rows, ordering_lengths
from annspark.core.grouped_forest import grow_grouped
from annspark.core.routes import reach_for
from annspark.core.spark_hash import spark_hash
from annspark.core.vectors import Grouped, fits_float32, groups_of, in_kind, is_sparse, len_of, slice_rows, take_rows
from annspark.saved.manifest import Manifest, QueryCalibration, SavedFile, write_manifest
from annspark.saved.parts import write_part


def save_index(
    folder: Path | str,
    vectors: Any,
    ids: Sequence[Any] | pa.Array | None = None,
    *,
    metric: str = "cosine",
    leaves: int = 8,
    trees: int = 1,
    probes: float = 4.0,
    parts: int = 2,
    k: int = 10,
    coordinates: Coordinates | None = None,
    sample: int = 50_000,
    groups: Sequence[str | None] | None = None,
) -> Manifest:
    """Write an index and return its manifest.

    vectors : float32 or float64 (n, dim), or sparse rows, as an input has them
    ids     : 0, 1, ... where none are given
    groups  : the group of each vector, in a column "language"; those of 200 vectors or more have trees
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    n = len_of(vectors)
    id_array = ids if isinstance(ids, pa.Array) else pa.array(range(n) if ids is None else ids)
    id_order = np.empty(n, np.int64)
    id_order[np.asarray(sorted(range(n), key=id_array.to_pylist().__getitem__) if ids is not None else range(n))] = (
        np.arange(n)
    )
    largest = float(np.abs(vectors.data if is_sparse(vectors) else vectors).max(initial=0))
    narrow = fits_float32(vectors)
    vectors = in_kind(vectors, np.float32) if narrow else vectors
    if coordinates is None:
        coordinates = choose_coordinates(vectors, metric, largest, rounded=not narrow)
    if groups is not None:
        vectors = Grouped(vectors, np.array([spark_hash((text is None, text)) for text in groups]))
    prepared = coordinates.for_routing(vectors)
    drawn = take_rows(prepared, np.random.default_rng(0).permutation(n)[:sample])

    def grow(some: Any, rows: int) -> Any:
        if is_sparse(some):
            return grow_columns(some, rows, leaves, homes=tuple(range(trees)), metric=metric)
        return grow_forest(some, leaves, trees=trees, split="two_means", seed=0, metric=metric)

    if isinstance(vectors, Grouped):
        sizes = dict(zip(*(part.tolist() for part in np.unique(vectors.group, return_counts=True)), strict=True))
        large = {group: rows for group, rows in sizes.items() if rows >= 200}
        forest: Any = grow_grouped(drawn, large, n - sum(large.values()), lambda rows: rows // 50, grow)
    else:
        forest = grow(drawn, n)
    routes = forest.find_routes(prepared, 1)
    reach = [
        reach_for(of_tree, probes)
        for of_tree in forest.find_routes(slice_rows(drawn, 0, min(500, len_of(drawn))), probes)
    ]
    leaf_rows, batch_rows, part_batches, files = [], [], [], []
    for tree, of_tree in enumerate(routes):
        row, leaf = of_tree.row[of_tree.home], of_tree.leaf[of_tree.home]
        order = np.lexsort((id_order[row], leaf))
        row, leaf = row[order], leaf[order]
        leaf_rows.append(np.bincount(leaf, minlength=forest.sizes[tree]))
        starts = np.searchsorted(leaf, leaf[np.linspace(0, len(leaf), parts, endpoint=False).astype(int)])
        for start, end in zip(starts, [*starts[1:], len(leaf)], strict=True):
            if start == end:
                continue
            some, name = row[start:end], f"part-{len(files):05d}-test.arrow"
            hashes = some * 7919
            kind = "float32" if narrow else "float64"
            wrote = write_part(
                f"{folder}/{name}",
                leaf[start:end],
                id_array.take(pa.array(some)),
                hashes,
                partial(slice_rows, take_rows(vectors, some)),
                kind,
            )
            batch_rows.append(wrote)
            part_batches.append(len(wrote))
            files.append(SavedFile(name, len(some), (folder / name).stat().st_size))
    first = _first_rows(vectors, prepared, forest, id_order, k, metric)
    if len(first):
        write_part(
            f"{folder}/first.arrow",
            np.zeros(len(first), np.int64),
            id_array.take(pa.array(first)),
            first * 7919,
            partial(slice_rows, take_rows(vectors, first)),
            "float32" if narrow else "float64",
        )
        files.append(SavedFile("first.arrow", len(first), (folder / "first.arrow").stat().st_size))
    manifest = Manifest(
        version="0.1.0",
        created="2024-01-02T03:04:05+00:00",
        settings={"k": k, "metric": metric, "within": None if groups is None else "language"},
        rows=n,
        dim=int(vectors.shape[1]),
        lengths=() if is_sparse(vectors) else (int(vectors.shape[1]),),
        sparse=is_sparse(vectors),
        id_type='{"type":"struct","fields":[{"name":"id","type":"long","nullable":true,"metadata":{}}]}',
        numbers="float32" if narrow else "float64",
        largest=largest,
        rounded=not narrow,
        width=float(vectors.shape[1]),
        id_bytes=8.0,
        coordinates=coordinates,
        forest=forest,
        reach=np.array(reach, np.float32),
        query=QueryCalibration(target=0.95, probes=probes, predicted=0.95, low=0.94, high=0.96, users=500),
        leaf_rows=np.concatenate(leaf_rows),
        batch_rows=np.concatenate(batch_rows),
        part_batches=np.array(part_batches),
        files=tuple(files),
    )
    return write_manifest(str(folder), manifest)


def _first_rows(vectors: Any, prepared: Any, forest: Any, id_order: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Return the rows that every vector is compared with, in the order of ids."""
    chosen = np.flatnonzero(forest.are_hubs(prepared))
    if is_sparse(vectors):
        order = np.lexsort((id_order, ordering_lengths(prepared, metric)))
        group = groups_of(prepared)
        among = [order] if group is None else [order[group[order] == name] for name in forest.names]
        chosen = np.union1d(chosen, np.concatenate([some[: count_first_rows(k)] for some in among]))
    return chosen[np.argsort(id_order[chosen])]
