"""Sample: the rows whose seeded hash of the id is smallest; the same rows however the table is partitioned."""

from math import sqrt

import numpy as np
import pyarrow as pa
from pyspark.sql import Column
from pyspark.sql import functions as F

from annspark.flow.arrow import collect, vectors_from_binary
from annspark.flow.read import Users
from annspark.tables import USER_ID, VECTOR

_HASH = "hash"


def sample_vectors(users: Users, want: int, *, seed: int, purpose: str) -> tuple[pa.Array, np.ndarray]:
    """Bring a seeded sample to the driver.

    want    : how many users
    purpose : a word; samples for different purposes are independent of each other
    returns : ids, and float32 (min(want, rows), dim), in order of the hash
    """
    # Five standard deviations more than wanted, then the surplus is cut: never short, never the whole table.
    share = min(1.0, (want + 5 * sqrt(want) + 10) / users.rows)
    below = int(min(-(2**63) + share * 2**64, 2**63 - 1))
    few = users.table.withColumn(_HASH, _seeded_hash(seed, purpose)).where(F.col(_HASH) <= F.lit(below))
    found = collect(few).sort_by([(_HASH, "ascending"), (USER_ID, "ascending")]).slice(0, want)
    return found[USER_ID].combine_chunks(), vectors_from_binary(found[VECTOR], users.dim)


def _seeded_hash(seed: int, purpose: str) -> Column:
    return F.xxhash64(F.lit(seed), F.lit(purpose), F.col(USER_ID))
