"""What an index keeps of the join of its rows, in Arrow files: nearest neighbors, and who visits which leaf."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annspark.core.arrays import are_in, distinct, ranges
from annspark.core.visitors import Visitors
from annspark.filesystem import open_place
from annspark.saved.parts import numbers_in, open_part

_DIGESTS = "digests"


@dataclass(frozen=True)
class KeptRows:
    """Rows of an index with the nearest of those they were compared with, in the order of the hashes of their ids.

    A list holds all rows up to its last neighbor that its row was compared with.  With candidate_col, rows that may not
    be neighbors have lists, too.

    ids          : (n,)
    hashes       : int64 (n,), of the ids
    contents     : int64 (n,), of the vectors; with candidate_col also of whether they may be neighbors
    homes        : int32 (n, trees), home leaf in each tree, -1 for none
    neighbor_ids : of all lists, and perhaps of lists that are not used any more
    distances    : float32, of these
    first        : int64 (n,), where the list of a row begins
    counts       : int64 (n,), how long it is
    whole        : bool (n,), whether a list holds all rows that its row was compared with
    """

    ids: pa.Array
    hashes: np.ndarray
    contents: np.ndarray
    homes: np.ndarray
    neighbor_ids: pa.Array
    distances: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    whole: np.ndarray

    def take(self, row: np.ndarray) -> "KeptRows":
        """Return some of the rows, with their lists one after the other."""
        counts = self.counts[row]
        at = ranges(self.first[row], counts)
        return replace(
            self._of(row),
            neighbor_ids=self.neighbor_ids.take(pa.array(at)),
            distances=self.distances[at],
            first=np.cumsum(counts) - counts,
        )

    def with_lists(
        self, row: np.ndarray, neighbor_ids: pa.Array, distances: np.ndarray, counts: np.ndarray
    ) -> "KeptRows":
        """Return the rows of which some have other lists, given one after the other; no other list is copied.

        row    : int (n,)
        counts : int64 (n,), lengths of these lists
        """
        first, all_counts = self.first.copy(), self.counts.copy()
        first[row], all_counts[row] = len(self.distances) + np.cumsum(counts) - counts, counts
        return replace(
            self,
            neighbor_ids=pa.concat_arrays([self.neighbor_ids, neighbor_ids]),
            distances=np.concatenate([self.distances, distances]),
            first=first,
            counts=all_counts,
        )

    def without(self, gone: "Gone") -> "KeptRows":
        """Return the rows that are still there, without the neighbors that are gone; the lists are as in the file."""
        if len(gone.hashes) == 0:
            return self
        rows = self._of(np.flatnonzero(~are_in(self.hashes, gone.hashes)))
        is_gone = pc.is_in(self.neighbor_ids, gone.ids.cast(self.neighbor_ids.type)).to_numpy(zero_copy_only=False)
        lost = np.flatnonzero(is_gone)
        owner = np.searchsorted(rows.first, lost, side="right") - 1
        # Before the first list, and behind the end of one, are lists of rows that are gone.
        lost, owner = lost[owner >= 0], owner[owner >= 0]
        shorter = distinct(owner[lost < (rows.first + rows.counts)[owner]])
        at = ranges(rows.first[shorter], rows.counts[shorter])
        of_row = np.repeat(np.arange(len(shorter)), rows.counts[shorter])
        of_row, at = of_row[~is_gone[at]], at[~is_gone[at]]
        counts = np.bincount(of_row, minlength=len(shorter))
        return rows.with_lists(shorter, self.neighbor_ids.take(pa.array(at)), self.distances[at], counts)

    def are_short(self, k: int) -> np.ndarray:
        """Return which rows have to be joined anew, as the next of their neighbors are not known: bool (n,)."""
        return (self.counts < k) & ~self.whole

    def farthest(self) -> np.ndarray:
        """Return the distance up to which each list is known: float32 (n,), inf for a whole one."""
        last = self.first + self.counts - 1
        known = (self.counts > 0) & ~self.whole
        return np.where(known, self.distances[np.where(known, last, 0)] if known.any() else 0, np.inf).astype(
            np.float32
        )

    def _of(self, row: np.ndarray) -> "KeptRows":
        """Return some of the rows, with the lists of all."""
        return replace(
            self,
            ids=self.ids.take(pa.array(row)),
            hashes=self.hashes[row],
            contents=self.contents[row],
            homes=self.homes[row],
            first=self.first[row],
            counts=self.counts[row],
            whole=self.whole[row],
        )


@dataclass(frozen=True)
class Gone:
    """Rows of an index that are there no longer, or have other vectors tonight.

    ids    : (n,)
    hashes : int64 (n,), of the ids, ascending
    """

    ids: pa.Array
    hashes: np.ndarray


def write_rows(path: str, rows: KeptRows, digests: np.ndarray | None = None) -> None:
    """Write rows as one Arrow file.

    rows    : with their lists one after the other, as KeptRows.take returns them
    digests : int64 (n,), of what each row excludes; None where no pairs are excluded
    """
    trees = rows.homes.shape[1]
    ends = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(rows.counts).astype(np.int32)]))
    homes = pa.array(np.ascontiguousarray(rows.homes, np.int32).ravel())
    columns = {
        "id": rows.ids,
        "hash": pa.array(rows.hashes),
        "content": pa.array(rows.contents),
        "homes": pa.FixedSizeListArray.from_arrays(homes, trees),
        "neighbors": pa.ListArray.from_arrays(ends, rows.neighbor_ids),
        "distances": pa.ListArray.from_arrays(ends, pa.array(rows.distances.astype(np.float32, copy=False))),
        "whole": pa.array(rows.whole.astype(np.uint8)),
        **({} if digests is None else {_DIGESTS: pa.array(digests)}),
    }
    _write(path, pa.RecordBatch.from_arrays(list(columns.values()), list(columns)))


def read_rows(path: str) -> KeptRows:
    """Read a file that write_rows has written; a local one is not copied."""
    batch = open_part(path).get_batch(0)
    homes, lists = batch.column(3), batch.column(4)
    offsets = numbers_in(lists.offsets).astype(np.int64)
    return KeptRows(
        ids=batch.column(0),
        hashes=numbers_in(batch.column(1)),
        contents=numbers_in(batch.column(2)),
        homes=numbers_in(homes.flatten()).reshape(-1, homes.type.list_size),
        neighbor_ids=lists.flatten(),
        distances=numbers_in(batch.column(5).flatten()),
        first=offsets[:-1] - offsets[:1],
        counts=np.diff(offsets),
        whole=numbers_in(batch.column(6)).astype(bool),
    )


def read_digests(path: str) -> np.ndarray:
    """Read the digests of a file that write_rows has written: int64 (n,), 0 for rows that exclude nobody."""
    batch = open_part(path).get_batch(0)
    return numbers_in(batch[_DIGESTS]) if _DIGESTS in batch.schema.names else np.zeros(len(batch), np.int64)


def write_visitors(path: str, visitors: Visitors) -> None:
    """Write who visits which leaf as one Arrow file, of a single row of whole arrays."""
    arrays = [visitors.leaf, visitors.visited, visitors.first, visitors.bits, visitors.place]
    columns = [pa.LargeListArray.from_arrays(pa.array([0, len(one)]), pa.array(one)) for one in arrays]
    _write(path, pa.RecordBatch.from_arrays(columns, ["leaf", "visited", "first", "bits", "place"]))


def read_visitors(path: str) -> Visitors:
    """Read a file that write_visitors has written; a local one is not copied."""
    batch = open_part(path).get_batch(0)
    return Visitors(*(numbers_in(column.flatten()) for column in batch.columns))


def _write(path: str, batch: pa.RecordBatch) -> None:
    system, inside = open_place(path)
    with system.open_output_stream(inside) as stream, pa.ipc.new_file(stream, batch.schema) as writer:
        writer.write_batch(batch)
