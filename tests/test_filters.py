"""Filters: lists hold only those who may be neighbors, as many as there are, and the recall is of these."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark import InputError, RecallMissed, SettingsError, build_neighbors, fit, load, open_index
from annspark.cli import main
from annspark.core import calibrate
from annspark.core.calibrate import choose_probes
from annspark.flow import groups
from annspark.input.source import open_source
from annspark.saved.asked_groups import asked_groups
from annspark.saved.manifest import read_manifest
from annspark.settings import Settings
from tests import oracle
from tests.cli.builds import build
from tests.helpers import clustered, configured, lists_of, long_lists_of, make_table, read_report
from tests.test_metrics import table_of

N, K, QUICK = 900, 6, {"k": 6, "leaf_rows": 60, "audit_users": 300}
ROWS = clustered(N)
SLOW = pytest.mark.slow


def banned_pairs(far, *, greedy=(3, 4)):
    """Return bool (n, m): a third of the nearest of each row, row 7 for all, and most for the greedy ones."""
    n, m = far.shape
    rng, banned = np.random.default_rng(0), np.zeros((n, m), bool)
    for row, nearest in enumerate(np.argsort(far, axis=1)[:, : 3 * K]):
        banned[row, rng.choice(nearest, K, replace=False)] = True
    banned[:, 7] = True
    banned[greedy[0], : m - 5] = banned[greedy[1], :] = True
    return banned


def as_table(spark, banned, schema="user_id bigint, neighbor_id bigint"):
    return spark.createDataFrame([tuple(pair) for pair in np.argwhere(banned).tolist()], schema)


def assert_filtered(lists, far, report, *, k=K, least=0.9):
    """Check lists of rows against the distances of those that may be neighbors, inf for the others."""
    assert sorted(lists) == list(range(len(far)))
    recalls = []
    for row, found in lists.items():
        wanted = min(k, int(np.isfinite(far[row]).sum()))
        assert len(found) == len(dict(found)) == wanted
        assert np.isfinite([far[row, other] for other, _ in found]).all()
        radius = np.sort(far[row])[wanted - 1] if wanted else 0
        near = sum(far[row, other] <= radius + oracle.TIE * abs(radius) + oracle.FLOOR for other, _ in found)
        recalls.append(near / wanted if wanted else 1.0)
    assert np.mean(recalls) >= least
    assert abs(np.mean(recalls) - report.recall.mean) < 0.03


def distances_of(rows, metric, banned=None, candidates=None):
    far = oracle.all_distances(rows, metric)
    np.fill_diagonal(far, np.inf)
    if candidates is not None:
        far[:, ~candidates] = np.inf
    return far if banned is None else np.where(banned, np.inf, far)


@pytest.mark.parametrize("metric", ["cosine", pytest.param("inner_product", marks=SLOW)])
def test_excluded_pairs_are_replaced_by_others(spark, metric):
    banned = banned_pairs(distances_of(ROWS, metric))
    result = build_neighbors(
        make_table(spark, ROWS), metric=metric, recall=0.9, exclude=as_table(spark, banned), **QUICK
    )
    assert_filtered(lists_of(result.table), distances_of(ROWS, metric, banned), result.report)
    assert result.report.rows.excluded_pairs == banned.sum()
    result.table.unpersist()


@SLOW
def test_excluded_pairs_of_sparse_rows(spark):
    rng = np.random.default_rng(1)
    rows = csr_array((rng.random((N, 60)) < 0.06).astype(np.float32))
    banned = banned_pairs(distances_of(rows, "jaccard"))
    result = build_neighbors(table_of(spark, rows.toarray(), "jaccard", "sparse"), metric="jaccard", recall=0.9,
                             exclude=as_table(spark, banned), **QUICK)  # fmt: skip
    assert_filtered(lists_of(result.table), distances_of(rows, "jaccard", banned), result.report)
    result.table.unpersist()


@pytest.mark.parametrize("partitions", [1, pytest.param(7, marks=SLOW)])
def test_candidates_with_excluded_pairs(spark, partitions):
    """Only the rows marked are neighbors, the excluded among them are not, and every row gets its list."""
    may = np.arange(N) % 3 == 0
    banned = banned_pairs(distances_of(ROWS, "cosine", candidates=may))
    table = make_table(spark, ROWS, partitions=partitions).selectExpr("*", "if(user_id % 3 = 0, true, null) as ok")
    result = build_neighbors(table, candidate_col="ok", recall=0.9, exclude=as_table(spark, banned), **QUICK)
    assert_filtered(lists_of(result.table), distances_of(ROWS, "cosine", banned, may), result.report)
    result.table.unpersist()


@SLOW
def test_queries_with_excluded_pairs(spark):
    items = make_table(
        spark, ROWS[:600], [f"item {i}" for i in range(600)], schema="user_id string, vector array<float>"
    )
    queries = make_table(spark, ROWS[600:])
    far = oracle.between(ROWS[600:], ROWS[:600], "cosine")
    banned = banned_pairs(far)
    pairs = as_table(spark, banned).selectExpr("user_id", "concat('item ', neighbor_id) as neighbor_id")
    with fit(items, recall=0.9, **QUICK) as index:
        result = index.query(queries, exclude=pairs, recall=0.9)
        lists = {row: [(int(name[5:]), d) for name, d in found] for row, found in lists_of(result.table).items()}
        assert_filtered(lists, np.where(banned, np.inf, far), result.report)
        again = index.neighbors(exclude=pairs.selectExpr("concat('item ', user_id) as user_id", "neighbor_id"))
        among = banned[:300, :600]
        for name, found in lists_of(again.table).items():
            row = int(name[5:])
            assert row >= 300 or not any(among[row, int(other[5:])] for other, _ in found)
        assert len(lists_of(index.neighbors().table)) == 600  # the index itself knows nothing of the pairs
        result.table.unpersist()
        again.table.unpersist()


@SLOW
def test_excluded_pairs_are_read_in_the_format_of_the_input(spark, tmp_path):
    make_table(spark, ROWS[:60]).write.json(str(tmp_path / "in"))
    nobody = spark.createDataFrame([(1, 2), (1, None)], "user_id bigint, neighbor_id bigint")
    nobody.write.json(str(tmp_path / "pairs"))
    options = "--exclude", str(tmp_path / "pairs"), "--format", "json", "--k", "59"
    assert build(tmp_path / "in", tmp_path / "out", *options) == 0
    lists = {
        row.user_id: {near.neighbor_id for near in row.neighbors}
        for row in spark.read.json(str(tmp_path / "out")).collect()
    }
    assert lists[1] == set(range(60)) - {1, 2}
    assert read_report(tmp_path / "out.report")["rows"]["excluded_pairs"] == 1  # null excludes nobody


@SLOW
def test_excluded_on_the_command_line(spark, tmp_path):
    banned = banned_pairs(distances_of(ROWS, "cosine"))
    make_table(spark, ROWS).selectExpr("*", "user_id < 500 as ok").write.parquet(str(tmp_path / "in"))
    as_table(spark, banned, "user_id int, neighbor_id int").write.parquet(str(tmp_path / "pairs"))
    options = "--exclude", str(tmp_path / "pairs"), "--candidate-col", "ok", "--shape", "long", "--recall", "0.9"
    assert build(tmp_path / "in", tmp_path / "out", *options, "--k", str(K)) == 0
    lists = long_lists_of(spark.read.parquet(str(tmp_path / "out")))
    far = distances_of(ROWS, "cosine", banned, np.arange(N) < 500)
    assert all(np.isfinite(far[row, other]) for row, found in lists.items() for other, _ in found)
    assert all(len(found) == min(K, np.isfinite(far[row]).sum()) for row, found in lists.items())
    assert sorted(lists) == [row for row in range(N) if np.isfinite(far[row]).any()]
    assert read_report(tmp_path / "out.report")["rows"]["excluded_pairs"] == banned.sum()


def test_bad_filters_are_refused(spark):
    table = make_table(spark, ROWS[:50])
    pairs = spark.createDataFrame([(1, 2)], "user_id bigint, neighbor_id bigint")
    for wrong, words in (
        (pairs.withColumnRenamed("neighbor_id", "other"), "exclude: no column 'neighbor_id'"),
        (pairs.withColumnRenamed("user_id", "who"), "exclude: no column 'user_id'"),
        (pairs.selectExpr("user_id", "'2' as neighbor_id"), "'neighbor_id' is string, and the ids of the neighbors"),
        ([(1, 2)], "exclude: this is a list"),
    ):
        with pytest.raises(InputError, match=words):
            build_neighbors(table, exclude=wrong)
    with pytest.raises(SettingsError, match="'id_col' is 'Neighbor_id', and pairs are excluded"):
        build_neighbors(table, exclude=pairs, id_col="Neighbor_id")
    twice = table.selectExpr("*", "user_id % 2 = 0 AS ok").unionByName(
        table.where("user_id < 2").selectExpr("*", "true AS ok")
    )
    with pytest.raises(InputError, match=r"input: 2 rows have an id that was met before.*Leave one row of each id"):
        build_neighbors(twice, candidate_col="ok", on_bad_row="drop")
    with pytest.raises(SettingsError, match="'links' is 'either', and pairs are excluded"):
        build_neighbors(table, exclude=pairs, links="either")
    with pytest.raises(SettingsError, match="'candidate_col' is 'ok', and candidates are given"):
        build_neighbors(table, candidates=table, candidate_col="ok")
    with pytest.raises(SettingsError, match="'top_up' is True, and 'candidate_col' 'ok'"):
        build_neighbors(table, candidate_col="ok", top_up=True)
    with pytest.raises(InputError, match="no column 'ok'; there are 'user_id', 'vector'"):
        build_neighbors(table, candidate_col="ok")
    with pytest.raises(InputError, match="'vector' is array<float>; candidate_col must be a boolean column"):
        build_neighbors(table, candidate_col="vector")
    with pytest.raises(InputError, match="candidates: no valid row among 0: none is true in column 'ok'"):
        build_neighbors(table.selectExpr("*", "false as ok"), candidate_col="ok")


def grouped_world(sizes, seed=0):
    """Return the group of each row, in no order, and the table's text for it; group 0 is null."""
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return group, [None if name == 0 else f"group {name}" for name in group]


def rows_for(metric, kind, n):
    """Return float32 (n, dim): clustered rows, or those of few numbers, negative ones too, many of which share none."""
    if kind == "dense":
        return clustered(n)
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, 4, (n, 40)) * (rng.random((n, 40)) < 0.1)
    rows[:, 39] |= (rows == 0).all(axis=1)
    return (rows != 0 if metric == "jaccard" else rows).astype(np.float32)


def grouped_table(spark, rows, texts, partitions=4, kind="dense"):
    """Return a table of rows with two columns of groups; kind is dense, sparse or sets."""
    schema, form = {
        "dense": ("array<float>", np.ndarray.tolist),
        "sparse": ("map<int,float>", lambda row: {int(i): float(row[i]) for i in np.flatnonzero(row)}),
        "sets": ("array<int>", lambda row: np.flatnonzero(row).tolist()),
    }[kind]
    data = [(i, form(row), text, i % 2) for i, (row, text) in enumerate(zip(rows, texts, strict=True))]
    return spark.createDataFrame(data, f"user_id bigint, vector {schema}, language string, half int").repartition(
        partitions
    )


SIZES = [400, 300, 60, *[3] * 40, 1, 9, 10]  # two large groups, since a tree begins at four leaves


@pytest.mark.parametrize(
    ("metric", "kind", "partitions"),
    [
        ("cosine", "dense", 4),
        pytest.param("inner_product", "dense", 1, marks=SLOW),
        pytest.param("manhattan", "dense", 9, marks=SLOW),
        ("cosine", "sparse", 4),
        pytest.param("euclidean", "sparse", 3, marks=SLOW),
        pytest.param("inner_product", "sparse", 3, marks=SLOW),
        pytest.param("jaccard", "sets", 1, marks=SLOW),
    ],
)
def test_neighbors_within_groups(spark, monkeypatch, metric, kind, partitions):
    monkeypatch.setattr(groups, "_PARTITION_ROWS", 300)  # so that groups are counted in several partitions
    group, texts = grouped_world(SIZES)
    rows = rows_for(metric, kind, len(group))
    table = grouped_table(spark, rows, texts, partitions, kind)
    result = build_neighbors(table, metric=metric, within="language", recall=0.9, **QUICK)
    rows = rows if kind == "dense" else csr_array(rows)
    far = distances_of(rows, metric, group[:, None] != group)
    lists = lists_of(result.table)
    assert_filtered(lists, far, result.report)
    found = result.report.rows
    assert (found.groups, found.in_small_groups, found.short) == (len(SIZES), 40 * 3 + 1, 0)
    small = np.flatnonzero(np.isin(group, np.flatnonzero(np.array(SIZES) < 200)))
    for row in small:  # small groups are exact
        wanted = min(K, SIZES[group[row]] - 1)
        told = [-d if metric == "inner_product" else d for _, d in lists[row]]
        np.testing.assert_allclose(told, np.sort(far[row])[:wanted], rtol=1e-4, atol=1e-5)
    assert {(band.first, band.last) for band in result.report.recall.groups} <= {(1, 9), (10, 99), (100, 999)}
    result.table.unpersist()


@SLOW
@pytest.mark.parametrize(("metric", "kind"), [("euclidean", "dense"), ("cosine", "sparse"), ("jaccard", "sets")])
def test_all_filters_together(spark, metric, kind):
    """Within two columns, only some may be neighbors, and pairs are excluded."""
    group, texts = grouped_world(SIZES, seed=1)
    rows, may = rows_for(metric, kind, len(group)), np.arange(len(group)) % 4 != 0
    same = (group[:, None] == group) & (np.arange(len(group))[:, None] % 2 == np.arange(len(group)) % 2)
    far = distances_of(rows if kind == "dense" else csr_array(rows), metric, ~same, may)
    banned = banned_pairs(far)
    table = grouped_table(spark, rows, texts, kind=kind).selectExpr("*", "user_id % 4 != 0 as ok")
    settings = {"metric": metric, "within": "language, half", "candidate_col": "ok", "recall": 0.9, **QUICK}
    result = build_neighbors(table, exclude=as_table(spark, banned), **settings)
    assert_filtered(lists_of(result.table), np.where(banned, np.inf, far), result.report)
    again = build_neighbors(grouped_table(spark, rows, texts, 1, kind).selectExpr("*", "user_id % 4 != 0 as ok"),
                            exclude=as_table(spark, banned), **settings)  # fmt: skip
    assert lists_of(again.table) == lists_of(result.table)
    result.table.unpersist()
    again.table.unpersist()


@SLOW
def test_groups_on_the_command_line(spark, tmp_path, capsys):
    """Table and index are built and updated; the index, which has trees for queries only, is queried."""
    group, texts = grouped_world(SIZES)
    rows = rows_for("cosine", "sparse", len(group) + 100)[:-100]
    grouped_table(spark, rows, texts, kind="sparse").write.parquet(str(tmp_path / "in"))
    places = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    index = ["--index", str(tmp_path / "index")]
    assert main(["build", *places, *index, "--within", "language", "--k", str(K), "--leaf-rows", "60"]) == 0
    before = lists_of(spark.read.parquet(str(tmp_path / "out")))
    assert main(["update", *places, *index]) == 0
    assert lists_of(spark.read.parquet(str(tmp_path / "out"))) == before
    assert main(["query", *places[:2], "--output", str(tmp_path / "asked"), *index, "--same-ids"]) == 0
    far = distances_of(csr_array(rows), "cosine", group[:, None] != group)
    for row, found in lists_of(spark.read.parquet(str(tmp_path / "asked"))).items():
        assert len(found) == min(K, SIZES[group[row]] - 1)
        assert np.isfinite([far[row, other] for other, _ in found]).all()
    manifest = read_manifest(str(tmp_path / "index"))
    assert len(manifest.forest.sizes) > len(manifest.join_reach)
    assert main(["info", *index]) == 0
    assert "groups:   by language" in capsys.readouterr().out


@SLOW
@pytest.mark.parametrize(("metric", "kind"), [("euclidean", "dense"), ("jaccard", "sets")])
def test_a_second_tree_finds_more_within_groups(spark, monkeypatch, metric, kind):
    """A tree of the settings, and one that is added after the audit."""
    group, texts = grouped_world(SIZES)
    rows = rows_for(metric, kind, len(group))
    far = distances_of(rows if kind == "dense" else csr_array(rows), metric, group[:, None] != group)
    table, settings = grouped_table(spark, rows, texts, kind=kind), {"metric": metric, "within": "language", **QUICK}
    one, two = (build_neighbors(table, probes=1, trees=trees, **settings) for trees in (1, 2))
    assert two.report.leaves.count > one.report.leaves.count
    promising = partial(replace, probes=1, target=0.999)  # so that another tree is wanted
    monkeypatch.setattr(calibrate, "choose_probes", lambda *told: promising(choose_probes(*told)))
    with pytest.raises(RecallMissed) as missed:
        build_neighbors(table, recall=0.9, trees=1, top_up=True, **settings)
    assert missed.value.report.topped_up == 1
    assert min(missed.value.report.recall.mean, two.report.recall.mean) > one.report.recall.mean
    lists = [lists_of(result.table) for result in (one, two)]
    for result, found in zip((one, two), lists, strict=True):
        assert_filtered(found, far, result.report, least=0.5)
        result.table.unpersist()
    if kind == "dense":  # the first tree is the same; of sparse rows, short lists of one tree are completed exactly
        for row, before in lists[0].items():
            assert all(now <= d for (_, now), (_, d) in zip(lists[1][row], before, strict=True))


def test_groups_that_cannot_be_used_are_refused(spark):
    table = make_table(spark, ROWS[:50])
    for named, words in (
        ({"within": "language"}, "input: no column 'language'; there are 'user_id', 'vector'"),
        ({"within": "vector"}, "column 'vector' is array<float>, and groups are made of texts"),
    ):
        with pytest.raises(InputError, match=words):
            build_neighbors(table, **named)
    with pytest.raises(SettingsError, match="'within' is 'a,,b'; it must be names of columns with commas between"):
        build_neighbors(table, within="a,,b")


OF_GROUPS = [("inner_product", "dense"), ("euclidean", "sparse"), ("inner_product", "sparse"), ("jaccard", "sets")]


@pytest.mark.parametrize(
    ("metric", "kind"), [("cosine", "dense"), *(pytest.param(*some, marks=SLOW) for some in OF_GROUPS)]
)
def test_an_index_of_groups(spark, tmp_path, metric, kind):
    """It gives the table of a build; queries get neighbors of their group, those of unknown groups get none."""
    group, texts = grouped_world(SIZES, seed=2)
    rows = rows_for(metric, kind, len(group) + 200)
    table = grouped_table(spark, rows[:-200], texts, kind=kind)
    settings = {"metric": metric, "within": "language", "recall": 0.9, **QUICK}
    with fit(table, **settings) as index:
        index.save(tmp_path / "index")
        wanted = lists_of(index.neighbors().table)
    assert lists_of(build_neighbors(table, **settings).table) == wanted
    index = load(spark, tmp_path / "index")
    exact = rows if kind == "dense" else csr_array(rows)
    far = distances_of(exact[:-200], metric, group[:, None] != group)
    more = index.neighbors(k=9)
    assert_filtered(lists_of(more.table), far, more.report, k=9)
    asking = np.random.default_rng(0).choice(len(SIZES) + 10, 200)  # groups 10 beyond those there are
    names = [None if name == 0 else f"group {name}" for name in asking]
    queries = grouped_table(spark, rows[-200:], names, 2, kind)
    found = index.query(queries)
    between = np.where(asking[:, None] == group, oracle.between(exact[-200:], exact[:-200], metric), np.inf)
    assert_filtered(lists_of(found.table), between, found.report)
    assert found.report.rows.in_small_groups == sum(SIZES[name] < K if name < len(SIZES) else 1 for name in asking)
    with pytest.raises(InputError, match="queries: no column 'language'; there are 'user_id', 'vector', 'half'"):
        index.query(queries.drop("language"))
    local, queried = open_index(tmp_path / "index"), lists_of(found.table)
    ids, distances = local.search(exact[-200:], K, within=names)
    there = np.isfinite(distances)
    assert (ids[~there] == -1).all()
    lists = {row: list(zip(ids[row][there[row]], distances[row][there[row]], strict=True)) for row in range(200)}
    assert_filtered(lists, between, found.report)
    for row, name in enumerate(asking):  # small groups are exact in either way, and unknown ones have nobody
        assert name < 2 or lists[row] == queried[row]
    one, name = local.vector(7), {"language": texts[7]}
    single = local.search(one, 2 * K, within=name)
    assert len(single[0]) == min(2 * K, SIZES[group[7]])
    for part, padded in zip(single, local.search([one], 2 * K, within={"language": [texts[7]]}), strict=True):
        assert part.tolist() == padded[0, : len(part)].tolist()
    assert local.search(one, within="nobody")[0].shape == (0,)


def test_groups_have_the_numbers_that_spark_gives_them(spark):
    words = ["", "a", "straße", "twelve chars", None, "seventeen letters", "x" * 32, "y" * 45, "z" * 71]
    days = [date(2024, 2, 29), None, *[date(1970, 1, 1)] * 7]
    rows = [(i, [1.0], word, -i, i % 2 == 0, day) for i, (word, day) in enumerate(zip(words, days, strict=True))]
    table = spark.createDataFrame(
        rows, "user_id int, vector array<float>, word string, n bigint, even boolean, day date"
    )
    for within in ("word", "word, n, even, day"):
        manifest = SimpleNamespace(settings={"within": within})
        given = {name: [row[name] for row in table.collect()] for name in within.split(", ")}
        numbers = [row.group for row in open_source(table, Settings(within=within)).table.collect()]
        assert asked_groups(given, manifest, len(rows), single=False).tolist() == numbers
        first = {name: np.asarray(values)[0] for name, values in given.items()}
        assert asked_groups(first, manifest, 1, single=True).tolist() == numbers[:1]


@pytest.mark.parametrize(
    ("columns", "groups"),
    [
        (["bigint(i)", "smallint(i)", "double(i)", "float(i)", "cast(i AS decimal(5,2))", "string(i)"], 3),
        (["i - 0.5", "i - 0.500", "cast(i - 0.5 AS decimal(38,20))", "double(i) - 0.5D", "float(i) - 0.5F"], 3),
        (["cast(i AS decimal(9,2)) * 100 + 0.05", "cast(100 * i AS decimal(9,4)) + 0.0500"], 3),
        (["if(i = 0, -0.0D, 0.0D)"], 1),
        (["timestamp_seconds(1729987200 + 3600 * i)"], 3),  # within two of these hours clocks in Berlin go back
        (["double('NaN')", "float('NaN')"], 1),
        (["1e300D * i"], 3),
    ],
)
def test_equal_values_are_a_group_in_any_type_and_time_zone(spark, columns, groups):
    found = []
    for zone in ("UTC", "Europe/Berlin"):
        with configured(spark, spark__sql__session__timeZone=zone):
            for column in columns:
                table = spark.range(3).selectExpr("id user_id", "array(1.0F) vector", "int(id) i")
                table = table.selectExpr("user_id", "vector", f"{column} AS g")
                rows = open_source(table, Settings(within="g")).table.orderBy("user_id").collect()
                found.append([row.group for row in rows])
    assert len(set(found[0])) == groups
    assert all(some == found[0] for some in found)


def test_an_hour_is_searched_by_a_time_with_a_zone(spark):
    hour = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    table = spark.createDataFrame([(1, [1.0], hour)], "user_id int, vector array<float>, hour timestamp")
    number = open_source(table, Settings(within="hour")).table.collect()[0].group
    manifest = SimpleNamespace(settings={"within": "hour"})
    there = hour.astimezone(timezone(timedelta(hours=9)))
    assert [asked_groups(time, manifest, 1, single=True).tolist() for time in (hour, there)] == [[number]] * 2


def test_whole_numbers_of_any_type_are_searched_for(spark):
    table = spark.createDataFrame([(1, [1.0], 7)], "user_id int, vector array<float>, shop int")
    number = open_source(table, Settings(within="shop")).table.collect()[0].group
    manifest = SimpleNamespace(settings={"within": "shop"})
    for value in (7, 7.0, np.float32(7), np.int16(7), Decimal("7.00"), "7"):
        assert asked_groups(value, manifest, 1, single=True).tolist() == [number]


def test_all_who_are_in_small_groups_are_counted(spark):
    table = make_table(spark, ROWS[:60]).selectExpr("*", "user_id div 3 AS shop")
    for within, size in (("shop", 3), ("user_id", 1)):
        result = build_neighbors(table, within=within, **QUICK)
        assert {len(found) for found in lists_of(result.table).values()} == {size - 1}
        assert (result.report.rows.in_small_groups, result.report.rows.short) == (60, 0)


@pytest.mark.parametrize("few", [1, 5, K, K + 1])
def test_of_few_candidates_only_they_have_fewer_neighbors(spark, few):
    table = make_table(spark, ROWS[:80]).selectExpr("*", f"user_id < {few} AS ok")
    result = build_neighbors(table, candidate_col="ok", **QUICK)
    lengths = [len(found) for _, found in sorted(lists_of(result.table).items())]
    assert lengths == [min(K, few - 1)] * few + [min(K, few)] * (80 - few)
    assert (result.report.recall.k, result.report.recall.mean) == (min(K, few), 1)
    assert (result.report.rows.short, result.report.rows.restricted) == (0, 0)
    far = build_neighbors(table, candidate_col="ok", max_distance=1e-9, **QUICK)
    assert not any(lists_of(far.table).values())
    assert far.report.rows.restricted == 80 - few * (few <= K)


def test_small_groups_of_candidates_are_counted(spark):
    table = make_table(spark, ROWS[:200]).selectExpr("*", "user_id % 10 AS g", "user_id div 10 < user_id % 10 AS ok")
    result = build_neighbors(table, candidate_col="ok", within="g", **QUICK)
    lists = lists_of(result.table)
    assert all(len(found) == min(K, i % 10 - (i // 10 < i % 10)) for i, found in lists.items())
    assert result.report.rows.in_small_groups == sum(len(found) < K for found in lists.values())
    assert result.report.rows.short == 0


def test_queries_of_no_group_of_the_index_are_told_of(spark, caplog):
    items = make_table(spark, ROWS[:90]).selectExpr("*", "user_id % 3 AS shop")
    users = make_table(spark, ROWS[90:99]).selectExpr("*", "concat('shop ', user_id % 3) AS shop")
    result = build_neighbors(users, candidates=items, within="shop", **QUICK)
    assert not any(lists_of(result.table).values())
    assert "none of the 9 rows of the input is of a group that has rows in the candidates" in caplog.text


@pytest.mark.parametrize(
    ("within", "given", "words"),
    [
        ("a", np.array(["2024-01-01", "2024-01-02"], "datetime64[ns]"), "Groups are given as texts"),
        ("a", np.array([1, 2], "timedelta64[ns]"), "Groups are given as texts"),
        ("a", [1.0, float("nan")], "column 'a' has nan"),
        ("a", [1.0, float("inf")], "column 'a' has inf"),
        ("a", None, "None was given, and the index has groups by 'a'. Give within={'a': ...} with the values"),
        ("a, b", "x", "'x' was given, and the index has groups by 'a', 'b'"),
        ("a", {"b": ["x", "y"]}, "the columns 'b' were given, and the index has groups by 'a'"),
        ("a", "xy", "column 'a' has 'xy', and there are 2 vectors. Give a list of as many values"),
        ("a", ["x", "y", "z"], "there are 2 vectors"),
        ("a", ["x", 1.5], "column 'a' has 1.5. Groups are given as texts"),
        (None, ["x", "y"], "the index has no groups. Leave it out"),
    ],
)
def test_groups_that_an_index_does_not_have_are_refused(within, given, words):
    with pytest.raises(InputError, match=re.escape(words)):
        asked_groups(given, SimpleNamespace(settings={"within": within}), 2, single=False)


@SLOW
def test_candidates_may_have_any_columns(spark):
    """Their ids and values may be called as columns of the output are, and as those of the users are not."""
    users = spark.createDataFrame(
        [(1, [0, 2], [1.0, 2.0]), (2, [1], [1.0])], "user_id int, at array<int>, x array<double>"
    )
    items = spark.createDataFrame([(7, [0, 2], [1.0, 2.0]), (8, [1, 2], [3.0, 1.0])],
                                  "neighbors int, place array<int>, y array<double>")  # fmt: skip
    result = build_neighbors(
        users, candidates=items, k=1, vector_col="at", values_col="x", candidate_id_col="neighbors",
        candidate_vector_col="place", candidate_values_col="y",
    )  # fmt: skip
    assert {user: found[0][0] for user, found in lists_of(result.table).items()} == {1: 7, 2: 8}
    result.table.unpersist()


@SLOW
def test_an_update_excludes_the_pairs_of_tonight(spark, tmp_path, capsys):
    """An update without pairs would publish those of last night."""
    table, far = make_table(spark, ROWS[:300]), distances_of(ROWS[:300], "cosine")
    table.write.parquet(str(tmp_path / "in"))
    banned, out = banned_pairs(far), tmp_path / "out"
    as_table(spark, banned).write.parquet(str(tmp_path / "pairs"))
    banned[10:30] = ~banned[10:30] & (np.arange(300) < 200)
    as_table(spark, banned).write.parquet(str(tmp_path / "tonight"))
    places = ["--index", str(tmp_path / "index")]
    assert build(tmp_path / "in", out, *places, "--exclude", str(tmp_path / "pairs"), "--k", str(K)) == 0
    before = lists_of(spark.read.parquet(str(out)))
    update = ["update", "--input", str(tmp_path / "in"), "--output", str(out), *places]
    assert main(update) == 2
    assert "excluded pairs, and 'exclude' is not given" in capsys.readouterr().err
    assert lists_of(spark.read.parquet(str(out))) == before
    assert main([*update, "--exclude", str(tmp_path / "tonight")]) == 0
    lists, far = lists_of(spark.read.parquet(str(out))), np.where(banned, np.inf, far)
    assert all(np.isfinite(far[row, other]) for row, found in lists.items() for other, _ in found)
    assert all(len(found) == min(K, np.isfinite(far[row]).sum()) for row, found in lists.items())
    assert [row for row in lists if lists[row] != before[row]] == [row for row in lists if 10 <= row < 30]


@SLOW
def test_an_update_follows_the_rows_that_may_be_neighbors(spark, tmp_path):
    """All leaves are one, so that last night's table and tonight's are exact."""
    may, tonight = np.arange(300) % 3 == 0, np.arange(300) % 3 == 0
    tonight[10:40] ^= True  # some rows turn
    for name, marks in (("in", may), ("tonight", tonight)):
        marked = spark.createDataFrame(list(enumerate(marks.tolist())), "user_id bigint, ok boolean")
        make_table(spark, ROWS[:300]).join(marked, "user_id").write.parquet(str(tmp_path / name))
    banned = banned_pairs(distances_of(ROWS[:300], "cosine"))
    as_table(spark, banned).write.parquet(str(tmp_path / "pairs"))
    out, index = tmp_path / "out", ["--index", str(tmp_path / "index")]
    more = [*index, "--exclude", str(tmp_path / "pairs")]
    assert build(tmp_path / "in", out, *more, "--candidate-col", "ok", "--k", str(K), "--leaf-rows", "1000") == 0
    for name, marks in (("in", may), ("tonight", tonight)):
        with patch("annspark.update._join_all", None):  # not all rows are joined
            assert main(["update", "--input", str(tmp_path / name), "--output", str(out), *more]) == 0
        far = distances_of(ROWS[:300], "cosine", banned, marks)
        for row, found in lists_of(spark.read.parquet(str(out))).items():
            wanted = np.sort(far[row])[: min(K, np.isfinite(far[row]).sum())]
            np.testing.assert_allclose([far[row, other] for other, _ in found], wanted, rtol=1e-4, atol=1e-6)
    assert len(load(spark, tmp_path / "index")) == len(open_index(tmp_path / "index")) == tonight.sum()
