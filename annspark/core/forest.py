"""What every forest offers: trees of leaves, a home leaf for each vector, and the leaves near to it."""

from typing import Protocol, Self

import numpy as np

from annspark.core.routes import Routes
from annspark.core.vectors import Vectors


class Forest(Protocol):
    """Trees of leaves.  A vector has one home leaf in each tree, or none, and may visit other leaves.

    A CentreForest, for dense vectors, has a leaf for each centre.  A ColumnForest, for sparse rows, has a leaf for each
    column.  A GroupedForest, for vectors of groups, has one of these for each large group.
    """

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of leaves of each tree."""

    @property
    def shared_leaves(self) -> range:
        """The leaves of the first tree that small groups share, all of whose rows are compared within their group."""

    @property
    def gains_by_trees(self) -> bool:
        """Whether more trees are a cheaper way to a higher recall than more probes."""

    def find_routes(self, vectors: Vectors, probes: float) -> list[Routes]:
        """Return for each tree the home of every vector, and the leaves it may visit.

        vectors : n, prepared
        probes  : mean number of leaves a vector goes to in a tree, its home included
        """

    def find_reached(self, vectors: Vectors, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the home of every vector and the leaves within reach of it, in any order.

        They are those that within_reach leaves of find_routes; margins may be nan.

        reach : for each tree, the margin up to which leaves are visited
        """

    def find_query_routes(self, queries: Vectors, probes: float) -> list[Routes]:
        """Return for each tree the leaves that queries may go to.

        A query asks for neighbors, and is nobody's neighbor.  It goes to the leaf that comes first for it, which takes
        the place of a home in the routes, and to others within reach.

        queries : n, prepared
        probes  : mean number of leaves a query goes to in a tree, the first one included
        """

    def find_query_reached(self, queries: Vectors, probes: float, reach: tuple[float, ...]) -> list[Routes]:
        """Return for each tree the leaves that queries go to, in any order.

        They are those that within_reach leaves of find_query_routes; margins may be nan.

        reach : for each tree, the margin up to which leaves are visited
        """

    def find_query_distances(
        self, queries: Vectors, i: np.ndarray, rows: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how far queries[i] are from the homes of rows[j], as calibrate.HomeDistances has it for one way.

        queries, rows : prepared
        i, j          : int (n_pairs,)
        returns       : leaves_nearer int32 and margins float32 (n_pairs, trees)
        """

    def find_home_distances(
        self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how far left[i] and right[j] are from each other's homes, as calibrate.HomeDistances has it.

        left, right : prepared
        i, j        : int (n_pairs,)
        returns     : leaves_nearer int32 and margins float32 (n_pairs, 2 * trees), two columns a tree, in the order of
                      the trees: of the left from the home of the right, then of the right from the home of the left
        """

    def are_hubs(self, vectors: Vectors) -> np.ndarray:
        """Return which vectors are hubs, which visit every leaf of the first tree: bool (n,)."""

    def most_probes(self, sample: Vectors) -> float:
        """Return how many leaves of a tree vectors like the sampled ones can go to on average."""

    def most_leaves(self, probes: float) -> int:
        """Return how many leaves of a tree a vector may go to at most, when it goes to probes leaves on average."""

    def first(self, n_trees: int) -> Self:
        """Return the forest of the first trees."""
