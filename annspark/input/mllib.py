"""MLlib vectors whose type was lost, so that they are structs: dense and sparse ones in one column, made dense."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annspark.input.check import REASONS, Judged, check_rows


def check_structs(ids: pa.Array, structs: pa.Array, metric: str) -> Judged:
    """Judge a batch of MLlib's structs as check_rows judges dense vectors.

    structs : struct<size int, indices list<int64>, values list<double>>, nulls allowed everywhere; a dense vector has
              all indices.  A struct with not as many indices as values, or with an index outside of 0..size-1, which
              MLlib itself does not make, is a bad row
    """
    size, indices, values = (pc.struct_field(structs, name) for name in ("size", "indices", "values"))
    is_null = (structs.is_null().to_numpy(False)) | (values.is_null().to_numpy(False))
    n_values, n_indices = (pc.fill_null(pc.list_value_length(lists), 0).to_numpy(False) for lists in (values, indices))
    length = np.maximum(pc.fill_null(size, -1).to_numpy(False), -1).astype(np.int64)
    column = indices.flatten().to_numpy(zero_copy_only=False).astype(np.float64)  # null is NaN
    owner = np.repeat(np.arange(len(ids)), n_indices)
    outside = np.zeros(len(ids), bool)
    outside[owner[~((column >= 0) & (column < length[owner]))]] = True
    wrong = np.where(n_values != n_indices, REASONS.index("uneven"), 0)
    wrong = np.where((wrong == 0) & (outside | (length < 0)), REASONS.index("bad_index"), wrong)
    wrong[is_null] = 0
    good = (wrong == 0) & ~is_null
    # A wrong row becomes a vector of one NaN, which check_rows rejects.
    length = np.where(good, length, (wrong > 0).astype(np.int64))
    start = np.cumsum(length) - length
    flat = np.zeros(length.sum())
    kept = np.repeat(good, n_values)
    place = start[np.repeat(np.arange(len(ids)), n_values)[kept]] + column[np.repeat(good, n_indices)].astype(np.int64)
    flat[place] = values.flatten().to_numpy(zero_copy_only=False)[kept]
    flat[start[wrong > 0]] = np.nan
    offsets = np.append(start, length.sum()).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(is_null))
    reason, vectors = check_rows(ids, lists, metric)
    return np.where((wrong > 0) & (reason == REASONS.index("nan")), wrong, reason).astype(np.int8), vectors
