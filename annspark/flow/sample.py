"""Sample: the users with the smallest seeded hashes of their ids; the same however the table is partitioned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from annspark.core.coordinates import Coordinates, OutOfRange, choose_coordinates
from annspark.core.excluded import Excluded
from annspark.core.sampling import draw_limit
from annspark.core.vectors import Vectors, take_rows
from annspark.errors import InputError
from annspark.flow.read import Users
from annspark.spark.arrow import collect, elements, numbers
from annspark.spark.block import read_excluded
from annspark.tables import HASHES, IDS, LOWEST, USER_ID

_SEEN = 2_000  # users whose vectors are used to choose the coordinates (origin and scale)


@dataclass(frozen=True)
class Sample:
    """Sampled users on the driver, in the order of their hashes.

    hashes  : int64 (n,)
    own     : their vectors as in the input, dense or sparse
    vectors : their vectors as they are routed, float32
    excluded : what they exclude, None where no pairs are excluded
    """

    ids: pa.Array
    hashes: np.ndarray
    own: Vectors
    vectors: Vectors
    excluded: Excluded | None


@dataclass(frozen=True)
class Samples:
    """The samples of a run, by purpose.

    audit     : users whose exact neighbors the found table is compared with
    calibrate : users whose exact neighbors are used to predict the recall
    routed    : users that the driver routes, to predict the work of the join
    forest    : users that the forest is grown from
    """

    audit: Sample
    calibrate: Sample
    routed: Sample
    forest: Sample

    def count(self) -> int:
        """Return how many users are in them, together."""
        return sum(len(sample.ids) for sample in (self.audit, self.calibrate, self.routed, self.forest))


def sample_vectors(
    users: Users, want: Sequence[int], coordinates: Coordinates | None = None
) -> tuple[Users, list[Sample]]:
    """Collect seeded samples on the driver; only the blocks that hold sampled users are read.

    want        : the number of users of each sample
    coordinates : those of the users, where they are known; None chooses them
    returns     : the users with their coordinates, and samples of min(want, rows) users.  Two samples share users only
                  when there are not enough users for both.  The first sample has the smallest hashes, so that its
                  users' rows in any table can be found by comparing hashes
    Raises InputError where distances would not fit the published column.
    """
    seen = draw_limit(min(_SEEN, users.rows), users.rows)
    limit = max(seen, draw_limit(min(sum(want), users.rows), users.rows))
    blocks = collect(users.table.where(F.col(LOWEST) <= limit).drop(LOWEST))
    hashes, ids = numbers(blocks[HASHES], np.int64), elements(blocks[IDS])
    vectors, excluded = users.wire.read(blocks), read_excluded(blocks)
    sampled = pa.table({HASHES: hashes, USER_ID: ids, "row": np.arange(len(ids))}).filter(pa.array(hashes <= limit))
    row = sampled.sort_by([(HASHES, "ascending"), (USER_ID, "ascending")])["row"].to_numpy()
    chosen = coordinates or _chosen_for(users, take_rows(vectors, np.flatnonzero(hashes <= seen)))
    samples, start = [], 0
    for n in (min(n, users.rows) for n in want):
        drawn = row[min(start, users.rows - n) :][:n]
        own = take_rows(vectors, drawn)
        samples.append(
            Sample(
                ids=ids.take(pa.array(drawn)),
                hashes=hashes[drawn],
                own=own,
                vectors=chosen.for_routing(own),
                excluded=excluded.take(drawn) if excluded else None,
            )
        )
        start += n
    return replace(users, coordinates=chosen), samples


def _chosen_for(users: Users, seen: Vectors) -> Coordinates:
    """Return the coordinates for users like those seen."""
    try:
        return choose_coordinates(seen, users.coordinates.metric, users.largest, rounded=users.rounded)
    except OutOfRange as error:
        raise InputError(f"input: {error}") from error
