"""The arguments of callers: check that a table is a DataFrame of a running session, and find columns by name."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from annspark.errors import InputError
from annspark.tables import quoted

_ROWS = 'spark.createDataFrame(rows, "user_id bigint, vector array<double>")'


def require_table(given: object, role: str = "input") -> DataFrame:
    """Return the argument if it is a DataFrame of a running session; else InputError, which says how to get one."""
    kinds = type(given).__mro__
    # On Spark 3.5 a DataFrame of Connect is not an instance of the classic class.
    connected = any(
        (kind.__module__, kind.__name__) == ("pyspark.sql.connect.dataframe", "DataFrame") for kind in kinds
    )
    if not isinstance(given, DataFrame) and not connected:
        raise InputError(f"{role}: this is {_named(given)}, and a Spark DataFrame is wanted. {_way_from(given)}")
    table: DataFrame = given  # type: ignore[assignment]
    # Checked first, because every call on a table of a stopped session fails.
    if _is_stopped(table.sparkSession):
        raise InputError(
            f"{role}: the Spark session this DataFrame belongs to has been stopped. Start one "
            "(SparkSession.builder.getOrCreate()) and read the table again with it."
        )
    if table.isStreaming:
        raise InputError(
            f"{role}: this is a streaming DataFrame, and one that ends is wanted. Read it with spark.read "
            "(spark.read.table), or call annspark on the batches that writeStream.foreachBatch hands out."
        )
    return table


def find_column(table: DataFrame, name: str, role: str = "input") -> T.StructField | None:
    """Return the column of a name; None when there is none, InputError for two.

    Capitals count where the session's spark.sql.caseSensitive is true.
    """
    exact = str(table.sparkSession.conf.get("spark.sql.caseSensitive")).lower() == "true"
    found = [field for field in table.schema.fields if field.name == name or (not exact and _alike(field.name, name))]
    if len(found) > 1:
        names = " and ".join(repr(field.name) for field in found)
        raise InputError(
            f"{role}: {len(found)} columns are named {name!r} ({names}), as after a join. Drop all but one of them, or "
            "rename them."
        )
    return found[0] if found else None


def select_candidates(table: DataFrame, column: str | None) -> DataFrame:
    """Return the rows that may be neighbors: those with true in a boolean column, all where none is named.

    Raises InputError where there is no such column, or it is of another type.
    """
    if column is None:
        return table
    field = find_column(table, column)
    if field is None:
        there = shown(table.columns)
        raise InputError(f"input: no column {shown([column])}; there are {there}. Name the right one as candidate_col.")
    if not isinstance(field.dataType, T.BooleanType):
        raise InputError(
            f"input: column {column!r} is {field.dataType.simpleString()}; candidate_col must be a boolean column. "
            "Rows with true may be neighbors. Make one, for example by a comparison."
        )
    return table.where(F.col(quoted(column)))


def inside_of(table: DataFrame, name: str) -> str:
    """Return a sentence on how to select a field of a struct that was named like a column; "" for other names."""
    outer, dot, inner = name.partition(".")
    kind = next((field.dataType for field in table.schema.fields if _alike(field.name, outer)), None)
    if not dot or not isinstance(kind, T.StructType):
        return ""
    column = name.rpartition(".")[2]
    return (
        f" It may be the field {inner!r} of the struct {outer!r}: select it under a name of its own first, "
        f'vectors.withColumn("{column}", F.col("{name}")), and name that.'
    )


def shown(names: list[str]) -> str:
    """Return names of columns as a message shows them: at most 30 names of at most 80 characters."""
    quoted_names = [repr(name if len(name) <= 80 else name[:77] + "...") for name in names[:30]]
    return ", ".join(quoted_names) + (f" and {len(names) - 30:,} more" if len(names) > 30 else "")


def _alike(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def _is_stopped(session: SparkSession) -> bool:
    if getattr(session, "is_stopped", False):  # Connect
        return True
    try:
        session.range(1)  # makes a plan and runs nothing; a stopped classic session raises
    except Exception:
        return True
    return False


def _named(given: object) -> str:
    kind = type(given)
    if given is None or isinstance(given, str):
        return repr(given)
    library = kind.__module__
    known = "pyspark.pandas" if library.startswith("pyspark.pandas") else library.partition(".")[0]
    return f"a {kind.__name__}" if library == "builtins" else f"a {known} {kind.__name__}"


def _way_from(given: object) -> str:
    """Return a sentence on how to get a DataFrame from what was given."""
    kind = type(given)
    library, name = kind.__module__, kind.__name__
    if library.startswith("pyspark.pandas"):
        return "Call .to_spark() on it." if name == "DataFrame" else "Call .to_frame().to_spark() on it."
    if library.startswith("pandas"):
        if name == "DataFrame":
            return "Give spark.createDataFrame(it)."
        return "Make a pandas DataFrame with columns of ids and of vectors, and give spark.createDataFrame(frame)."
    if library.startswith(("polars", "pyarrow")):
        return (
            "Give spark.createDataFrame(table.to_pandas()), or write it to Parquet and give spark.read.parquet(path)."
        )
    if isinstance(given, str) or hasattr(given, "__fspath__"):
        return "Give spark.read.parquet(path), or spark.read.table(name)."
    if name == "GroupedData":
        return "Finish the grouping first, for example with .agg(F.first('vector').alias('vector'))."
    if library.startswith("pyspark") and name == "Column":
        return "Give the whole table, and name its columns with id_col and vector_col."
    if library.startswith("pyspark") and name.endswith("RDD"):
        return 'Call .toDF(["user_id", "vector"]) on it.'
    if library.startswith("numpy"):
        return f"Give {_ROWS}, with rows = [(i, row.tolist()) for i, row in enumerate(vectors)]."
    return f"Give {_ROWS}, or what spark.read.parquet(path) returns."
