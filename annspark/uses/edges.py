"""Edges: a neighbor table as the edges of a graph."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from annspark.allowed import OneOf, Setting
from annspark.errors import SettingsError, spark_errors_explained
from annspark.output.finish import HIGH, LOW, linked_once
from annspark.output.layout import negated
from annspark.tables import DISTANCE, INNER_PRODUCT, NEIGHBOR_ID, NEIGHBORS, USER_ID
from annspark.uses.pairs import neighbor_lists, value_in

LINKS = Setting("directed", OneOf(("directed", "mutual", "either")), "Which pairs count.")


@spark_errors_explained()
def to_edges(
    neighbors: DataFrame, *, links: str = "directed", id_col: str = USER_ID, same_ids: bool = True
) -> DataFrame:
    """Return a neighbor table as the edges of a graph: src, dst, weight.

    neighbors : a neighbor table in either shape, of annspark or of from_table
    links     : directed: an edge from every user to each of its neighbors. mutual: an edge for each two users who list
                each other. either: an edge for each two users of whom one lists the other. These two have every pair
                once, with src < dst
    id_col    : the column of users
    same_ids  : ids of users and of neighbors name the same things, and nobody has an edge to itself. Set it to false
                for users and items; links is then directed
    returns   : src and dst (ids) and weight (double): 1 / (1 + distance), which is 1 for twins and falls with the
                distance, or the inner product as it is, which may be negative

    A user without edges has no row.

    Raises SettingsError for links that cannot be, and InputError for a table that cannot be used.
    """
    LINKS.require("links", links)
    if not same_ids and links != "directed":
        raise SettingsError(
            f"'links' is {links!r} and 'same_ids' is False. Items list no users: leave links at 'directed'."
        )
    value, lists = value_in(neighbors, id_col), neighbor_lists(neighbors, id_col, same_ids)
    if links == "directed":
        pairs = lists.select(USER_ID, F.explode(NEIGHBORS).alias("neighbor")).select(USER_ID, "neighbor.*")
    else:
        pairs = linked_once(lists, links)
    src, dst = (USER_ID, NEIGHBOR_ID) if links == "directed" else (LOW, HIGH)
    distance = F.col(DISTANCE).cast("double")
    weight = negated(distance) if value == INNER_PRODUCT else 1 / (1 + distance)
    return pairs.select(F.col(src).alias("src"), F.col(dst).alias("dst"), weight.alias("weight"))
