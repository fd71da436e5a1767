"""The records that the steps of the pipeline pass on: what is known of the input, the index, and what was found."""

from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame

from annspark.core.calibrate import Calibration, HomeDistances
from annspark.core.forest import Forest
from annspark.core.nearest_lists import Nearest
from annspark.core.plan import Plan
from annspark.flow.first_rows import FirstRows
from annspark.flow.read import Users
from annspark.flow.sample import Samples
from annspark.output.layout import Layout
from annspark.settings import Settings
from annspark.spark.meter import Counts


@dataclass(frozen=True)
class Known:
    """What is known of the input.

    users      : its valid rows, staged; they may be neighbors
    asking     : the users whose neighbors are looked for: users, or queries of another table
    samples    : sampled users, on the driver
    audited    : exact neighbors of the users in samples.audit
    nearest    : exact neighbors of the users in samples.calibrate
    first_rows : sparse rows that every user is compared with, because they are the nearest of those that share no
                 column with it; None where the forest alone is enough
    neighbors  : the most neighbors a user can have: min(k, number of other users)
    lonely     : users without groups who can have fewer, as they are of so few candidates and not their own neighbors
    """

    users: Users
    asking: Users
    samples: Samples
    audited: Nearest
    nearest: Nearest
    first_rows: FirstRows | None
    neighbors: int
    lonely: int = 0

    @property
    def can_have_fewer(self) -> int:
        """How many users can have fewer neighbors than others can."""
        return self.asking.groups.too_small if self.asking.groups else self.lonely

    @property
    def are_queries(self) -> bool:
        """Whether those who ask are of another table than their neighbors."""
        return self.asking is not self.users


@dataclass(frozen=True)
class Tuned:
    """All that a join needs: the users, the forest, and the number of leaves that each vector probes.

    settings       : as asked for
    known          : what is known of the input
    forest         : the trees that are used
    grown          : the trees that were grown, which may be more
    home_distances : from users and their neighbors to each other's homes in the grown trees; None where no recall was
                     asked for
    calibration    : the probes chosen for the recall asked for; None where none was asked for
    plan           : the probes, and the partition that joins each leaf
    """

    settings: Settings
    known: Known
    forest: Forest
    grown: Forest
    home_distances: HomeDistances | None
    calibration: Calibration | None
    plan: Plan

    @property
    def own(self) -> bool:
        """Whether equal ids are the same thing, so that nobody is the neighbor of the own id."""
        return not self.known.are_queries or self.settings.same_ids


@dataclass(frozen=True)
class Kept:
    """How the rows of an index are joined, and what it keeps of that, so that an update joins only what has changed.

    probes      : mean number of leaves of a tree that a row went to, its home included
    reach       : for each tree that was joined, the first ones of the index, the margin up to which rows visit leaves
    calibration : the probes chosen for the recall asked for; None where probes were given
    width       : neighbors that a list has room for: k and some to spare
    lists       : user_id and neighbors, the nearest `width` of those that each row was compared with in the leaves;
                  None where these are in the files of the index, or there are none
    users       : the rows whose lists these are, which know whom they exclude; None where lists are
    pairs       : number of excluded pairs, which are in no list; None where none were given
    table       : fingerprint of the table that was published with the index
    """

    probes: float
    reach: tuple[float, ...]
    calibration: Calibration | None
    width: int
    lists: DataFrame | None
    users: Users | None = None
    pairs: int | None = None
    table: str = ""


@dataclass(frozen=True)
class Indexed:
    """What an index keeps: rows that can be searched, and the forest in whose leaves they are.

    settings    : as asked for when the index was made
    users       : the indexed users, staged or read from the files of a saved index
    forest      : the trees
    residents   : for each tree float (n_leaves,), about how many users are at home in each leaf
    first_rows  : users that every query is compared with: hubs, and the first of sparse rows; None where there are none
    reach       : for each tree, the margin up to which a query goes to leaves when nothing else is asked for
    calibration : the probes for that, chosen for the recall asked for; None where probes were given
    kept        : of the join of the rows; None where an update cannot join them again: they are candidates of another
                  table.  With candidate_col the lists are those of all rows, of which users are some
    """

    settings: Settings
    users: Users
    forest: Forest
    residents: tuple[np.ndarray, ...]
    first_rows: FirstRows | None
    reach: tuple[float, ...]
    calibration: Calibration | None
    kept: Kept | None = None


@dataclass(frozen=True)
class Found:
    """The neighbors of every user.

    table    : the neighbor table, stored
    layout   : its layout
    counts   : the work done and its results
    plan     : the plan of the last join
    n_leaves : number of leaves of all trees that were joined
    kept     : what an index keeps of the join; None where nothing is kept
    """

    table: DataFrame
    layout: Layout
    counts: Counts
    plan: Plan
    n_leaves: int
    kept: Kept | None = None
