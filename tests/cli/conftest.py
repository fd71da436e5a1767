import pytest

from tests.cli.builds import ROWS
from tests.helpers import clustered, make_table


@pytest.fixture(scope="module")
def inputs(spark, tmp_path_factory):
    """Return a folder with the tables good and bad."""
    folder = tmp_path_factory.mktemp("inputs")
    good = make_table(spark, clustered(ROWS))
    good.write.parquet(str(folder / "good"))
    bad = spark.createDataFrame([(9000, None), (9001, [0.0] * 16), (3, [1.0] * 16)], good.schema)
    good.union(bad).write.parquet(str(folder / "bad"))
    return folder
