"""Groups of near-duplicates, beside SciPy's connected components and a look at every group."""

from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from annspark import InputError, SettingsError, build_neighbors
from annspark.spark.staging import staging
from annspark.uses import duplicates
from annspark.uses.components import connect
from annspark.uses.stars import split
from tests.helpers import make_table
from tests.uses.tables import as_pairs, as_table, exact_neighbors

LINKS = "low bigint, high bigint, distance double"


def components_of(links) -> dict:
    """Return the lowest row of each row's component."""
    ends = np.array([link[:2] for link in links])
    size = ends.max() + 1
    _, label = connected_components(coo_matrix((np.ones(len(ends)), ends.T), (size, size)).tocsr(), directed=False)
    lowest = {}
    for row in range(size):
        lowest.setdefault(label[row], row)
    return {row: lowest[label[row]] for row in np.unique(ends).tolist()}


def random_links(n: int, count: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    ends = {(min(pair), max(pair)) for pair in rng.integers(n, size=(count, 2)).tolist() if pair[0] != pair[1]}
    return [(low, high, float(rng.uniform())) for low, high in sorted(ends)]


@pytest.mark.parametrize(
    "links",
    [
        [(0, 1, 0.5), (2, 3, 0.5)],
        random_links(400, 260, seed=0),  # many small components
        random_links(300, 600, seed=1),  # one large one
        [(i, i + 1, 0.5) for i in range(100)],  # a chain
    ],
    ids=["pairs", "small", "large", "chain"],
)
def test_components_are_scipys(spark, tmp_path, links):
    with staging(str(tmp_path) if len(links) < 3 else None, spark) as stage:
        table, rounds = connect(spark.createDataFrame(links, LINKS).repartition(3), partial(stage, anew=True))
        found = {row["user_id"]: row["group"] for row in table.collect()}
    assert found == components_of(links)
    assert rounds <= 8


def test_rows_of_a_star_are_linked_to_its_centre_and_to_no_nearer_one(spark):
    links = random_links(120, 500, seed=2) + [(i, i + 1, 0.5) for i in range(200, 260)]
    with staging(None) as stage:
        found = split(spark.createDataFrame(links, LINKS), partial(stage, anew=True))
        group = {row["user_id"]: row["group"] for row in found.collect()}
    assert group.keys() == {row for link in links for row in link[:2]}
    near = defaultdict(dict)
    for low, high, far in links:
        near[low][high] = near[high][low] = far
    centres = {row for row, centre in group.items() if row == centre}
    assert not any(near[centre].keys() & centres for centre in centres)
    for row in group.keys() - centres:
        assert group[row] == min(near[row].keys() & centres, key=lambda centre: (near[row][centre], centre))


def rows_of(found):
    """Return the table of duplicates by row, having checked what holds in all groups."""
    rows = {row["user_id"]: row for row in found.table.collect()}
    assert len(rows) == found.table.count() == found.report.facts["grouped"]
    groups = defaultdict(list)
    for row in rows.values():
        groups[row["kept_id"]].append(row)
    for kept, members in groups.items():
        assert rows[kept]["keep"]
        assert rows[kept]["distance"] == 0
        assert [row["user_id"] for row in members if row["keep"]] == [kept]
        assert {row["group_size"] for row in members} == {len(members)}
        assert len({(row["linked"], row["diameter"]) for row in members}) == 1
    assert len(groups) == found.report.facts["groups"]
    return rows


def test_groups_of_random_points_are_those_of_their_close_pairs(spark):
    rng = np.random.default_rng(4)
    points = np.vstack([rng.uniform(0, 1, (300, 2)), np.repeat([[2.0, 2.0]], 5, axis=0)])
    distances, numbers = exact_neighbors(points, 10)
    close = [
        (min(row, other), max(row, other))
        for row, both in enumerate(zip(distances.tolist(), numbers.tolist(), strict=True))
        for far, other in zip(*both, strict=True)
        if far <= 0.03
    ]
    found = duplicates(as_table(spark, distances, numbers), max_distance=0.03, links="either")
    rows = rows_of(found)
    assert {row: told["kept_id"] for row, told in rows.items()} == components_of(close)
    facts = found.report.facts
    assert facts["links"] == len(set(close))
    assert facts["near"] == len(close)
    assert facts["to_leave_out"] == facts["grouped"] - facts["groups"] == sum(not row["keep"] for row in rows.values())
    assert sum(facts["sizes"].values()) == sum(facts["diameters"].values()) == facts["groups"]
    assert facts["chained"] == sum(row["distance"] is None for row in rows.values()) > 0
    assert facts["full"] == 0
    assert rows[300]["group_size"] == 5
    assert rows[300]["linked"] == rows[300]["diameter"] == 1
    found.table.unpersist()


def test_more_twins_than_neighbors_stay_in_one_group(spark):
    points = np.vstack([np.repeat([[1.0, 2.0, 3.0]], 40, axis=0), np.eye(3), [[1.0, 2.0, 3.5]]]).astype(np.float32)
    built = build_neighbors(make_table(spark, points), k=4, metric="cosine")
    found = duplicates(built.table, max_distance=0.0001)
    rows = rows_of(found)
    assert sorted(rows) == list(range(40))
    assert {row["kept_id"] for row in rows.values()} == {0}
    assert found.report.facts["full"] == 40
    assert "40 of 44 rows have k = 4 neighbors in the table, all within 0.0001" in found.report.warnings[0]
    for table in (built.table, found.table):
        table.unpersist()


@pytest.mark.parametrize(("links", "grouped"), [("mutual", [1, 2]), ("either", [1, 2, 3])])
def test_mutual_links_leave_out_who_is_not_near_for_the_other(spark, links, grouped):
    # 3 lists 2, whose own neighbors are nearer.  4 is not within the cut-off.
    pairs = [(1, 2, 0.1), (2, 1, 0.1), (3, 2, 0.3), (4, 3, 0.7), (3, 4, 0.7), (1, 3, 0.9), (5, 4, 0.0)]
    table = spark.createDataFrame(pairs[:6], "user_id bigint, neighbor_id bigint, distance double")
    found = duplicates(table, max_distance=0.5, links=links)
    assert sorted(rows_of(found)) == grouped
    found.table.unpersist()


def test_a_row_without_a_list_of_its_own_is_linked_by_those_that_list_it(spark):
    table = spark.createDataFrame([("b", "a", 0.1)], "user_id string, neighbor_id string, distance float")
    found = duplicates(table, max_distance=0.1)
    assert {row: told["kept_id"] for row, told in rows_of(found).items()} == {"a": "a", "b": "a"}
    assert rows_of(found)["b"]["distance"] == pytest.approx(0.1)
    found.table.unpersist()


def test_the_row_to_keep_is_the_lowest_the_most_central_or_the_one_preferred(spark):
    table = as_pairs(spark, [(1, 2, 0.1), (2, 3, 0.1), (3, 4, 0.2), (5, 6, 0.1)])
    likes = spark.createDataFrame([(3, 7), (4, 9), (1, None), (6, -1), (9, 1)], "user_id bigint, likes int")
    for asked, kept in [
        ({}, {1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 5}),
        ({"keep": "most_central"}, {1: 2, 2: 2, 3: 2, 4: 2, 5: 5, 6: 5}),
        (
            {"keep": "highest_priority", "priorities": likes, "priority_col": "likes"},
            {1: 4, 2: 4, 3: 4, 4: 4, 5: 6, 6: 6},
        ),
    ]:
        found = duplicates(table, max_distance=0.5, **asked)
        rows = rows_of(found)
        assert {row: told["kept_id"] for row, told in rows.items()} == kept
        assert (rows[1]["linked"], rows[1]["diameter"]) == (0.5, 3)
        assert (rows[5]["linked"], rows[5]["diameter"]) == (1.0, 1)
        assert found.report.facts["diameters"] == {"1": 1, "3": 1}
        assert found.report.facts["sizes"] == {"2": 1, "3 to 4": 1}
        found.table.unpersist()


def test_long_chains_are_split_and_short_ones_not(spark):
    chain = [(i, i + 1, 0.1) for i in range(60)] + [(100 + i, 101 + i, 0.1) for i in range(9)]
    found = duplicates(as_pairs(spark, chain), max_distance=0.2, max_group=10)
    rows = rows_of(found)
    assert {rows[100 + i]["kept_id"] for i in range(10)} == {100}
    assert rows[100]["diameter"] == 9
    assert all(row["group_size"] <= 3 and row["diameter"] <= 2 for name, row in rows.items() if name < 100)
    assert found.report.facts["split"] == 1
    assert "1 groups had more than 10 rows" in " ".join(found.report.warnings)
    found.table.unpersist()


def test_another_cut_off_needs_no_other_table(spark):
    table = as_pairs(spark, [(1, 2, 0.1), (2, 3, 0.2)])
    sizes = []
    for cut_off in (0, 0.1, 0.2, 0.3):
        found = duplicates(table, max_distance=cut_off)
        sizes.append(found.report.facts["grouped"])
        found.table.unpersist()
    assert sizes == [0, 2, 3, 3]
    assert "No pair in the table is farther than 0.2" in " ".join(found.report.warnings)


def test_an_empty_table_has_no_groups(spark):
    found = duplicates(as_pairs(spark, []), max_distance=1)
    assert found.table.columns == ["user_id", "kept_id", "keep", "distance", "group_size", "linked", "diameter"]
    assert found.table.count() == found.report.facts["groups"] == 0
    found.table.unpersist()


def test_what_cannot_be_grouped_is_refused(spark):
    table = as_pairs(spark, [(1, 2, 0.5)])
    with pytest.raises(SettingsError, match="'max_distance' not given"):
        duplicates(table)
    with pytest.raises(InputError, match="inner products, and duplicates needs distances"):
        duplicates(table.withColumnRenamed("distance", "inner_product"), max_distance=1)
    with pytest.raises(SettingsError, match="'keep' is 'highest_priority', and 'priorities' is not given"):
        duplicates(table, max_distance=1, keep="highest_priority")
    dates = spark.createDataFrame([], "user_id bigint, priority date")
    with pytest.raises(InputError, match="priorities: 'priority' is date, and it must be a number"):
        duplicates(table, dates, max_distance=1, keep="highest_priority")
