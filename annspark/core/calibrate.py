"""Calibrate: what recall every number of probes would give, from where exact neighbors fall in a grown forest.

A pair of neighbors is met when one of the two visits the home of the other.  For a few users whose exact neighbors are
known, that says for every number of probes which of their neighbors would be found, before anything is shipped.
Source: design from inverted-file indexes that learn their number of probes from held-out queries (Li et al. 2020,
SIGMOD), here for both ends of a pair.
"""

from dataclasses import dataclass

import numpy as np

from annspark.core.forest import Forest
from annspark.core.plan import expect_pairs
from annspark.core.recall import mean_interval
from annspark.core.routes import reach_for
from annspark.core.vectors import Vectors, slice_rows

CALIBRATED = 1_000  # users whose exact neighbors are found: some 0.005 either way
MOST_PROBES = 1_000
_STEPS = 16  # numbers of probes tried between one and its double
_MORE = 2**0.5  # times the probes that did not do, how many are tried to tell what would
_TREES = (1, 2, 4, 8)  # numbers of trees of columns that are tried
MOST_TREES = _TREES[-1]
_SHOWN = 5_000  # sampled vectors that tell the reach of a number of probes


@dataclass(frozen=True)
class Prediction:
    """Recall predicted for a mean number of probes, and its 95 % interval."""

    probes: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """The recall asked for, the probes chosen for it, and what they are predicted to give.

    users : whose exact neighbors told
    curve : predictions for other numbers of probes, ascending
    """

    target: float
    probes: float
    predicted: float
    low: float
    high: float
    users: int
    curve: tuple[Prediction, ...]


@dataclass(frozen=True)
class Chances:
    """The ways in which pairs of a user and an exact neighbor may be met: in each tree, either may visit the other.

    exists  : bool (n_users, k), False where a user has fewer neighbors
    ranks   : int32 (n_users, k, ways), leaves that are nearer to where the one looks than the home of the other
    margins : float32 (n_users, k, ways), distance of the one to the boundary with the home of the other; less than
              any reach where both live in one leaf
    """

    exists: np.ndarray
    ranks: np.ndarray
    margins: np.ndarray

    def first(self, n_trees: int) -> "Chances":
        """Return the chances in the first trees."""
        ways = slice(0, 2 * n_trees)
        return Chances(self.exists, self.ranks[..., ways], self.margins[..., ways])


def choose(
    grown: Forest, sample: Vectors, chances: Chances, target: float, *, trees: int | None, rows: int
) -> tuple[Forest, Calibration]:
    """Return the trees and the probes that reach a recall with the least work.

    grown  : all trees there are to choose from
    sample : as for choose_probes
    trees  : how many to take; None for as many as the recall needs
    rows   : how many vectors there are in all
    """
    if trees is None and grown.gains_by_trees:
        return choose_trees(grown, sample, chances, target, rows)
    forest = grown.first(trees or len(grown.sizes))
    return forest, choose_probes(forest, sample, chances.first(len(forest.sizes)), target)


def choose_trees(
    forest: Forest, sample: Vectors, chances: Chances, target: float, rows: int
) -> tuple[Forest, Calibration]:
    """Return the first few trees that find enough by the fewest pairs, and what choose_probes says of them.

    rows : how many there are in all
    """
    tried = []
    for n_trees in (n for n in _TREES if n <= len(forest.sizes)):
        first = forest.first(n_trees)
        found = choose_probes(first, sample, chances.first(n_trees), target)
        clears = found.low >= target or found.predicted == 1
        pairs = expect_pairs(first, sample, found.probes, rows)
        tried.append((not clears, pairs if clears else -found.predicted, n_trees, first, found))
    *_, first, found = min(tried, key=lambda one: one[:3])
    return first, found


def choose_probes(forest: Forest, sample: Vectors, chances: Chances, target: float) -> Calibration:
    """Return the fewest probes, of a grid, whose predicted recall clears the target with its lower bound.

    Where none does, the fewest that are predicted to miss nothing, or the most there are: the audit will tell.

    sample : n_sample vectors, prepared, in an order that is a function of the seed; they tell the reach of probes
    """
    shown = slice_rows(sample, 0, _SHOWN)
    most = min(MOST_PROBES, forest.most_probes(shown))
    predicted: dict[int, Prediction] = {}

    def clears(step: int) -> bool:
        if step not in predicted:
            predicted[step] = _predict(forest, shown, chances, min(2.0 ** (step / _STEPS), most))
        # Where nothing is missed, more probes have nothing to add, whatever so few users can prove.
        return predicted[step].low >= target or predicted[step].mean == 1

    low, high = -1, 0
    while not clears(high) and 2.0 ** (high / _STEPS) < most:
        low, high = high, high + _STEPS
    clears(high + _STEPS)  # to show what more would give
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if clears(middle) else (middle, high)
    chosen = predicted[high]
    curve = {one.probes: one for _, one in sorted(predicted.items())}
    n_users = len(chances.exists)
    return Calibration(target, chosen.probes, chosen.mean, chosen.low, chosen.high, n_users, tuple(curve.values()))


def _predict(forest: Forest, shown: Vectors, chances: Chances, probes: float) -> Prediction:
    met, most = np.zeros(chances.exists.shape, bool), forest.candidates(probes)
    for tree, goals in enumerate(forest.find_routes(shown, probes)):
        reach = np.float32(reach_for(goals, probes))
        ways = slice(2 * tree, 2 * tree + 2)
        met |= ((chances.ranks[..., ways] < most) & (chances.margins[..., ways] <= reach)).any(axis=-1)
    n_neighbors = chances.exists.sum(axis=1)
    # Who has no neighbor has nothing to miss.
    by_user = np.where(n_neighbors > 0, (met & chances.exists).sum(axis=1) / np.maximum(n_neighbors, 1), 1.0)
    mean, low, high = mean_interval(by_user, int(n_neighbors.max()))
    return Prediction(round(probes, 3), mean, low, high)


def settings_to_meet(
    forest: Forest, sample: Vectors, chances: Chances, chosen: tuple[Calibration, int], measured: float | None
) -> tuple[float, int] | None:
    """Return probes and trees that should reach a target that was, or will be, missed; None where there are none.

    forest   : with all trees that were grown, which may be more than were chosen
    sample   : as for choose_probes
    chosen   : the calibration, and with how many trees
    measured : recall that its probes were found to give; None when it has still to be seen
    """
    goal, n_trees = chosen
    shown = slice_rows(sample, 0, _SHOWN)
    # Who misses twice what was predicted is taken to do so with more probes, too; if that cannot help, the most may.
    missed, expected = 1 - (goal.predicted if measured is None else measured), 1 - goal.predicted
    factor = max(1.0, missed / expected) if expected > 0 else np.inf
    last = None
    for n in [n_trees, *(n for n in _TREES if n_trees < n <= len(forest.sizes))]:
        some = forest.first(n)
        most = min(float(MOST_PROBES), some.most_probes(shown))
        probes = goal.probes if n == n_trees else max(1.0, goal.probes / 2)
        while probes < most:
            probes = min(_MORE * probes, most)
            mean = _predict(some, shown, chances.first(n), probes).mean
            if (1 - mean) * factor <= 1 - goal.target if mean < 1 else np.isfinite(factor):
                return round(probes, 3), n
            if mean >= goal.target:
                last = round(probes, 3), n
    return last if measured is not None else None
