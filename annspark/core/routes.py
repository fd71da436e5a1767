"""Routes: the leaves of a tree that each vector goes to, its home and those it visits.

They are kept one after the other, so that a vector takes no more memory than it has leaves to go to.
"""

from dataclasses import dataclass

import numpy as np

EVERY_LEAF = -2  # a visit that stands for all leaves of a partition
SAME_LEAF = -2.0  # margin of two vectors with the same home: within the reach, -1, even where vectors visit no leaf


@dataclass(frozen=True)
class Routes:
    """The leaves of one tree that are homes of vectors or may be visited by them, in the order of the vectors.

    n_rows : number of vectors
    row    : int (n,), ascending, a vector; each has one home or none
    leaf   : int32 (n,), a leaf it may go to
    margin : float32 (n,), how far that leaf is: what a reach is compared with; 0 for the home
    home   : bool (n,), True for the home
    """

    n_rows: int
    row: np.ndarray
    leaf: np.ndarray
    margin: np.ndarray
    home: np.ndarray

    def take(self, which: np.ndarray) -> "Routes":
        """Return some of the entries, by a mask or by ascending places."""
        return Routes(
            n_rows=self.n_rows,
            row=self.row[which],
            leaf=self.leaf[which],
            margin=self.margin[which],
            home=self.home[which],
        )


@dataclass(frozen=True)
class Visits:
    """Leaves of a partition that vectors visit besides their homes, in any order.

    row  : int (n,), a vector
    leaf : int32 (n,), a leaf it visits, or EVERY_LEAF
    """

    row: np.ndarray
    leaf: np.ndarray


def visits_of(leaves: np.ndarray) -> Visits:
    """Return visits from a table of leaves; for tests and benchmarks, which make small joins by hand.

    leaves : int32 (n, m), the leaves each vector visits, -1 for none
    """
    row, place = np.nonzero(leaves != -1)
    return Visits(row, leaves[row, place])


def routes_of(leaves: np.ndarray, margins: np.ndarray) -> Routes:
    """Return routes from tables of leaves and margins.

    leaves  : int32 (n, m), the leaves of each vector, home first
    margins : float32 (n, m), nan for a leaf that it may not visit
    """
    row, place = np.nonzero(~np.isnan(margins))
    return Routes(n_rows=len(leaves), row=row, leaf=leaves[row, place], margin=margins[row, place], home=place == 0)


def reach_for(routes: Routes, probes: float) -> float:
    """Return the reach: the margin up to which vectors visit leaves, to go to a given number of leaves on average.

    routes  : with all leaves that vectors may visit
    probes  : mean number of leaves a vector goes to, its home included
    returns : -1 where no vector is to visit any leaf, inf where there are fewer leaves than asked for
    """
    others = routes.margin[~routes.home]
    visits = round(routes.n_rows * (probes - 1))
    if visits == 0:
        return -1.0
    return float(np.partition(others, visits - 1)[visits - 1]) if visits <= len(others) else float("inf")


def within_reach(routes: Routes, reach: float) -> Routes:
    """Return the leaves that vectors go to: their homes, and the leaves within reach."""
    return routes.take(routes.home | (routes.margin <= np.float32(reach)))


def within_reaches(routes: list[Routes], reaches: tuple[float, ...]) -> list[Routes]:
    """Return within_reach of each tree."""
    return [within_reach(*one) for one in zip(routes, reaches, strict=True)]
