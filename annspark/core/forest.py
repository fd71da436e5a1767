"""What every forest offers: trees of leaves, a home for every vector, and the leaves near to it."""

from typing import Protocol, Self

import numpy as np

from annspark.core.routes import Routes
from annspark.core.vectors import Vectors


class Forest(Protocol):
    """Trees of leaves.  A vector has a home leaf in each tree, or none, and may visit other leaves.

    A CentreForest has a leaf for every centre, for dense vectors; a ColumnForest one for every column, for sparse ones.
    """

    @property
    def sizes(self) -> tuple[int, ...]:
        """Leaves of each tree."""

    @property
    def gains_by_trees(self) -> bool:
        """Whether more trees are a cheaper way to a higher recall than more probes."""

    def find_routes(self, vectors: Vectors, probes: float) -> list[Routes]:
        """Return per tree the home of every vector, and the leaves it may visit.

        probes : mean number of leaves a vector goes to in a tree, its home included
        """

    def find_chances(
        self, left: Vectors, i: np.ndarray, right: Vectors, j: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how near left[i] and right[j] come to each other's home leaves, see Chances.

        i, j    : int (n_pairs,)
        returns : ranks int32 and margins float32 (n_pairs, 2 * trees), in the order of the trees
        """

    def are_hubs(self, vectors: Vectors) -> np.ndarray:
        """Return which vectors visit every leaf of the first tree: bool (n,)."""

    def most_probes(self, sample: Vectors) -> float:
        """Return how many leaves of a tree vectors like the sampled ones can go to on average."""

    def candidates(self, probes: float) -> int:
        """Return how many leaves of a tree a vector may go to at most."""

    def first(self, n_trees: int) -> Self:
        """Return the forest of the first trees."""
