"""Source: find the columns of ids and vectors, which may be of many types, and give them common names and types."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.core.metric import METRICS
from annspark.errors import InputError, Unlike
from annspark.input.given import find_column, inside_of, shown
from annspark.settings import Settings, names_in
from annspark.spark.arrow import Batches
from annspark.spark.block import seeded_hash
from annspark.spark.types import WHOLE, is_collated
from annspark.tables import USER_ID, VECTOR, quoted

HASH, GROUP, INDICES, VALUES, MLLIB, MLLIB_DENSE = "hash", "group", "indices", "values", "mllib", "mllib_dense"
SPARSE_METRICS = tuple(name for name, facts in METRICS.items() if facts.sparse)
_ID_TYPES = (
    *(T.ByteType, T.ShortType, T.IntegerType, T.LongType, T.StringType, T.BinaryType),
    *(T.DecimalType, T.DateType, T.TimestampType, T.TimestampNTZType),
)
_EXACT = 2.0**53  # whole numbers below are exact in a double
_NUMBERS = (*WHOLE, T.FloatType, T.DoubleType, T.DecimalType)

Form = tuple[str, ...]  # names of the columns that hold the vector of a row


@dataclass(frozen=True)
class Source:
    """The input under common names.

    table   : user_id, hash (bigint), the columns of each form, one form after the other, and group (bigint) where
              neighbors are looked for within groups
    forms   : how each vector of a row is held, one of
              vector          : array<float>, array<double>, or binary of bits, 8 to a byte
              mllib_dense     : MLlib's struct without its type, with dense and sparse vectors
              indices, values : array<bigint>, array<double>, of sparse rows
              indices         : array<bigint>, of sets
              mllib           : MLlib vectors, read as sparse rows; no SQL function returns their indices
    weights : of the vectors of a row, which are put together; () where a row has one vector, taken as it is
    sparse  : whether vectors are staged as sparse rows
    """

    table: DataFrame
    forms: tuple[Form, ...]
    weights: tuple[float, ...]
    sparse: bool

    @property
    def grouped(self) -> bool:
        """Whether vectors have groups."""
        return GROUP in self.table.columns

    @property
    def even(self) -> bool:
        """Whether vectors are given with all their numbers, so that all of a column must have the same length."""
        return _is_even(self.forms[0])

    @property
    def n_lengths(self) -> int:
        """How many lengths a row has: one for each vector that is given with all its numbers, else a single one."""
        return len(self.forms) if self.even else 1


def open_source(vectors: DataFrame, settings: Settings, sparse: bool | None = None, role: str = "input") -> Source:
    """Find the columns; InputError, which names the role of the table, when one is missing or of an unusable type.

    sparse : whether vectors must be sparse rows, as those that they are compared with; None for either
    """
    types: dict[str, T.DataType] = {}
    names: dict[str, str] = {}
    for setting, name in _named_columns(settings):
        field = find_column(vectors, name, role)
        if field is None:
            there = shown(vectors.columns)
            hint = inside_of(vectors, name) or f" Name the right one with {_option(setting, role)}."
            raise InputError(f"{role}: no column {shown([name])}; there are {there or 'none'}.{hint}")
        if field.name in names:
            raise InputError(
                f"{role}: {names[field.name]!r} and {name!r} are one column, {field.name!r}. Name two columns."
            )
        types[name], names[field.name] = field.dataType, name
    if not isinstance(types[settings.id_col], _ID_TYPES):
        raise InputError(
            f"{role}: column {settings.id_col!r} is {types[settings.id_col].simpleString()}; ids may be integers, "
            "decimals, strings, binary, dates or timestamps. Cast it."
        )
    user_id = F.col(quoted(settings.id_col))
    if is_collated(types[settings.id_col]):
        user_id = user_id.cast(T.StringType())  # within the run ids are equal only when their bytes are
    parts = _parts_of(vectors, types, settings, sparse, role)
    found = [not _is_even(tuple(part)) or METRICS[settings.metric].sets for part in parts]
    kinds = ("dense, arrays of all numbers", "sparse, indices and values")
    for name, is_sparse in zip(settings.vector_names, found, strict=True):
        column = f"{role}: column {name!r} is {types[name].simpleString()}"
        if sparse is not None and is_sparse != sparse:
            raise Unlike(
                f"{column}: these vectors are {kinds[is_sparse]}, and those they are compared with are "
                f"{kinds[sparse]}. Give both in one form."
            )
        if is_sparse and settings.metric not in SPARSE_METRICS:
            raise InputError(
                f"{column}: sparse vectors, which can be compared by {', '.join(SPARSE_METRICS)}, not by "
                f"{settings.metric}. Choose one of these, or give arrays of all numbers."
            )
        if is_sparse != found[0]:
            first = settings.vector_names[0]
            raise InputError(
                f"{column}: these vectors are {kinds[is_sparse]}, and those of {first!r} are {kinds[found[0]]}. Give "
                "all vector_cols in one form. Maps of all numbers make dense vectors sparse, and slow to compare."
            )
    named = [column.alias(f"{name}_{i}") for i, part in enumerate(parts) for name, column in part.items()]
    if settings.within:
        named.append(_group(vectors, settings.within, role).alias(GROUP))
    hashed = seeded_hash(user_id, settings.seed)
    return Source(
        table=vectors.select(user_id.alias(USER_ID), hashed.alias(HASH), *named),
        forms=tuple(map(tuple, parts)),
        weights=tuple(map(float, (settings.vector_cols or {}).values())),
        sparse=found[0],
    )


def _is_even(form: Form) -> bool:
    return bool({VECTOR, MLLIB_DENSE} & set(form))


def _named_columns(settings: Settings) -> list[tuple[str, str]]:
    """Return the columns that are read, each after the setting that names it."""
    of_vectors = "vector_col" if settings.vector_cols is None else "vector_cols"
    named = [("id_col", settings.id_col), *((of_vectors, name) for name in settings.vector_names)]
    return named if settings.values_col is None else [*named, ("values_col", settings.values_col)]


def _group(vectors: DataFrame, within: str, role: str) -> Column:
    """Return a number that stands for the values of the columns of groups; null is a value of its own."""
    parts = []
    for name in names_in(within):
        field = find_column(vectors, name, role)
        if field is None:
            there = shown(vectors.columns)
            hint = "Groups are those of the index" if role == "queries" else "Name the right one with --within"
            raise InputError(f"{role}: no column {shown([name])}; there are {there}. {hint}.")
        if isinstance(field.dataType, T.ArrayType | T.MapType | T.StructType | T.BinaryType):
            raise InputError(
                f"{role}: column {name!r} is {field.dataType.simpleString()}, and groups are made of texts, numbers, "
                "dates and booleans. Make such a column of it."
            )
        column = F.col(quoted(name))
        parts += [column.isNull(), _text_of(column, field.dataType)]  # Spark's hash skips nulls
    return F.xxhash64(*parts)


def _text_of(column: Column, kind: T.DataType) -> Column:
    """Return the text by which groups are compared: the same for equal values in two tables and two sessions.

    Numbers are equal in all types that hold them.  A timestamp is its microseconds since 1970, as its text depends on
    the time zone of the session.  A collation counts as none.
    """
    if isinstance(kind, T.TimestampType):
        return F.unix_micros(column).cast("string")
    text, whole = column.cast("string"), F.floor(column)
    if isinstance(kind, T.FloatType | T.DoubleType):  # -0.0 becomes 0
        return F.when((F.abs(column) < _EXACT) & (whole == column), whole.cast("string")).otherwise(text)
    if isinstance(kind, T.DecimalType) and kind.scale:
        fraction = F.regexp_replace(text, r"(\.[0-9]*?)0+$", "$1")
        return F.when(whole == column, whole.cast("string")).otherwise(fraction)
    return text.cast(T.StringType()) if is_collated(kind) else text


def _option(setting: str, role: str) -> str:
    """Return the flag and the argument that name a column of the table with this role."""
    own = f"candidate_{setting}"
    name = own if role == "candidates" and own in Settings.__dataclass_fields__ else setting
    return f"--{name.replace('_', '-')} ({name})"


def _parts_of(
    vectors: DataFrame, types: dict[str, T.DataType], settings: Settings, sparse: bool | None, role: str
) -> list[dict[str, Column]]:
    """Return the columns of each vector of a row, by their names in a form.

    MLlib vectors can be read as dense ones and as sparse rows.  They are read as the other columns are; where there are
    no others, as sparse rows if each of them would be by itself.
    """
    names = settings.vector_names
    if sparse is None and len(names) > 1:
        others = [name for name in names if not _is_mllib(types[name])]
        alone = (_vector_columns(vectors, types, name, settings, None, role) for name in others or names)
        sparse = not any(_is_even(tuple(columns)) for columns in alone)
    return [_vector_columns(vectors, types, name, settings, sparse, role) for name in names]


def _is_mllib(kind: T.DataType) -> bool:
    return type(kind).__name__ == "VectorUDT" or (isinstance(kind, T.StructType) and _is_mllib_struct(kind))


def _vector_columns(
    vectors: DataFrame, types: dict[str, T.DataType], name: str, settings: Settings, sparse: bool | None, role: str
) -> dict[str, Column]:
    kind, column = types[name], F.col(quoted(name))
    item = kind.elementType if isinstance(kind, T.ArrayType) else None
    if settings.values_col is not None:
        values = types[settings.values_col]
        if isinstance(item, WHOLE) and isinstance(values, T.ArrayType) and isinstance(values.elementType, _NUMBERS):
            return _sparse(column, F.col(quoted(settings.values_col)))
        raise InputError(
            f"{role}: columns {name!r} and {settings.values_col!r} are {kind.simpleString()} and "
            f"{values.simpleString()}; indices are arrays of integers, values arrays of numbers. Cast them."
        )
    if isinstance(kind, T.MapType) and isinstance(kind.keyType, WHOLE) and isinstance(kind.valueType, _NUMBERS):
        return _sparse(F.map_keys(column), F.map_values(column))
    if isinstance(kind, T.StructType) and _is_mllib_struct(kind):
        return _struct_columns(vectors, column, kind, settings.metric, sparse)
    if isinstance(kind, T.StructType) and {INDICES, VALUES} <= set(kind.names):
        inner = [kind[name].dataType for name in (INDICES, VALUES)]
        lists = [field.elementType for field in inner if isinstance(field, T.ArrayType)]
        if len(lists) == 2 and isinstance(lists[0], WHOLE) and isinstance(lists[1], _NUMBERS):
            return _sparse(column[INDICES], column[VALUES])
    if type(kind).__name__ == "VectorUDT":
        return _mllib_columns(vectors, column, settings.metric, sparse)
    if isinstance(item, WHOLE) and METRICS[settings.metric].sets:
        return {INDICES: column.cast("array<bigint>")}
    if isinstance(item, (*_NUMBERS, T.BooleanType)):
        return {VECTOR: column if isinstance(item, T.FloatType | T.DoubleType) else column.cast("array<double>")}
    if isinstance(kind, T.BinaryType) and METRICS[settings.metric].binary:
        return {VECTOR: column}
    raise InputError(
        f"{role}: column {name!r} is {kind.simpleString()}; vectors may be arrays of numbers or "
        "booleans, MLlib vectors, and binary (of bits) for hamming and jaccard; sparse ones maps from integers to "
        "numbers, structs of two arrays `indices` and `values`, two columns of arrays (values_col), or arrays of "
        "integers, the members of sets, for jaccard. Cast it."
    )


def _sparse(indices: Column, values: Column) -> dict[str, Column]:
    return {INDICES: indices.cast("array<bigint>"), VALUES: values.cast("array<double>")}


def _mllib_columns(vectors: DataFrame, column: Column, metric: str, sparse: bool | None) -> dict[str, Column]:
    """Return the column of MLlib vectors: as sparse rows where the metric allows that and they are smaller.

    All vectors are counted, because VectorAssembler mixes dense and sparse ones, and the type is the same for both.
    """
    from pyspark.ml.functions import vector_to_array

    if _become_sparse(vectors, column, metric, sparse):
        return {MLLIB: column}
    return {VECTOR: F.when(column.isNotNull(), vector_to_array(column))}  # vector_to_array refuses null


def _is_mllib_struct(kind: T.StructType) -> bool:
    """Say whether a struct has the fields of MLlib's vectors, whose type is lost in JSON and with other writers.

    JSON has no column for a field that is null in every row: dense vectors alone have only type and values.
    """
    types = {field.name: field.dataType for field in kind.fields}
    whole = [types.get(name, T.NullType()) for name in ("type", "size")]
    lists = {name: kind.elementType for name, kind in types.items() if isinstance(kind, T.ArrayType)}
    return (
        set(types) <= {"type", "size", INDICES, VALUES}
        and "type" in types
        and all(isinstance(kind, (*WHOLE, T.NullType)) for kind in whole)
        and isinstance(lists.get(VALUES), _NUMBERS)
        and (isinstance(types.get(INDICES, T.NullType()), T.NullType) or isinstance(lists.get(INDICES), WHOLE))
    )


def _struct_columns(
    vectors: DataFrame, column: Column, kind: T.StructType, metric: str, sparse: bool | None
) -> dict[str, Column]:
    """Return the columns of MLlib's struct: as sparse rows where the metric allows that and they are smaller."""
    values = column[VALUES].cast("array<double>")
    if not {INDICES, "size"} <= set(kind.names) or isinstance(kind[INDICES].dataType, T.NullType):
        return {VECTOR: values}
    is_dense = (column["type"] == 1) | column[INDICES].isNull()
    indices = F.when(is_dense, _positions(values)).otherwise(column[INDICES].cast("array<bigint>"))
    size = F.when(is_dense, F.size(values)).otherwise(column["size"]).cast("int")
    completed = F.struct(size.alias("size"), indices.alias(INDICES), values.alias(VALUES))
    completed = F.when(column.isNotNull(), completed)
    if _become_sparse(vectors, completed, metric, sparse):
        return _sparse(indices, values)
    return {MLLIB_DENSE: completed}


def _become_sparse(vectors: DataFrame, column: Column, metric: str, sparse: bool | None) -> bool:
    """Say whether MLlib vectors are read as sparse rows."""
    if METRICS[metric].sets or sparse is not None:
        return METRICS[metric].sets or bool(sparse)
    return METRICS[metric].sparse and _are_mostly_zeros(vectors, column)


def _are_mostly_zeros(vectors: DataFrame, column: Column) -> bool:
    """Say whether MLlib vectors store less than half of their numbers.

    Sparse rows are smaller only then, because they store an index with every number.
    """

    def count(batches: Batches) -> Batches:
        for batch in batches:
            kept = pc.list_value_length(pc.struct_field(batch.column(0), VALUES))
            size = pc.coalesce(pc.struct_field(batch.column(0), "size"), kept)
            sums = (pa.array([pc.sum(counts).as_py()], pa.int64()) for counts in (kept, size))
            yield pa.RecordBatch.from_arrays(list(sums), ["kept", "size"])

    counted = vectors.select(column.alias(MLLIB)).mapInArrow(count, "kept long, size long")
    kept, size = counted.agg(F.sum("kept"), F.sum("size")).collect()[0]
    return 2 * (kept or 0) < (size or 0)


def type_of_ids(vectors: DataFrame, settings: Settings, role: str = "input") -> T.DataType:
    """Return the type of a table's ids, which the published ids have too."""
    field = find_column(vectors, settings.id_col, role)
    return field.dataType if field else T.NullType()


def _positions(values: Column) -> Column:
    """Return 0, 1, ... for an array's items."""
    return F.when(F.size(values) > 0, F.sequence(F.lit(0), F.size(values) - 1)).otherwise(F.array().cast("array<int>"))
