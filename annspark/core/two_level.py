"""Nearest of very many centres: first the nearest groups of centres, then the centres of those groups."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from annspark.core.nearest import bounds_of, few_at_most, in_order, nearest_centres, scoring_rows, slack_of

_TWO_LEVELS = 10_000  # centres from which on groups pay
# Homes that are those of the flat search, 23,000 leaves: GloVe 99.7 %, clustered synthetic vectors 99.98 %; with 8
# groups 97 and 99.9 %.
_NEAREST_GROUPS = 24
_STEPS = 2  # Lloyd steps; runs of the tree as they are would need twice the groups
_WIDTH = 256  # vectors of one product, padded to as many


@dataclass(frozen=True)
class Groups:
    """Centres, in about as many groups as each has members when they are many, in none when they are few.

    centres : float32 (n_centres, dim)
    means   : float32 (n_groups, dim), the mean of each group's centres
    members : one int (n_members,) a group, the numbers of its centres
    scoring : one float32 (n_members or some more, dim + 1) a group, the scoring_rows of its centres
    """

    centres: np.ndarray
    means: np.ndarray
    members: list[np.ndarray]
    scoring: list[np.ndarray]


def group_centres(centres: np.ndarray) -> Groups:
    """Group centres that come in tree order: runs of the tree, relaxed.

    centres : float32 (n_centres, dim)
    """
    n = len(centres)
    if n < _TWO_LEVELS:
        return Groups(centres, centres[:0], [], [])
    members = np.array_split(np.arange(n), round(n**0.5))
    for _ in range(_STEPS):
        group = nearest_centres(centres, _means(centres, members), 1)[:, 0]
        order = np.argsort(group, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return Groups(centres, _means(centres, members), members, [scoring_rows(centres[rows]) for rows in members])


def _means(centres: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    return np.stack([centres[rows].mean(axis=0) for rows in members])


def nearest_grouped(vectors: np.ndarray, groups: Groups, m: int) -> np.ndarray:
    """Return the m nearest centres of each vector among those of its nearest groups, nearest first, ties by number.

    Among few centres, in no groups, this is nearest_centres.  A vector's answer does not depend on the other vectors.

    vectors : float32 (n, dim)
    returns : int32 (n, m), m <= n_centres
    """
    if not groups.members:
        return nearest_centres(vectors, groups.centres, m)
    # As many at once as first_of_each has bits for; more than some thousands save nothing.
    step = 1 << min(14, 32 - len(groups.centres).bit_length())
    found = np.empty((len(vectors), m), np.int32)
    for start in range(0, len(vectors), step):
        found[start : start + step] = _nearest_grouped(vectors[start : start + step], groups, m)
    return found


def _nearest_grouped(vectors: np.ndarray, groups: Groups, m: int) -> np.ndarray:
    n = len(vectors)
    goals = nearest_centres(vectors, groups.means, min(_NEAREST_GROUPS, len(groups.means)))
    # Padding scores inf, which no limit lets through.
    limit = np.full(n, np.finfo(np.float32).max)
    found = []
    # A bound of the m-th score in a vector's nearest group is a limit that few scores of the other groups are within.
    for nearest, ranks in ((True, goals[:, :1]), (False, goals[:, 1:])):
        for who, centres, scores in _scores(vectors, ranks, groups):
            if nearest and len(centres) >= m:
                bound = bounds_of(scores, m)[: len(who)]
                limit[who] = bound + slack_of(vectors[who], bound)
            limits = np.full(_WIDTH, -np.inf, np.float32)
            limits[: len(who)] = limit[who]
            row, column, score = few_at_most(scores, limits)
            found.append((who[column], score, centres[row]))
    vector, score, centre = (np.concatenate(part) for part in zip(*found, strict=True))
    answer, count = in_order(vectors, groups.centres, (vector, score, centre), m)
    short = np.flatnonzero(count < m)
    answer[short] = nearest_centres(vectors[short], groups.centres, m)
    return answer


def _scores(
    vectors: np.ndarray, goals: np.ndarray, groups: Groups
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Score vectors against the groups they go to, a group at a time.

    goals  : int32 (n, n_goals), groups
    yields : int (n_some,), vectors that go to a group; int (n_members,), its centres; float32 (n_members and padding,
             _WIDTH), their scores, overwritten by the next
    """
    order = np.argsort(goals, axis=None, kind="stable")
    cut = np.searchsorted(goals.ravel()[order], np.arange(len(groups.members) + 1))
    going = order // max(1, goals.shape[1])
    extended = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
    right = np.ones((_WIDTH, extended.shape[1]), np.float32)
    scratch = np.empty((max(map(len, groups.scoring)), _WIDTH), np.float32)
    for group, left in enumerate(groups.scoring):
        scores = scratch[: len(left)]
        for start in range(cut[group], cut[group + 1], _WIDTH):
            who = going[start : min(start + _WIDTH, cut[group + 1])]
            np.take(extended, who, axis=0, out=right[: len(who)], mode="clip")
            np.matmul(left, right.T, out=scores)
            yield who, groups.members[group], scores
