"""MLlib's struct without its type: dense and sparse vectors in one column, made dense."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annspark.input.check import REASONS, Judged, check_rows


def check_structs(ids: pa.Array, structs: pa.Array, metric: str) -> Judged:
    """Judge a batch of MLlib's structs as check_rows does dense vectors.

    structs : struct<size int, indices list<int64>, values list<double>>, nulls allowed everywhere; of dense vectors all
              indices. MLlib itself would not have made one whose indices are not as many as its values, or lie outside
    """
    size, indices, values = (pc.struct_field(structs, name) for name in ("size", "indices", "values"))
    nothing = (structs.is_null().to_numpy(False)) | (values.is_null().to_numpy(False))
    many, of_indices = (pc.fill_null(pc.list_value_length(one), 0).to_numpy(False) for one in (values, indices))
    length = np.maximum(pc.fill_null(size, -1).to_numpy(False), -1).astype(np.int64)
    column = indices.flatten().to_numpy(zero_copy_only=False).astype(np.float64)  # null is NaN
    owner = np.repeat(np.arange(len(ids)), of_indices)
    outside = np.zeros(len(ids), bool)
    outside[owner[~((column >= 0) & (column < length[owner]))]] = True
    wrong = np.where(many != of_indices, REASONS.index("uneven"), 0)
    wrong = np.where((wrong == 0) & (outside | (length < 0)), REASONS.index("bad_index"), wrong)
    wrong[nothing] = 0
    good = (wrong == 0) & ~nothing
    # A row that is wrong brings a NaN, so that no vector comes of it.
    length = np.where(good, length, (wrong > 0).astype(np.int64))
    start = np.cumsum(length) - length
    flat = np.zeros(length.sum())
    kept = np.repeat(good, many)
    place = start[np.repeat(np.arange(len(ids)), many)[kept]] + column[np.repeat(good, of_indices)].astype(np.int64)
    flat[place] = values.flatten().to_numpy(zero_copy_only=False)[kept]
    flat[start[wrong > 0]] = np.nan
    offsets = np.append(start, length.sum()).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(nothing))
    reason, vectors = check_rows(ids, lists, metric)
    return np.where((wrong > 0) & (reason == REASONS.index("nan")), wrong, reason).astype(np.int8), vectors
