"""The records: what a run did, and what a run would do."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from annspark.core.calibrate import Calibration
from annspark.core.cost import Bytes, Spent
from annspark.core.growth import Foreseen
from annspark.core.recall import Precision, Recall, Spread


@dataclass(frozen=True, kw_only=True)
class Rows:
    """How many rows the input and the output have.

    read       : rows of the input
    valid      : rows of the input that are users
    written    : users in the output
    dropped    : rows left out, by reason
    examples   : the id of one row left out, by reason; None where that row has no id
    short      : users with fewer neighbors than k and the size of the table allow
    widened    : users whose leaves held too few others, and who got neighbors from the whole table
    restricted : users who have fewer neighbors because of max_distance or links
    indexed    : rows among which neighbors were looked for, where these are of another table or index
    excluded_pairs : pairs of a user and another that it must not be given; None where none were given
    groups     : groups within which neighbors were looked for; None where there are none
    in_small_groups : users of groups of k users or fewer, who have fewer than k neighbors
    """

    read: int
    valid: int
    written: int
    dropped: dict[str, int]
    examples: dict[str, Any]
    short: int
    widened: int = 0
    restricted: int = 0
    indexed: int | None = None
    excluded_pairs: int | None = None
    groups: int | None = None
    in_small_groups: int = 0


@dataclass(frozen=True)
class Cost:
    """What the join took.

    pairs_per_user  : distances computed for a user, on average
    copies_per_user : copies of a user's vector that went to partitions, on average
    shuffle_bytes   : bytes of payload that went between partitions, before compression
    staged_bytes    : bytes of vectors that Java kept during the run, in its heap or on disk
    """

    pairs_per_user: float
    copies_per_user: float
    shuffle_bytes: int
    staged_bytes: int


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """How large the leaves of all trees are.

    count       : leaves of all trees
    median_rows : half of the leaves are home to so many users at most, by a sample
    p99_rows    : 99 % of the leaves are home to so many users at most, by a sample
    max_rows    : users at home in the largest leaf
    """

    count: int
    median_rows: int
    p99_rows: int
    max_rows: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did; report.json has the same fields, and `passed`.

    version       : version of annspark
    versions      : versions of Python, Spark, NumPy and PyArrow on the driver
    cluster       : master, application and cores of the session, as far as it tells
    created       : when the run ended, in ISO 8601 and UTC
    settings      : settings as the user gave them
    input_version : of the input's table, such as "delta version 12", or a digest of the input's files; None where there
                    is no name, as in a notebook, or nothing is known
    rows          : rows read, dropped and written
    recall        : recall that the audit measured
    calibration   : recall asked for and recall predicted; None when the user gave probes instead
    topped_up     : trees added because the first table missed the target
    distances     : distances of the audited users, by rank
    precision     : what rounding takes; None when annspark did not make the table
    cost          : what the join took; None when annspark did not make the table
    leaves        : how large the leaves are; None when annspark did not make the table
    seconds       : seconds in all under "total", which comes first, then seconds by step
    """

    version: str
    versions: dict[str, str]
    cluster: dict[str, Any]
    created: str
    settings: dict[str, Any]
    rows: Rows
    recall: Recall
    calibration: Calibration | None
    topped_up: int
    distances: tuple[Spread, ...]
    precision: Precision | None
    cost: Cost | None
    leaves: Leaves | None
    seconds: dict[str, float]
    input_version: str | None = None

    @property
    def passed(self) -> bool:
        """Say whether the interval of the audit reaches the recall asked for; True when the user asked for none."""
        return self.calibration is None or self.recall.high >= self.calibration.target


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a run would do; all numbers of the join are estimates.

    rows            : rows read and dropped; `written` says how many users the table would have
    planned         : rows of the table that is planned for, which may be more than were read
    cores           : cores that would share the work
    calibration     : recall asked for and recall predicted for the rows read; None when the user gave probes instead
    probes          : leaves of a tree that a user would go to, on average
    pairs_per_user  : see Cost
    copies_per_user : see Cost
    leaves          : how large the leaves would be
    partitions      : partitions of the join
    needed          : bytes that the run would hold and move
    spent           : core-seconds of each step
    waits           : how many times as long as idle cores a trial took here
    run_seconds     : seconds of the whole run
    least_seconds   : lower end of what it takes with the fewest probes that are likely
    most_seconds    : upper end of what it takes with the most probes that are likely
    limits          : a sentence for everything that limits the run or the plan
    seconds         : seconds spent so far, as in Report
    """

    rows: Rows
    planned: int
    cores: int
    calibration: Calibration | None
    probes: Foreseen
    pairs_per_user: float
    copies_per_user: float
    leaves: Leaves
    partitions: int
    needed: Bytes
    spent: dict[str, Spent]
    waits: float
    run_seconds: float
    least_seconds: float
    most_seconds: float
    limits: tuple[str, ...]
    seconds: dict[str, float]


def versions(spark: str) -> dict[str, str]:
    """Return the versions of the software that a run uses.

    spark : version of the session's Spark
    """
    return {"python": platform.python_version(), "spark": spark} | {
        name: version(name) for name in ("numpy", "pyarrow")
    }
