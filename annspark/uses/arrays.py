"""Arrays: a neighbor table as NumPy arrays or as a sparse matrix of SciPy."""

from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import DataFrame

from annspark.allowed import Setting, Whole
from annspark.core.arrays import places_in_groups
from annspark.errors import InputError, spark_errors_explained
from annspark.tables import DISTANCE, USER_ID
from annspark.uses.driver import Numbered, fetch
from annspark.uses.edges import LINKS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_K = Setting(None, Whole(1, 10_000), "Columns of the arrays.")


@spark_errors_explained()
def to_arrays(
    neighbors: DataFrame, *, k: int | None = None, self_first: bool = False, id_col: str = USER_ID
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a neighbor table as NumPy arrays on the driver: ids, indices, distances.

    neighbors  : a neighbor table in either shape, of annspark or of from_table. Ids of users and neighbors name the
                 same things
    k          : columns of indices and distances, the own entry counted. Default: as many as the longest list needs
    self_first : the first column is the user itself, at distance 0, as umap-learn and pynndescent have it
    id_col     : the column of users
    returns    : ids (n,), of all users and all neighbors, ascending; row i is that of ids[i]
                 indices int64 (n, k), places in ids, the nearest first; -1 where there is no neighbor
                 distances float32 or float64 as in the table (n, k); inf where there is no neighbor. Of a table of
                 inner products they are these, the largest first, with -inf

    An id that is only a neighbor of others has a row without neighbors. A user without neighbors has one too, unless
    the table is long, where it does not occur.

    Raises SettingsError for a k that cannot be, InputError for a table that cannot be used or whose longest list is
    shorter than k needs, and ClusterError, before anything is collected, for one that does not fit the driver.
    """
    _K.require("k", k)
    own = int(self_first)
    found = fetch(neighbors, None if k is None else k - own, id_col, padded=True)
    if self_first:
        _require_distances(found, "self_first")
    counts = found.counts()
    longest = int(counts.max(initial=0))
    width = longest + own if k is None else k
    if longest + own < width:
        raise InputError(
            f"neighbors: k is {k}, which needs lists of {width - own} neighbors, and the longest has {longest}. Build "
            f"the table with k={width - own}, or ask for {longest + own} columns."
        )
    shape = len(found.ids), width
    indices = np.full(shape, -1, np.int64)
    distances = np.full(shape, np.inf if found.value == DISTANCE else -np.inf, found.values.dtype)
    if self_first:
        indices[:, 0], distances[:, 0] = np.arange(len(found.ids)), 0
    cells = found.rows, places_in_groups(counts) + own
    indices[cells], distances[cells] = found.columns, found.values
    return found.ids, indices, distances


@spark_errors_explained()
def to_csr(
    neighbors: DataFrame, *, links: str = "directed", with_self: bool = False, id_col: str = USER_ID
) -> tuple[np.ndarray, "csr_matrix"]:
    """Return a neighbor table as a sparse matrix on the driver: ids, matrix.

    neighbors : as for to_arrays
    links     : directed: entry (i, j) where i lists j. mutual: (i, j) and (j, i) where each lists the other. either:
                both where one lists the other
    with_self : every row has an entry on the diagonal, of 0
    id_col    : the column of users
    returns   : ids (n,), as of to_arrays; row i and column i are those of ids[i]
                matrix, a SciPy csr_matrix (n, n) of distances or inner products, in a row the nearest first and not in
                the order of columns. It is no csr_array, which scanpy does not take

    Distances of 0, those of twins, are entries as all others are. SciPy's eliminate_zeros, comparisons and the like
    lose them.

    Raises as to_arrays does, and SettingsError for other links. Needs SciPy.
    """
    from scipy.sparse import csr_matrix

    LINKS.require("links", links)
    found = fetch(neighbors, None, id_col, padded=False)
    rows, columns, values = found.rows, found.columns, found.values
    if links != "directed":
        rows, columns, values = _both_ways(found, links)
    if with_self:
        _require_distances(found, "with_self")
        own = np.arange(len(found.ids))
        rows, columns = np.append(rows, own), np.append(columns, own)
        values = np.append(values, np.zeros(len(own), values.dtype))
    far = values if found.value == DISTANCE else -values
    # The own entry comes before those of twins.
    order = np.lexsort((columns, columns != rows, far, rows))
    starts = np.append(0, np.cumsum(np.bincount(rows, minlength=len(found.ids))))
    shape = len(found.ids), len(found.ids)
    return found.ids, csr_matrix((values[order], columns[order], starts), shape=shape)


def _both_ways(found: Numbered, links: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows, columns and values of linked pairs, each pair in both directions and with one value.

    Where the two directions differ by rounding, the value is the nearer one.
    """
    low, high = np.minimum(found.rows, found.columns), np.maximum(found.rows, found.columns)
    far = found.values if found.value == DISTANCE else -found.values
    order = np.lexsort((far, high, low))
    low, high, values = low[order], high[order], found.values[order]
    first = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0)) if len(low) else np.empty(0, bool)
    if links == "mutual":
        first &= np.append(~first[1:], False)
    low, high, values = low[first], high[first], values[first]
    return np.append(low, high), np.append(high, low), np.append(values, values)


def _require_distances(found: Numbered, argument: str) -> None:
    if found.value != DISTANCE:
        raise InputError(
            f"neighbors: the table has inner products, and {argument} needs distances: the inner product of a user "
            f"with itself is not in the table. Leave out {argument}."
        )
