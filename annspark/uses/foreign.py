"""Foreign: what another system found, as a neighbor table of annspark."""

import numpy as np
import pyarrow as pa
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError, reason_of, spark_errors_explained
from annspark.input.given import require_table, shown
from annspark.output.layout import Layout, laid_out
from annspark.spark.arrow import OUT_ROWS, distribute, to_lists
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.pairs import neighbor_lists


@spark_errors_explained()
def from_table(
    table: DataFrame,
    *,
    user: str | Column = USER_ID,
    neighbor: str | Column = NEIGHBOR_ID,
    distance: str | Column = DISTANCE,
    inner_product: str | Column | None = None,
    same_ids: bool = True,
) -> DataFrame:
    """Return a table of another system as a neighbor table: user_id, neighbors (neighbor_id, distance), nearest first.

    table         : a row per pair, such as the result of NEAREST BY, or a row per user with arrays
    user          : name of the column of users' ids, or a Column. A name may lead into structs: "datasetA.id"
    neighbor      : that of neighbors' ids, or of arrays of them: "prediction.neighbor" of array<struct<neighbor, ...>>
    distance      : that of distances, the smallest first, or of arrays of them. Of similarities: 1 - F.col("score")
    inner_product : in place of distance, that of inner products, the largest first
    same_ids      : ids of users and neighbors name the same things. Nobody is then their own neighbor

    Left out are pairs without an id or a finite distance, and all but the nearest of several pairs of the same two ids.
    Ids and distances are taken as they are: nothing is computed from vectors.

    Raises InputError for columns that are missing or of unusable types.
    """
    table = require_table(table, "neighbors")
    value, told = (DISTANCE, distance) if inner_product is None else (INNER_PRODUCT, inner_product)
    given = {USER_ID: user, NEIGHBOR_ID: neighbor, value: told}
    try:  # a classic session fails at select, Connect at schema
        named = table.select(*(_column(one).alias(name) for name, one in given.items()))
        nested = isinstance(named.schema[NEIGHBOR_ID].dataType, T.ArrayType)
    except AnalysisException as error:
        raise InputError(
            f"neighbors: {reason_of(error).partition(' SQLSTATE')[0].rstrip('.')}. There are the columns "
            f"{shown(table.columns)}: name those of users, neighbors and distances."
        ) from error
    if nested:
        named = named.select(USER_ID, F.arrays_zip(NEIGHBOR_ID, value).alias(NEIGHBORS))
    return laid_out(neighbor_lists(named, same_ids=same_ids), Layout(USER_ID, long=False, value=value))


@spark_errors_explained()
def from_arrays(
    spark: SparkSession,
    indices: np.ndarray,
    distances: np.ndarray,
    *,
    ids: np.ndarray | None = None,
    neighbor_ids: np.ndarray | None = None,
    inner_product: bool = False,
) -> DataFrame:
    """Return the arrays of a library as a neighbor table: user_id, neighbors (neighbor_id, distance), nearest first.

    indices       : int (n, k), which rows the neighbors of each row are; negative for none
    distances     : numbers (n, k). faiss' IndexFlatL2 gives squares: take np.sqrt of them
    ids           : (n,), ids of the rows. Default: their numbers
    neighbor_ids  : (m,), ids of the rows that indices count, where these are not the n. Default: ids
    inner_product : the numbers are inner products, the largest first

    A row is left out of its own list, unless neighbor_ids are given. The arrays go through the driver into Spark: write
    larger ones as Parquet, and use from_table.

    Raises InputError for arrays that do not fit together.
    """
    indices, distances = np.asarray(indices), np.asarray(distances)
    own = np.arange(len(indices)) if ids is None else np.asarray(ids)
    others = own if neighbor_ids is None else np.asarray(neighbor_ids)
    _require_fitting(indices, distances, own, others)
    kind = np.float32 if distances.dtype.itemsize <= 4 and distances.dtype.kind == "f" else np.float64
    exists = indices >= 0
    value = INNER_PRODUCT if inner_product else DISTANCE
    users, neighbors = pa.array(own), pa.array(others)
    schema = pa.schema(
        [(USER_ID, users.type), (NEIGHBOR_ID, pa.list_(neighbors.type)), (value, pa.list_(pa.from_numpy_dtype(kind)))]
    )
    batches = []
    for start in range(0, max(1, len(indices)), OUT_ROWS):
        part = slice(start, start + OUT_ROWS)
        lengths = exists[part].sum(axis=1)
        near = neighbors.take(pa.array(indices[part][exists[part]]))
        far = pa.array(distances[part][exists[part]].astype(kind))
        columns = [users[part], to_lists(near, lengths), to_lists(far, lengths)]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    products = INNER_PRODUCT if inner_product else None
    return from_table(distribute(spark, batches), inner_product=products, same_ids=neighbor_ids is None)


def _column(given: str | Column) -> Column:
    return F.col(given) if isinstance(given, str) else given


def _require_fitting(indices: np.ndarray, distances: np.ndarray, ids: np.ndarray, neighbor_ids: np.ndarray) -> None:
    if indices.ndim != 2 or indices.shape != distances.shape or indices.dtype.kind not in "iu":
        raise InputError(
            f"indices: {indices.dtype} {indices.shape} with distances {distances.dtype} {distances.shape}; both must "
            "have the shape (rows, k), and indices must be integers. faiss returns distances first: D, I."
        )
    if len(ids) != len(indices):
        raise InputError(f"ids: {len(ids):,} for {len(indices):,} rows of indices. Give one id for each row.")
    repeated = len(ids) - len(np.unique(ids))
    if repeated:
        raise InputError(f"ids: {repeated:,} of {len(ids):,} are repeated. Give each row an id of its own.")
    if indices.size and indices.max() >= len(neighbor_ids):
        raise InputError(
            f"indices: {indices.max():,} is the largest, and there are {len(neighbor_ids):,} rows to be neighbors. "
            "Where the neighbors are rows of another array, give their ids as neighbor_ids."
        )
