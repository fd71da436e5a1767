"""Recommendations, beside a brute-force count in Python."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from annspark import InputError, SettingsError
from annspark.uses import recommend
from tests.uses.tables import as_pairs, as_table

TAKEN = "user_id bigint, item_id string"


def rows_by_user(table, own_only=True):
    found = defaultdict(list)
    for row in sorted(table.collect(), key=lambda row: (row["user_id"], row["rank"])):
        if not (own_only and row["fallback"]):
            found[row["user_id"]].append(row)
            assert row["rank"] == len(found[row["user_id"]])
    return dict(found)


def scores_by_definition(neighbors, taken, similarity, popularity):
    """Return of each user the items that neighbors took and the user did not: {user: {item: (score, neighbors)}}.

    neighbors : {user: [(neighbor, distance)]}
    taken     : {user: {item: strength}}
    """
    takers = Counter(item for items in taken.values() for item in items)
    found = {}
    for user, others in neighbors.items():
        weights = {other: similarity(far) for other, far in others}
        total, scores, count = sum(weights.values()), Counter(), Counter()
        for other, weight in weights.items():
            for item, strength in taken.get(other, {}).items():
                if item not in taken.get(user, {}) and weight > 0:
                    scores[item] += weight / total * strength / takers[item] ** popularity
                    count[item] += 1
        if scores:
            found[user] = {item: (score, count[item]) for item, score in scores.items()}
    return found


@pytest.fixture(scope="module")
def world():
    """Return distances, numbers of neighbors and what users took; some took nothing, some items everybody's."""
    rng = np.random.default_rng(7)
    numbers = np.array([rng.choice(np.delete(np.arange(80), user), 6, replace=False) for user in range(80)])
    distances = np.sort(rng.uniform(0, 1.2, (80, 6)), axis=1)
    popular = rng.zipf(1.5, 2000) % 40
    taken = defaultdict(dict)
    for user, item in zip(rng.integers(70, size=2000), popular, strict=True):
        taken[int(user)][f"i{item:02}"] = float(rng.integers(1, 5))
    return distances, numbers, dict(taken)


@pytest.mark.parametrize(
    ("asked", "similarity"),
    [
        ({}, lambda far: max(0.0, 1 - far)),
        ({"weights": "inverse", "popularity": 0.5, "strength_col": "times"}, lambda far: 1 / (1 + far)),
        ({"weights": "uniform", "popularity": 1, "fallback": False}, lambda far: 1.0),
    ],
)
def test_recommendations_are_those_counted_one_by_one(spark, world, asked, similarity):
    distances, numbers, taken = world
    rows = [(user, item, n) for user, items in taken.items() for item, n in items.items()]
    halves = [(user, item, n / 2) for user, item, n in rows] * 2
    interactions = spark.createDataFrame(halves, f"{TAKEN}, times double")
    found = recommend(as_table(spark, distances, numbers), interactions, k=5, **asked)
    lists = {user: list(zip(*both, strict=True)) for user, both in enumerate(zip(numbers, distances, strict=True))}
    counted = taken if "strength_col" in asked else {user: dict.fromkeys(items, 1.0) for user, items in taken.items()}
    expected = scores_by_definition(lists, counted, similarity, asked.get("popularity", 0))
    ours = rows_by_user(found.table)
    assert ours.keys() == expected.keys()
    for user, items in expected.items():
        best = sorted((score for score, _ in items.values()), reverse=True)[:5]
        assert [row["score"] for row in ours[user]] == pytest.approx(best)
        for row in ours[user]:
            assert (row["score"], row["neighbors"]) == pytest.approx(items[row["item_id"]])
    facts = found.report.facts
    assert (facts["users"], facts["cold"], facts["nothing_new"]) == (80, 0, 80 - len(expected))
    assert facts["short"] == 80 - sum(len(items) >= 5 for items in expected.values())
    assert facts["items"] == len({item for items in taken.values() for item in items})
    assert facts["recommended_items"] == len({row["item_id"] for rows in ours.values() for row in rows})
    filled = rows_by_user(found.table, own_only=False)
    assert sum(map(len, filled.values())) - sum(map(len, ours.values())) == facts["filled"]
    if asked.get("fallback", True):
        assert all(len(rows) == min(5, 40 - len(taken.get(user, {}))) for user, rows in filled.items())
    found.table.unpersist()


def test_cold_users_get_popular_items_that_they_have_not_taken(spark):
    table = as_pairs(spark, [("a", "b", 0.5)], "user_id string, neighbor_id string, distance float")
    rows = [("a", 1), ("b", 1), ("b", 2), ("c", 1), ("c", 3), ("d", 3), ("d", None), (None, 4), ("b", 2)]
    interactions = spark.createDataFrame(rows, "user_id string, item_id int")
    found = recommend(table, interactions, k=2)
    told = {tuple(row) for row in found.table.collect()}
    assert told == {
        ("a", 1, 2, 1.0, 1, False),
        ("a", 2, 3, None, 0, True),  # three users took 1 and two took 3
        ("b", 1, 3, None, 0, True),
        ("c", 1, 2, None, 0, True),
        ("d", 1, 1, None, 0, True),
        ("d", 2, 2, None, 0, True),
    }
    assert found.report.facts == {
        **{"users": 4, "cold": 2, "nothing_new": 1, "short": 4, "filled": 5},
        **{"items": 3, "recommended_items": 1},
    }
    assert "2 of 4 users have no neighbors" in found.report.warnings[0]
    found.table.unpersist()


def test_larger_inner_products_count_more_and_negative_ones_not(spark):
    table = as_pairs(spark, [(1, 2, 3.0), (1, 3, 1.0), (1, 4, -5.0)]).withColumnRenamed("distance", "inner_product")
    interactions = spark.createDataFrame([(2, "x"), (3, "y"), (4, "z"), (1, "w")], TAKEN)
    found = recommend(table, interactions, fallback=False)
    assert {(row["item_id"], row["score"]) for row in rows_by_user(found.table)[1]} == {("x", 0.75), ("y", 0.25)}
    found.table.unpersist()
    with pytest.raises(SettingsError, match="'weights' is 'inverse', and the table has inner products"):
        recommend(table, interactions, weights="inverse")


def test_empty_tables_give_no_recommendations(spark):
    found = recommend(as_pairs(spark, []), spark.createDataFrame([], TAKEN))
    assert found.table.columns == ["user_id", "rank", "item_id", "score", "neighbors", "fallback"]
    assert found.table.count() == found.report.facts["users"] == 0
    found.table.unpersist()


def test_what_does_not_belong_together_is_refused(spark):
    table = as_pairs(spark, [(1, 2, 7.5)])
    with pytest.raises(SettingsError, match=r"distances up to 7.5, as euclidean has them. Set 'weights' to 'inverse'"):
        recommend(table, spark.createDataFrame([], TAKEN))
    with pytest.raises(InputError, match="interactions: the ids in 'user_id' are string, and those of the neighbor"):
        recommend(table, spark.createDataFrame([], "user_id string, item_id string"))
    with pytest.raises(InputError, match="interactions: no column 'item_id'; there are 'user_id', 'item'"):
        recommend(table, spark.createDataFrame([], "user_id bigint, item string"))
    with pytest.raises(InputError, match="interactions: 'times' is string, and it must be a number"):
        recommend(table, spark.createDataFrame([], f"{TAKEN}, times string"), strength_col="times")
    endless = spark.createDataFrame([(2, "x", float("inf"))], f"{TAKEN}, times double")
    with pytest.raises(InputError, match="interactions: a strength is inf, and it must be finite"):
        recommend(table, endless, strength_col="times", weights="uniform")
