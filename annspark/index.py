"""What passes between the steps of the line: what is known of the input, the index, and what was found."""

from dataclasses import dataclass

from pyspark.sql import DataFrame

from annspark.core.calibrate import Calibration, Chances
from annspark.core.forest import Forest
from annspark.core.nearest_lists import Nearest
from annspark.core.plan import Plan
from annspark.flow.few import Few
from annspark.flow.read import Users
from annspark.flow.sample import Samples
from annspark.output.layout import Layout
from annspark.settings import Settings
from annspark.spark.meter import Counts


@dataclass(frozen=True)
class Known:
    """What is known of the input.

    users     : its valid rows, staged
    samples   : some of them, on the driver
    audited   : exact neighbors of the users of samples.audit
    few       : sparse rows that all others are compared with, since those that share no column find them nearest; None
                where routing does without
    neighbors : how many a user can have: k, or all others
    """

    users: Users
    samples: Samples
    audited: Nearest
    few: Few | None
    neighbors: int


@dataclass(frozen=True)
class Index:
    """All that a join needs: who is joined, by which forest, and how far each vector goes in it.

    settings    : as they were asked for
    known       : of the input
    forest      : the trees that are used
    grown       : the trees that were grown, which may be more
    chances     : that neighbors are met in the grown trees; None where no recall was asked for
    calibration : the probes chosen for the recall asked for; None where none was
    plan        : where leaves are joined
    """

    settings: Settings
    known: Known
    forest: Forest
    grown: Forest
    chances: Chances | None
    calibration: Calibration | None
    plan: Plan


@dataclass(frozen=True)
class Found:
    """The neighbors of every user.

    table    : where it was put
    layout   : how it is laid out
    counts   : of what finding them took
    plan     : of the last join
    n_leaves : over all trees that were joined
    """

    table: DataFrame
    layout: Layout
    counts: Counts
    plan: Plan
    n_leaves: int
