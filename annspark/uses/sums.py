"""Sums that do not depend on the order in which Spark meets the rows."""

from pyspark.sql import Column
from pyspark.sql import functions as F


def sum_in_order(numbers: Column) -> Column:
    """Return an aggregate: the sum of a group's numbers, double, the smallest first.

    Rounding makes other sums depend on how the data is partitioned, and with them which of two equal scores is first.
    For groups of few rows, because each is put into an array.
    """
    return sum_of(F.sort_array(F.collect_list(numbers.cast("double"))))


def sum_of(numbers: Column) -> Column:
    """Return the sum of an array of doubles, from its beginning."""
    return F.aggregate(numbers, F.lit(0.0), lambda total, one: total + one)
