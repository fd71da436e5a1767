"""The nearest of very many centres: first the nearest groups of centres, then the centres of those groups."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from annspark.core.arrays import order_of
from annspark.core.nearest_centres import (
    nearest_centres,
    nearest_of_entries,
    nearest_of_one,
    scoring_rows,
    slack_of,
)
from annspark.core.selection import few_at_most, upper_bounds

_TWO_LEVELS = 10_000  # fewer centres than that are not grouped, as groups would save nothing
# Groups that are searched.  Share of vectors for which the nearest centre of all 23,000 is found in them: GloVe 99.7 %,
# clustered synthetic vectors 99.98 %; with 8 groups 97 and 99.9 %.
_NEAREST_GROUPS = 24
# More centres than that are looked for among all: of 146 the groups of text embeddings held 87 %, and a build of
# 10,000,000 reached a recall of 0.923 where 0.957 was predicted.  It takes no longer: 40 us among 23,000 of 32 numbers.
MOST_WANTED = 24
# Centres are not grouped where too few of the nearest to a centre are in its nearest groups: of text embeddings they
# hold 97.4 to 98.5 %, of clustered synthetic vectors 99.3 to 99.5 %.
_ASKED, _NEAR, _FOUND = 500, 7, 0.99
_STEPS = 2  # Lloyd steps; without any, twice as many groups would have to be searched
_WIDTH = 256  # vectors of one product, which is padded to this width


@dataclass(frozen=True)
class Groups:
    """Centres in groups: about n_centres ** 0.5 groups, none where centres are few or groups would lose too many.

    centres : float32 (n_centres, dim)
    means   : float32 (n_groups, dim), the mean of each group's centres
    members : for each group int (n_members,), the numbers of its centres
    scoring : for each group float32 (n_members or some more, dim + 1), the scoring_rows of its centres
    """

    centres: np.ndarray
    means: np.ndarray
    members: list[np.ndarray]
    scoring: list[np.ndarray]


def group_centres(centres: np.ndarray) -> Groups:
    """Group centres: runs of consecutive ones at first, then improved by Lloyd steps; not where groups lose too many.

    centres : float32 (n_centres, dim), in tree order, so that consecutive ones are near each other
    """
    n = len(centres)
    if n < _TWO_LEVELS:
        return Groups(centres=centres, means=centres[:0], members=[], scoring=[])
    members = np.array_split(np.arange(n), round(n**0.5))
    for _ in range(_STEPS):
        group = nearest_centres(centres, _means(centres, members), 1)[:, 0]
        order = np.argsort(group, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    groups = Groups(
        centres=centres,
        means=_means(centres, members),
        members=members,
        scoring=[scoring_rows(centres[rows]) for rows in members],
    )
    return groups if _share_found(groups) >= _FOUND else Groups(centres, centres[:0], [], [])


def _share_found(groups: Groups) -> float:
    """Return the share of the nearest centres of some centres that the search in groups finds."""
    some = groups.centres[:: -(-len(groups.centres) // _ASKED)]
    found, nearest = nearest_grouped(some, groups, _NEAR), nearest_centres(some, groups.centres, _NEAR)
    return float((found[:, :, None] == nearest[:, None]).any(axis=1).mean())


def _means(centres: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    return np.stack([centres[rows].mean(axis=0) for rows in members])


def nearest_grouped(vectors: np.ndarray, groups: Groups, m: int) -> np.ndarray:
    """Return the m nearest centres of each vector among those of its nearest groups, nearest first, ties by number.

    Where centres are not grouped, all are searched.  They are, too, where many are wanted, but the first is that of the
    groups even then: it is the home of a vector, whatever m.  A vector's answer does not depend on others.

    vectors : float32 (n, dim)
    returns : int32 (n, m), m <= n_centres
    """
    if not groups.members:
        return nearest_centres(vectors, groups.centres, m)
    if m > MOST_WANTED:
        return _with_first(nearest_centres(vectors, groups.centres, m), nearest_grouped(vectors, groups, 1)[:, 0])
    # At once as many vectors as first_of_each has bits for; more than some thousands save nothing.
    step = 1 << min(14, 32 - len(groups.centres).bit_length())
    found = np.empty((len(vectors), m), np.int32)
    for start in range(0, len(vectors), step):
        found[start : start + step] = _nearest_grouped(vectors[start : start + step], groups, m)
    return found


def _with_first(found: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return centres with a given one put first, in place of the last where it is not among them: int32 (n, m)."""
    row = np.flatnonzero(found[:, 0] != first)
    taken = found[row] == first[row, None]
    taken[:, -1] |= ~taken.any(axis=1)
    found[row, 1:] = found[row][~taken].reshape(len(row), found.shape[1] - 1)
    found[row, 0] = first[row]
    return found


def top_scoring(groups: Groups) -> np.ndarray:
    """Return the scoring_rows of the means of groups, or of the centres where they are not grouped."""
    return scoring_rows(groups.means if groups.members else groups.centres)


def nearest_grouped_of_one(vector: np.ndarray, groups: Groups, m: int, top: np.ndarray) -> np.ndarray:
    """Return the m nearest centres of one vector: those of nearest_grouped, the nearest first, others in any order.

    vector  : float32 (dim,)
    top     : float32, top_scoring of the groups
    returns : int (m,), m <= n_centres
    """
    extended = np.empty(len(vector) + 1, np.float32)
    extended[:-1], extended[-1] = vector, 1
    scores = top @ extended
    if not groups.members:
        return nearest_of_one(vector, groups.centres, m, scores)
    if m > MOST_WANTED:
        return nearest_grouped(vector[None], groups, m)[0]
    searched = nearest_of_one(vector, groups.means, min(_NEAREST_GROUPS, len(groups.means)), scores).tolist()
    numbers = np.concatenate([groups.members[group] for group in searched])
    if len(numbers) < m:
        return nearest_centres(vector[None], groups.centres, m)[0]
    # Rows that pad a group's have no number.
    found = [(groups.scoring[group] @ extended)[: len(groups.members[group])] for group in searched]
    return nearest_of_one(vector, groups.centres, m, np.concatenate(found), numbers)


def _nearest_grouped(vectors: np.ndarray, groups: Groups, m: int) -> np.ndarray:
    n = len(vectors)
    near = nearest_centres(vectors, groups.means, min(_NEAREST_GROUPS, len(groups.means)))
    # A finite limit, since rows without a centre score inf.
    limit = np.full(n, np.finfo(np.float32).max)
    found = []
    # The nearest group of a vector comes first.  The bound of its m-th score there is the limit for the other groups,
    # of whose scores few are within.
    for nearest, searched in ((True, near[:, :1]), (False, near[:, 1:])):
        for some, centres, scores in _scores(vectors, searched, groups):
            if nearest and len(centres) >= m:
                bound = upper_bounds(scores, m)[: len(some)]
                limit[some] = bound + slack_of(vectors[some], bound)
            limits = np.full(_WIDTH, -np.inf, np.float32)
            limits[: len(some)] = limit[some]
            row, column, score = few_at_most(scores, limits)
            found.append((some[column], score, centres[row]))
    vector, score, centre = (np.concatenate(part) for part in zip(*found, strict=True))
    answer, count = nearest_of_entries(vectors, groups.centres, (vector, score, centre), m)
    short = np.flatnonzero(count < m)
    answer[short] = nearest_centres(vectors[short], groups.centres, m)
    return answer


def _scores(
    vectors: np.ndarray, searched: np.ndarray, groups: Groups
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the scores of vectors and the centres of the groups searched for them, a group at a time.

    searched : int32 (n, n_searched), groups of each vector
    yields   : int (n_some,), vectors that a group is searched for; int (n_members,), its centres; float32 (n_members
               and padding, _WIDTH), scores, which the next ones overwrite
    """
    order = order_of(searched.ravel(), len(groups.members))
    cut = np.searchsorted(searched.ravel()[order], np.arange(len(groups.members) + 1))
    vector = order // max(1, searched.shape[1])
    extended = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
    right = np.ones((_WIDTH, extended.shape[1]), np.float32)
    scratch = np.empty((max(map(len, groups.scoring)), _WIDTH), np.float32)
    for group, left in enumerate(groups.scoring):
        scores = scratch[: len(left)]
        for start in range(cut[group], cut[group + 1], _WIDTH):
            some = vector[start : min(start + _WIDTH, cut[group + 1])]
            np.take(extended, some, axis=0, out=right[: len(some)], mode="clip")
            np.matmul(left, right.T, out=scores)
            yield some, groups.members[group], scores
