"""Diameters of groups, beside SciPy's shortest paths."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path

from annspark.core import hops
from annspark.core.hops import diameters


def connected_links(rng, size: int) -> np.ndarray:
    """Return links that connect rows 0, 1, ...: a random tree, and some more."""
    tree = np.array([(row, rng.integers(row)) for row in range(1, size)])
    more = rng.integers(size, size=(int(rng.integers(2 * size)), 2))
    return np.vstack([tree, more[more[:, 0] != more[:, 1]]])


def longest(links: np.ndarray) -> int:
    size = links.max() + 1
    graph = coo_matrix((np.ones(len(links)), links.T), (size, size)).tocsr()
    return int(shortest_path(graph, directed=False, unweighted=True).max())


@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_diameters_are_the_longest_of_the_shortest_paths(cells, monkeypatch):
    monkeypatch.setattr(hops, "_CELLS", cells)
    rng = np.random.default_rng(0)
    each = [connected_links(rng, int(size)) for size in rng.integers(2, 12, 60)]
    each += [np.array([(i, i + 1) for i in range(30)])]  # a chain
    names = [rng.permutation(1000)[: links.max() + 1] for links in each]  # rows of several groups may have one number
    groups = np.repeat(np.arange(len(each)), [len(links) for links in each])
    ends = np.vstack([name[links] for name, links in zip(names, each, strict=True)])
    order = rng.permutation(len(groups))
    assert diameters(groups[order], ends[order]).tolist() == [longest(links) for links in each]


def test_no_group_has_no_diameter():
    assert len(diameters(np.empty(0, int), np.empty((0, 2), int))) == 0
