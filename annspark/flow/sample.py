"""Sample: the users whose seeded hash of the id is smallest; the same ones however the table is partitioned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from annspark.core.coordinates import OutOfRange, choose_coordinates
from annspark.core.sampling import draw_limit
from annspark.core.vectors import Vectors, take_rows
from annspark.errors import InputError
from annspark.flow.read import Users
from annspark.spark.arrow import collect, elements, numbers
from annspark.tables import HASHES, IDS, LOWEST, USER_ID

_SEEN = 2_000  # users whose vectors tell where all lie and how large they are


@dataclass(frozen=True)
class Sample:
    """Users on the driver, in order of their hashes.

    hashes  : int64 (n,)
    own     : their vectors as they came, dense or sparse
    vectors : float32, as they are routed
    """

    ids: pa.Array
    hashes: np.ndarray
    own: Vectors
    vectors: Vectors


@dataclass(frozen=True)
class Samples:
    """Users on the driver, by what they are for.

    audit     : their exact neighbors measure the finished table
    calibrate : their exact neighbors predict the recall
    shown     : the driver routes them, to tell what the join will do
    forest    : the forest is grown from them
    """

    audit: Sample
    calibrate: Sample
    shown: Sample
    forest: Sample


def sample_vectors(users: Users, want: Sequence[int]) -> tuple[Users, list[Sample]]:
    """Bring seeded samples to the driver; only the blocks that hold some of them are read.

    want    : how many users each sample should have
    returns : the users with the coordinates that suit them; samples of min(want, rows) users, two of which share users
              only when there are not enough for both.  The first has the users with the smallest hashes, so that the
              rows of a table about them are found by a comparison of hashes
    Raises InputError where distances would not fit the published column.
    """
    seen = draw_limit(min(_SEEN, users.rows), users.rows)
    limit = max(seen, draw_limit(min(sum(want), users.rows), users.rows))
    blocks = collect(users.table.where(F.col(LOWEST) <= limit).select(IDS, HASHES, *users.wire.names))
    hashes, ids = numbers(blocks[HASHES], np.int64), elements(blocks[IDS])
    vectors = users.wire.read(blocks)
    found = pa.table({HASHES: hashes, USER_ID: ids, "row": np.arange(len(ids))}).filter(pa.array(hashes <= limit))
    row = found.sort_by([(HASHES, "ascending"), (USER_ID, "ascending")])["row"].to_numpy()
    try:
        some = take_rows(vectors, np.flatnonzero(hashes <= seen))
        chosen = choose_coordinates(some, users.coordinates.metric, users.largest, rounded=users.rounded)
    except OutOfRange as error:
        raise InputError(f"input: {error}") from error
    samples, start = [], 0
    for n in (min(n, users.rows) for n in want):
        mine = row[min(start, users.rows - n) :][:n]
        own = take_rows(vectors, mine)
        samples.append(Sample(ids.take(pa.array(mine)), hashes[mine], own, chosen.rounded(own)))
        start += n
    return replace(users, coordinates=chosen), samples
