"""Routes: the leaves that vectors go to, one after the other, so that a vector costs no more than it visits."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Routes:
    """Leaves of a tree that vectors live in or may visit, in the order of the vectors.

    n_rows : vectors there are
    row    : int (n,), ascending; every vector has one home or none
    leaf   : int32 (n,)
    margin : float32 (n,), 0 at home
    home   : bool (n,)
    """

    n_rows: int
    row: np.ndarray
    leaf: np.ndarray
    margin: np.ndarray
    home: np.ndarray

    def take(self, which: np.ndarray) -> "Routes":
        """Return some of them, by a mask or by ascending places."""
        return Routes(self.n_rows, self.row[which], self.leaf[which], self.margin[which], self.home[which])


@dataclass(frozen=True)
class Visits:
    """Leaves of a partition that vectors visit besides their homes, in any order.

    row  : int (n,)
    leaf : int32 (n,)
    """

    row: np.ndarray
    leaf: np.ndarray


def visits_of(leaves: np.ndarray) -> Visits:
    """Return visits from a row of leaves for each vector: int32 (n, m), -1 for none."""
    row, place = np.nonzero(leaves != -1)
    return Visits(row, leaves[row, place])


def routes_of(leaves: np.ndarray, margins: np.ndarray) -> Routes:
    """Return goals from a row of leaves for each vector, home first.

    leaves  : int32 (n, m)
    margins : float32 (n, m), nan for what is no goal
    """
    row, place = np.nonzero(~np.isnan(margins))
    return Routes(len(leaves), row, leaves[row, place], margins[row, place], place == 0)


def reach_for(goals: Routes, probes: float) -> float:
    """Return the margin up to which leaves are visited, so that vectors visit so many on average, home included."""
    others = goals.margin[~goals.home]
    visits = round(goals.n_rows * (probes - 1))
    if visits == 0:
        return -1.0
    return float(np.partition(others, visits - 1)[visits - 1]) if visits <= len(others) else float("inf")


def within(goals: Routes, reach: float) -> Routes:
    """Return the goals that vectors go to: home, and what is within reach."""
    return goals.take(goals.home | (goals.margin <= np.float32(reach)))
