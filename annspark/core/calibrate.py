"""Calibration: the recall that each number of probes would give, predicted from users whose exact neighbors are known.

A pair is compared when one of the two visits the home of the other.  So the homes of a user and its exact neighbors in
a grown forest decide, for every number of probes, which of these neighbors would be found.  Nothing need be shipped for
that.
Source: design from inverted-file indexes that learn their number of probes from held-out queries (Li et al. 2020,
SIGMOD), here for both ends of a pair.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from annspark.core.forest import Forest
from annspark.core.recall import mean_interval
from annspark.core.routes import Routes, reach_for
from annspark.core.vectors import Vectors, slice_rows

CALIBRATION_USERS = 1_000  # users whose exact neighbors are found: the recall is then known to about 0.005
MOST_PROBES = 1_000  # probes tried, at most
_STEPS = 16  # the numbers of probes tried are 2 ** (step / _STEPS)
_MORE = 2**0.5  # factor between the numbers of probes tried after the chosen ones missed the recall
_TREES = (1, 2, 4, 8)  # numbers of trees tried, for a forest that gains by trees
MOST_TREES = _TREES[-1]  # trees grown to choose from, for such a forest
REACH_SAMPLE = 5_000  # sampled vectors that are routed to find the reach of a number of probes
CountPairs = Callable[[Forest, float], float]  # the pairs compared for a vector in a forest with a number of probes


@dataclass(frozen=True)
class Prediction:
    """The recall predicted for a mean number of probes, and its 95 % interval."""

    probes: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """The probes chosen for the recall asked for, and the recall they are predicted to give.

    target    : the recall asked for
    probes    : mean number of leaves a vector goes to in each tree, its home included
    predicted : recall, with its 95 % interval from low to high
    users     : number of users it is predicted from
    curve     : predictions for all numbers of probes tried, ascending
    """

    target: float
    probes: float
    predicted: float
    low: float
    high: float
    users: int
    curve: tuple[Prediction, ...]


@dataclass(frozen=True)
class HomeDistances:
    """How far each user and each of its exact neighbors are from the home of the other.

    They are compared if one visits the home of the other in some tree, so there are two ways a tree, in the order of
    the trees: the user visits the neighbor's home, and the other way round.  A vector visits a leaf if fewer leaves
    are nearer than it may go to at most, and the leaf's margin is within reach.

    Queries, which are nobody's neighbors, go one way: the query visits the neighbor's home.

    exists        : bool (n_users, k), False where a user has fewer neighbors
    leaves_nearer : int32 (n_users, k, trees * ways), how many leaves are nearer to the one than the home of the other
    margins       : float32 (n_users, k, trees * ways), distance of the one to the boundary with the home of the other;
                    SAME_LEAF, which is less than any reach, where both have one home
    ways          : ways a tree: 2, or 1 for queries
    """

    exists: np.ndarray
    leaves_nearer: np.ndarray
    margins: np.ndarray
    ways: int = 2

    def first(self, n_trees: int) -> "HomeDistances":
        """Return the distances in the first trees only."""
        ways = slice(0, self.ways * n_trees)
        return replace(self, leaves_nearer=self.leaves_nearer[..., ways], margins=self.margins[..., ways])

    def of_tree(self, tree: int) -> tuple[np.ndarray, np.ndarray]:
        """Return leaves_nearer and margins in one tree: (n_users, k, ways)."""
        ways = slice(self.ways * tree, self.ways * (tree + 1))
        return self.leaves_nearer[..., ways], self.margins[..., ways]

    def routes(self, forest: Forest, sample: Vectors, probes: float) -> list[Routes]:
        """Return the routes of vectors like those that these distances belong to."""
        return (forest.find_routes if self.ways == 2 else forest.find_query_routes)(sample, probes)


def choose(
    grown: Forest,
    sample: Vectors,
    home_distances: HomeDistances,
    recall_asked: float,
    *,
    trees: int | None,
    count_pairs: CountPairs,
) -> tuple[Forest, Calibration]:
    """Return the trees and the probes that reach the recall asked for with the least work.

    grown  : all trees there are to choose from
    sample : as for choose_probes
    trees  : how many to take; None for as many as the recall needs
    """
    if trees is None and grown.gains_by_trees:
        return choose_trees(grown, sample, home_distances, recall_asked, count_pairs)
    forest = grown.first(trees or len(grown.sizes))
    return forest, choose_probes(forest, sample, home_distances.first(len(forest.sizes)), recall_asked)


def choose_trees(
    forest: Forest, sample: Vectors, home_distances: HomeDistances, recall_asked: float, count_pairs: CountPairs
) -> tuple[Forest, Calibration]:
    """Return the first few trees that reach the recall asked for by the fewest pairs, and their calibration.

    Where no number of trees does, those of the highest predicted recall.
    """
    tried = []
    for n_trees in (n for n in _TREES if n <= len(forest.sizes)):
        first = forest.first(n_trees)
        calibration = choose_probes(first, sample, home_distances.first(n_trees), recall_asked)
        reaches = calibration.low >= recall_asked or calibration.predicted == 1
        pairs = count_pairs(first, calibration.probes)
        tried.append((not reaches, pairs if reaches else -calibration.predicted, n_trees, first, calibration))
    *_, first, calibration = min(tried, key=lambda one: one[:3])
    return first, calibration


def choose_probes(forest: Forest, sample: Vectors, home_distances: HomeDistances, recall_asked: float) -> Calibration:
    """Return the fewest probes whose predicted recall is at least the one asked for, by the lower end of its interval.

    Where none are, the fewest whose predicted recall is 1, or else the most there are.  The audit then measures whether
    they reach it.

    sample : n_sample vectors, prepared, in an order that is a function of the seed; they are routed to find the reach
             of a number of probes
    """
    routed = slice_rows(sample, 0, REACH_SAMPLE)
    most = min(MOST_PROBES, forest.most_probes(routed))
    predicted: dict[float, Prediction] = {}

    def reaches(probes: float) -> bool:
        if probes not in predicted:
            predicted[probes] = _predict(forest, routed, home_distances, probes)
        # At a predicted recall of 1 the lower end depends on the number of users alone: more probes cannot raise it.
        return predicted[probes].low >= recall_asked or predicted[probes].mean == 1

    chosen = predicted[fewest_probes(reaches, most)]
    reaches(min(2 * chosen.probes, most))  # for the curve, to show what more probes would give
    curve = {one.probes: one for _, one in sorted(predicted.items())}
    return Calibration(
        target=recall_asked,
        probes=chosen.probes,
        predicted=chosen.mean,
        low=chosen.low,
        high=chosen.high,
        users=len(home_distances.exists),
        curve=tuple(curve.values()),
    )


def fewest_probes(reaches: Callable[[float], bool], most: float) -> float:
    """Return the fewest probes that reach something, of the numbers tried; where none do, the most.

    reaches : says whether a number of probes does; where one does, all larger ones do
    """
    low, high = -1, 0
    while not reaches(_probes_of(high, most)) and _probes_of(high, most) < most:
        low, high = high, high + _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(_probes_of(middle, most)) else (middle, high)
    return _probes_of(high, most)


def _probes_of(step: int, most: float) -> float:
    return min(2.0 ** (step / _STEPS), most)


def find_compared(forest: Forest, routed: Vectors, home_distances: HomeDistances, probes: float) -> np.ndarray:
    """Return which of the users' exact neighbors would be compared with them: bool (n_users, k).

    routed : sampled vectors that are routed to find the reach of the probes
    """
    found, most = np.zeros(home_distances.exists.shape, bool), forest.most_leaves(probes)
    for tree, routes in enumerate(home_distances.routes(forest, routed, probes)):
        leaves_nearer, margins = home_distances.of_tree(tree)
        found |= ((leaves_nearer < most) & (margins <= np.float32(reach_for(routes, probes)))).any(axis=-1)
    return found & home_distances.exists


def _predict(forest: Forest, routed: Vectors, home_distances: HomeDistances, probes: float) -> Prediction:
    found = find_compared(forest, routed, home_distances, probes)
    n_neighbors = home_distances.exists.sum(axis=1)
    # The recall of a user without neighbors is 1.
    by_user = np.where(n_neighbors > 0, found.sum(axis=1) / np.maximum(n_neighbors, 1), 1.0)
    mean, low, high = mean_interval(by_user, int(n_neighbors.max()))
    return Prediction(probes=round(probes, 3), mean=mean, low=low, high=high)


def suggest_settings(
    forest: Forest,
    sample: Vectors,
    home_distances: HomeDistances,
    chosen: tuple[Calibration, int],
    measured: float | None,
) -> tuple[float, int] | None:
    """Return probes and trees that should reach a recall that was missed, or is predicted to be; None if none should.

    forest   : with all trees that were grown, which may be more than were chosen
    sample   : as for choose_probes
    chosen   : the calibration, and its number of trees
    measured : the recall that the audit measured with them; None before the audit
    """
    calibration, n_trees = chosen
    routed = slice_rows(sample, 0, REACH_SAMPLE)
    # If twice as many neighbors were missed as predicted, the same is assumed of more probes.  If no number of probes
    # reaches the recall then, the last one tried is returned whose uncorrected prediction does.
    missed, expected = 1 - (calibration.predicted if measured is None else measured), 1 - calibration.predicted
    factor = max(1.0, missed / expected) if expected > 0 else np.inf
    last = None
    for n in [n_trees, *(n for n in _TREES if n_trees < n <= len(forest.sizes))]:
        some = forest.first(n)
        most = min(float(MOST_PROBES), some.most_probes(routed))
        probes = calibration.probes if n == n_trees else max(1.0, calibration.probes / 2)
        while probes < most:
            probes = min(_MORE * probes, most)
            mean = _predict(some, routed, home_distances.first(n), probes).mean
            if (1 - mean) * factor <= 1 - calibration.target if mean < 1 else np.isfinite(factor):
                return round(probes, 3), n
            if mean >= calibration.target:
                last = round(probes, 3), n
    return last if measured is not None else None
