"""Array operations that NumPy lacks."""

from collections.abc import Iterator

import numpy as np


def places_in_groups(counts: np.ndarray) -> np.ndarray:
    """Number the members of consecutive groups from 0 in each group.

    counts  : int (n_groups,), members of each group
    returns : int (sum of counts,); counts of [3, 1, 2] give [0, 1, 2, 0, 0, 1]
    """
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Return the different numbers of an array (n,), ascending.

    np.unique of NumPy 2.3 and newer hashes them, which takes 16 times as long for 53,000 numbers of which 2,000 differ,
    and 120 times as long for 4,500,000 that all differ.
    """
    ordered = np.sort(numbers)
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def order_of(numbers: np.ndarray, below: int) -> np.ndarray:
    """Return the order of small numbers, equal ones as they are: int (n,).

    Numbers of 16 bits are sorted by radix: 1,000,000 below 8 take 5 ms and not 22, below 2,000 8 ms and not 53.

    numbers : int (n,), in [0, below)
    """
    kind = np.uint16 if below <= 1 << 16 else numbers.dtype
    return np.argsort(numbers.astype(kind, copy=False), kind="stable")


def ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers in some ranges, one range after the other.

    first   : int (n,), where each begins
    counts  : int (n,), how many numbers it has
    returns : int (sum of counts,); first of [4, 0] and counts of [2, 3] give [4, 5, 0, 1, 2]
    """
    numbers = np.repeat(first - (np.cumsum(counts) - counts), counts)
    numbers += np.arange(len(numbers))
    return numbers


def members_of(groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return where the members of some consecutive groups are, one group after the other.

    groups  : int (m,), the groups
    counts  : int (n_groups,), members of each group
    returns : int (members of these,); groups of [2, 0] and counts of [3, 1, 2] give [4, 5, 0, 1, 2]
    """
    return ranges((np.cumsum(counts) - counts)[groups], counts[groups])


def sort_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort pairs of integers by the first, then by the second.

    first, second : int (n,), in [0, 2**31)
    returns       : int32 (n,) each
    """
    keys = first.astype(np.int64)
    keys <<= 32
    keys |= second
    keys.sort()
    second = keys.astype(np.int32)
    keys >>= 32
    return keys.astype(np.int32), second


def are_in(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return which numbers are among others: bool (n,).

    wanted : int64 (m,), ascending
    """
    if len(wanted) == 0:
        return np.zeros(len(numbers), bool)
    return wanted[np.searchsorted(wanted, numbers).clip(max=len(wanted) - 1)] == numbers


def looked_up(numbers: np.ndarray, named: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the value of each number: (n,), 0 for one that has none.

    named  : int64 (m,), numbers, each once
    values : (m,), of these
    """
    order = np.argsort(named, kind="stable")
    found = np.zeros(len(numbers), values.dtype)
    here = are_in(numbers, named[order])
    found[here] = values[order][np.searchsorted(named[order], numbers[here])]
    return found


def stretches(sizes: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Yield stretches of consecutive things whose sizes together are at most the given one, or of a single thing."""
    before, start = np.concatenate([[0], np.cumsum(sizes)]), 0
    while start < len(sizes):
        end = max(start + 1, int(np.searchsorted(before, before[start] + most, side="right")) - 1)
        yield start, end
        start = end
