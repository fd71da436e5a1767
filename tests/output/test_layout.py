import pytest
from chispa import assert_df_equality

from annspark.errors import AnnsparkError
from annspark.output.layout import count_users, laid_out, layout_of, lists_in, require_complete
from annspark.settings import Settings

NESTED = "user_id int, neighbors array<struct<neighbor_id: int, distance: float>>"
LONG = "user_id int, rank int, neighbor_id int, distance float"


@pytest.fixture(scope="module")
def nested(spark):
    return spark.createDataFrame([(1, [(2, 0.25), (3, 0.5)]), (2, [(1, 0.25)]), (3, [])], NESTED).repartition(3)


@pytest.fixture(scope="module")
def long(spark):
    return spark.createDataFrame([(1, 1, 2, 0.25), (1, 2, 3, 0.5), (2, 1, 1, 0.25)], LONG).repartition(3)


def test_nested_is_one_row_a_user_under_the_given_name(nested):
    table = laid_out(nested, layout_of(Settings(id_col="who. is `it`")))
    assert table.columns == ["who. is `it`", "neighbors"]
    assert sorted(table.collect()) == sorted(nested.collect())


def test_long_is_one_row_a_neighbor_ranked_from_one(nested, long):
    assert_df_equality(
        laid_out(nested, layout_of(Settings(shape="long"))), long, ignore_row_order=True, ignore_nullable=True
    )


def test_long_takes_any_column_name(nested):
    assert laid_out(nested, layout_of(Settings(shape="long", id_col="a.b c"))).columns == [
        "a.b c", "rank", "neighbor_id", "distance",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", ["nested", "long"])
@pytest.mark.parametrize("id_col", ["user_id", "who. is it"])
def test_lists_are_read_from_both_shapes(nested, shape, id_col):
    settings = Settings(shape=shape, id_col=id_col)
    again = lists_in(laid_out(nested, layout_of(settings)), layout_of(settings)).collect()
    wanted = {1: ([2, 3], [0.25, 0.5]), 2: ([1], [0.25])} | ({3: ([], [])} if shape == "nested" else {})
    assert {row["user_id"]: (row["neighbor_id"], row["distance"]) for row in again} == wanted


def test_a_user_counts_once_in_both_shapes(nested, long):
    assert count_users(nested, layout_of(Settings())) == 3
    assert count_users(long, layout_of(Settings(shape="long"))) == 2
    layout = layout_of(Settings(shape="long", id_col="who. is it"))
    assert count_users(laid_out(nested, layout), layout) == 2


@pytest.mark.parametrize("written", [3, 5])
def test_a_table_without_everybody_once_is_refused(written):
    require_complete(4, 4)
    with pytest.raises(AnnsparkError, match=f"{written} of 4 users are in the table, so nothing was published"):
        require_complete(written, 4)


def test_lists_of_both_shapes_come_nearest_first(spark):
    rows = [(1, rank, 100 - rank, rank / 8) for rank in range(1, 6)]
    long = spark.createDataFrame([rows[i] for i in (3, 0, 4, 2, 1)], LONG)
    (row,) = lists_in(long, layout_of(Settings(shape="long"))).collect()
    assert (row["neighbor_id"], row["distance"]) == ([99, 98, 97, 96, 95], [0.125, 0.25, 0.375, 0.5, 0.625])
    nested = spark.createDataFrame([(1, [(neighbor, distance) for _, _, neighbor, distance in rows])], NESTED)
    assert lists_in(nested, layout_of(Settings())).collect() == [row]
