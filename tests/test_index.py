"""An index answers queries: the lists are sound and the same to the bit, and their recall is what the report says."""

import errno
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark import InputError, RecallMissed, SettingsError, build_neighbors, fit, load
from tests.helpers import clustered, configured, count_cached, files_in, lists_of, long_lists_of, make_table
from tests.oracle import answers_recall, assert_answers
from tests.test_metrics import KINDS, table_of, vectors_for

K, QUICK = 8, {"k": 8, "leaf_rows": 60, "audit_users": 100}
SLOW = pytest.mark.slow
ALL = clustered(2400)
ROWS, QUERIES = ALL[:2000], ALL[2000:]  # of one distribution


def answered(index, table, *, get=lists_of, **named):
    """Return the lists of a query and its report, having given the table back."""
    result = index.query(table, **named)
    lists = get(result.table)
    result.table.unpersist()
    return lists, result.report


def neighbors_of(result):
    lists = lists_of(result.table)
    result.table.unpersist()
    return lists


@pytest.fixture(scope="module")
def queries(spark):
    return make_table(spark, QUERIES).cache()


@pytest.fixture(scope="module")
def index(spark):
    with fit(make_table(spark, ROWS), recall=0.9, **QUICK) as fitted:
        yield fitted


@pytest.fixture(scope="module")
def euclidean(spark):
    with fit(make_table(spark, ROWS[:300]), metric="euclidean", **QUICK) as fitted:
        yield fitted


@pytest.fixture(scope="module")
def folder(index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "index"
    index.save(folder)
    return folder


@pytest.fixture(scope="module")
def asked(index, queries):
    """Return the lists that the queries of this module get, and the report."""
    return answered(index, queries)


def test_every_query_gets_k_rows_in_order_at_their_true_distances(asked):
    assert_answers(asked[0], QUERIES, ROWS, K, "cosine")


def test_the_recall_is_the_one_asked_for_and_inside_the_reported_interval(asked):
    lists, report = asked
    recall = answers_recall(lists, QUERIES, ROWS, K, "cosine")
    assert recall > 0.9
    assert report.recall.low <= recall <= report.recall.high
    assert (report.recall.k, report.recall.users) == (K, 100)


def test_the_report_tells_what_was_done(asked):
    report = asked[1]
    assert (report.rows.read, report.rows.valid, report.rows.written) == (400, 400, 400)
    assert (report.rows.dropped, report.rows.short) == ({}, 0)
    assert (report.settings["metric"], report.settings["k"], report.settings["recall"]) == ("cosine", K, 0.9)
    assert 10 < report.cost.pairs_per_user < 1000
    assert 1 <= report.cost.copies_per_user <= 4
    assert "400" in report.as_text()


def test_an_index_knows_its_size_and_settings(index):
    assert len(index) == 2000
    assert repr(index) == "Index(2,000 rows of 16 numbers, cosine)"
    assert (index.settings.k, index.settings.recall) == (K, 0.9)


@pytest.mark.slow
def test_neighbors_of_an_index_are_those_of_a_build_to_the_bit_fresh_or_loaded(spark, index, folder):
    built = neighbors_of(build_neighbors(make_table(spark, ROWS, partitions=3), recall=0.9, **QUICK))
    assert neighbors_of(index.neighbors()) == built
    assert neighbors_of(load(spark, folder).neighbors()) == built


def test_queries_tell_that_their_workers_have_little_memory(index, queries, caplog, monkeypatch):
    monkeypatch.setattr("annspark.pipeline.start_workers", lambda _: 1000)
    index.query(queries)
    assert any(message.startswith("plan: a Python worker will hold about") for message in caplog.messages)


@pytest.mark.parametrize("named", [{"k": 5}, {"probes": 2}, {"recall": 0.8, "k": 3}, {"links": "mutual"}])
@pytest.mark.slow
def test_neighbors_of_an_index_with_other_settings_are_those_of_a_build_with_them(spark, index, folder, named):
    of_build = QUICK | ({} if "probes" in named else {"recall": 0.9}) | named
    built = neighbors_of(build_neighbors(make_table(spark, ROWS), **of_build))
    assert neighbors_of(index.neighbors(**named)) == built
    assert neighbors_of(load(spark, folder).neighbors(**named)) == built


@pytest.mark.slow
def test_a_loaded_index_gives_the_same_lists_to_the_bit(spark, folder, queries, asked):
    loaded = load(spark, folder)
    assert repr(loaded) == "Index(2,000 rows of 16 numbers, cosine)"
    lists, report = answered(loaded, queries)
    assert lists == asked[0]
    assert report.recall == asked[1].recall
    assert report.settings == asked[1].settings


@pytest.mark.parametrize(
    ("partitions", "cores", "confs"),
    [
        pytest.param(1, 5, {"spark__sql__execution__arrow__maxRecordsPerBatch": 7}, marks=SLOW),
        pytest.param(
            *(7, 1),
            {"spark__sql__adaptive__enabled": "false", "spark__sql__ansi__enabled": "false"},
            marks=SLOW,
        ),
    ],
)
def test_however_either_side_is_partitioned_and_ordered_no_bit_changes(
    spark, folder, asked, monkeypatch, partitions, cores, confs
):
    order, theirs = (np.random.default_rng(partitions).permutation(n) for n in (2000, 400))
    monkeypatch.setattr("annspark.pipeline.count_cores", lambda _: cores)
    with configured(spark, **confs):
        rows = make_table(spark, ROWS[order], order.tolist(), partitions=partitions)
        table = make_table(spark, QUERIES[theirs], theirs.tolist(), partitions=8 - partitions)
        with fit(rows, recall=0.9, **QUICK) as other:
            assert answered(other, table)[0] == asked[0]
        if cores == 1:
            assert answered(load(spark, folder), table)[0] == asked[0]


@pytest.mark.slow
def test_same_ids_leave_out_the_own_id_only_and_keep_k_neighbors(spark, index):
    table = make_table(spark, ROWS[:300])
    lists, report = answered(index, table, same_ids=True)
    assert_answers(lists, ROWS[:300], ROWS, K, "cosine", same_ids=True)
    recall = answers_recall(lists, ROWS[:300], ROWS, K, "cosine", same_ids=True)
    assert report.recall.low <= recall <= report.recall.high
    lists, _ = answered(index, table)
    assert_answers(lists, ROWS[:300], ROWS, K, "cosine")
    assert all(lists[i][0] == (i, 0.0) for i in range(300))


def heavy(n, dim=16, seed=0):
    """Return vectors with lengths as those of popular items: few are many times as long as most."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * rng.lognormal(0, 1.2, (n, 1))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_users_find_items_by_inner_product_though_they_are_nothing_like_them(spark, tmp_path, kept):
    items, users = heavy(3000), np.random.default_rng(1).normal(0.4, 0.2, (600, 16)).astype(np.float32)
    table, candidates = make_table(spark, users), make_table(spark, items).withColumnRenamed("user_id", "item")
    named = {"metric": "inner_product", "recall": 0.9, "leaf_rows": 60, "audit_users": 300}
    if kept:
        with fit(candidates, id_col="item", k=K, **named) as fitted:
            fitted.save(tmp_path / "index")
        lists, report = answered(load(spark, tmp_path / "index"), table, id_col="user_id")
    else:
        result = build_neighbors(table, candidates=candidates, candidate_id_col="item", k=K, **named)
        lists, report = neighbors_of(result), result.report
    assert_answers(lists, users, items, K, "inner_product")
    recall = answers_recall(lists, users, items, K, "inner_product")
    assert report.recall.low - 0.01 <= recall <= report.recall.high + 0.01
    assert recall > 0.89
    assert report.rows.indexed == 3000


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product", "jaccard"])
def test_sparse_queries_reach_the_recall_and_are_never_short(spark, tmp_path, metric):
    vectors = vectors_for(metric, "sparse", 1800)
    rows, queries = vectors[:1500], vectors[1500:]
    with fit(table_of(spark, rows, metric, "sparse"), metric=metric, recall=0.9, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, report = answered(fitted, table_of(spark, queries, metric, "sparse"))
    assert_answers(lists, csr_array(queries), csr_array(rows), K, metric)
    recall = answers_recall(lists, csr_array(queries), csr_array(rows), K, metric)
    assert report.recall.low - 0.02 <= recall <= report.recall.high + 0.02
    assert answered(load(spark, tmp_path / "index"), table_of(spark, queries, metric, "sparse"))[0] == lists


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["manhattan", "hamming"])
def test_the_other_metrics_answer_too(spark, metric):
    vectors = vectors_for(metric, "dense", 1400)
    with fit(table_of(spark, vectors[:1200], metric, "dense"), metric=metric, recall=0.9, **QUICK) as fitted:
        lists, _ = answered(fitted, table_of(spark, vectors[1200:], metric, "dense"))
    assert_answers(lists, vectors[1200:], vectors[:1200], K, metric)
    assert answers_recall(lists, vectors[1200:], vectors[:1200], K, metric) > 0.87


@pytest.mark.slow
def test_ids_of_the_two_tables_may_have_different_types(spark, tmp_path):
    stamps = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(300)]
    prices = [Decimal(i) / 4 for i in range(300)]
    text = "user_id string, vector array<float>"
    named = make_table(spark, QUERIES[:50], [f"q{i}" for i in range(50)], schema=text)
    for ids, kind in ((stamps, "timestamp"), (prices, "decimal(12,2)")):
        with fit(make_table(spark, ROWS[:300], ids, schema=f"user_id {kind}, vector array<float>"), **QUICK) as fitted:
            fitted.save(tmp_path / "index", overwrite=True)
            fresh = fitted.query(named)
            again = load(spark, tmp_path / "index").query(named)
            assert lists_of(fresh.table) == lists_of(again.table)
            assert fresh.table.dtypes[0] == ("user_id", "string")
            assert kind in fresh.table.dtypes[1][1]
            for result in (fresh, again):
                result.table.unpersist()


@pytest.mark.parametrize(
    ("named", "error", "parts"),
    [
        ({"metric": "euclidean"}, SettingsError, ["'metric' cannot be given to query", "'cosine'"]),
        ({"leaf_rows": 9}, SettingsError, ["'leaf_rows'", "60"]),
        ({"kk": 9}, SettingsError, ["unknown setting 'kk'", "same_ids"]),
        ({"links": "mutual"}, SettingsError, ["'links' cannot be given to query"]),
        ({"k": 0}, SettingsError, ["'k' is 0"]),
        ({"id_col": "nobody"}, InputError, ["no column 'nobody'"]),
    ],
)
def test_what_a_query_cannot_be_given_is_refused(index, queries, named, error, parts):
    with pytest.raises(error) as caught:
        index.query(queries, **named)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("rows", "schema", "parts"),
    [
        ([(1, {1: 1.0})], "user_id int, vector map<int,float>", ["sparse", "dense", "those they are compared with"]),
        ([(1, [1e37] * 16)], "user_id int, vector array<float>", ["largest number is 1e+37", "of the index vanish"]),
    ],
)
def test_queries_that_do_not_fit_the_index_are_refused(spark, euclidean, rows, schema, parts):
    with pytest.raises(InputError) as caught:
        euclidean.query(spark.createDataFrame(rows, schema))
    assert str(caught.value).startswith("queries: ")
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


FLOATS = "user_id int, vector array<float>"
MISTAKES = {  # of a table whose vectors should have 16 numbers: rows, schema
    "nulls": ([(None, [1.0] * 16), (2, None)], FLOATS),
    "length": ([(1, [1.0] * 5)], FLOATS),
    "column": ([(1, [1.0] * 16)], "id int, vector array<float>"),
    "type": ([(1, "1.0 2.0")], "user_id int, vector string"),
    "empty": ([], FLOATS),
}
NULLS = "2 of 2 rows cannot be used, by columns 'user_id' and 'vector': null_id 1 (the id is null;"
TOLD = {  # with the role of the table: what a message says
    "nulls": f"{{role}}: {NULLS}",
    "column": "{role}: no column 'user_id'; there are 'id', 'vector'. Name the right one with {option}.",
    "type": "{role}: column 'vector' is string; vectors may be",
    "empty": "{role}: no valid row among 0. Nothing to do.",
}
ID_COL = "--id-col (id_col)"


@pytest.mark.parametrize(
    ("role", "option"),
    [("input", ID_COL), ("candidates", "--candidate-id-col (candidate_id_col)"), ("queries", ID_COL)],
)
@pytest.mark.parametrize("mistake", TOLD)
def test_a_message_says_which_table_it_is_about(spark, index, queries, role, option, mistake):
    table = spark.createDataFrame(*MISTAKES[mistake])
    calls = {
        "input": lambda: build_neighbors(table),
        "candidates": lambda: build_neighbors(queries, candidates=table),
        "queries": lambda: index.query(table),
    }
    with pytest.raises(InputError) as caught:
        calls[role]()
    assert str(caught.value).startswith(TOLD[mistake].format(role=role, option=option))


def test_vectors_of_another_length_than_the_other_tables_are_told_its_length(spark, index, queries):
    table = spark.createDataFrame(*MISTAKES["length"])
    with pytest.raises(InputError) as caught:
        index.query(table)
    why = "wrong_length 1 (the vector does not have 16 numbers, as those of the index have; for example user_id 1)"
    assert str(caught.value).startswith(
        f"queries: 1 of 1 rows cannot be used, by columns 'user_id' and 'vector': {why}"
    )
    with pytest.raises(InputError) as caught:
        index.query(table, on_bad_row="drop")
    assert str(caught.value) == f"queries: no valid row among 1: {why}. Nothing to do."
    with pytest.raises(InputError, match=r"^input: 1 of 1 rows .* as those of the candidates have"):
        build_neighbors(table, candidates=queries, **QUICK)


def test_same_ids_of_types_that_cannot_be_the_same_are_refused(spark, index, queries):
    table = make_table(spark, QUERIES[:5], list("abcde"), schema="user_id string, vector array<float>")
    with pytest.raises(SettingsError, match="'same_ids' is True, and ids are string in the queries and bigint in the "):
        index.query(table, same_ids=True)
    with pytest.raises(SettingsError, match=r"string in the input and bigint in the candidates: .* ids of the input,"):
        build_neighbors(table, candidates=queries, same_ids=True, **QUICK)


@pytest.mark.slow
def test_bad_rows_are_dropped_and_counted_and_k_above_the_rows_gives_all(spark):
    good = make_table(spark, QUERIES[:20])
    table = good.union(spark.createDataFrame([(77, None)], good.schema))
    with fit(make_table(spark, ROWS[:12]), **QUICK) as few:
        lists, report = answered(few, table, k=50, on_bad_row="drop")
        assert report.rows.dropped == {"null_vector": 1}
        assert {len(found) for found in lists.values()} == {12}
        longer, _ = answered(few, good, get=long_lists_of, k=3, shape="long", max_distance=2.0)
        assert {len(found) for found in longer.values()} == {3}


@pytest.mark.slow
def test_a_missed_recall_says_what_to_set(spark, monkeypatch):
    rng = np.random.default_rng(0)
    rows, queries = (rng.normal(size=(n, 32)).astype(np.float32) for n in (2000, 300))
    with fit(make_table(spark, rows), probes=1, **QUICK) as fitted:
        monkeypatch.setattr("annspark.query.choose", lambda forest, *_, **__: (forest, pessimist()))
        with pytest.raises(RecallMissed, match="Set probes to"):
            fitted.query(make_table(spark, queries), recall=0.95)


def pessimist():
    """Return a calibration that chose too few probes."""
    from annspark.core.calibrate import Calibration

    return Calibration(target=0.95, probes=1.0, predicted=0.96, low=0.95, high=0.97, users=100, curve=())


@pytest.mark.slow
def test_an_index_appears_whole_or_not_at_all(spark, index, folder, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"index .* exists.*overwrite"):
        index.save(folder)
    before = files_in(folder)

    def fail(*_):
        raise OSError("no more")

    with monkeypatch.context() as patched:
        patched.setattr("annspark.index_writer.write_manifest", fail)
        for place in (folder, tmp_path / "new"):
            with pytest.raises(OSError, match="no more"):
                index.save(place, overwrite=True)
    assert files_in(folder) == before
    assert files_in(tmp_path) == []
    index.save(folder, overwrite=True)
    assert set(files_in(folder)).isdisjoint(name for name in before if name.startswith("part-"))
    load(spark, folder)


@pytest.mark.slow
def test_an_index_replaces_nothing_but_an_index(spark, index, tmp_path):
    spark.range(3).write.parquet(str(tmp_path / "table"))
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.json").write_text("{}")
    for name in ("table", "web"):
        before = files_in(tmp_path / name)
        with pytest.raises(SettingsError, match="something else than an index"):
            index.save(tmp_path / name, overwrite=True)
        assert files_in(tmp_path / name) == before
    with pytest.raises(InputError, match="is not one of annspark"):
        load(spark, tmp_path / "web")


@pytest.mark.slow
def test_an_index_gives_back_what_it_keeps_in_the_cache(spark):
    before = count_cached(spark)
    with fit(make_table(spark, ROWS[:200]), **QUICK):
        assert count_cached(spark) > before
    assert count_cached(spark) == before


def rows_of(vectors, kind):
    """Return vectors as the oracle takes those of a kind."""
    return csr_array(vectors) if kind == "sparse" else vectors


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "kind"), KINDS)
def test_an_audit_of_all_queries_finds_the_recall_that_brute_force_finds(spark, tmp_path, metric, kind):
    vectors = vectors_for(metric, kind, 1250)
    rows, queries = vectors[:1000], vectors[1000:]
    with fit(table_of(spark, rows, metric, kind), metric=metric, probes=1.5, **QUICK) as fitted:
        lists, report = answered(fitted, table_of(spark, queries, metric, kind), audit_users=250)
        fitted.save(tmp_path / "index")
    assert_answers(lists, rows_of(queries, kind), rows_of(rows, kind), K, metric)
    recall = answers_recall(lists, rows_of(queries, kind), rows_of(rows, kind), K, metric)
    assert report.recall.mean == pytest.approx(recall, abs=1e-9)
    assert report.recall.users == 250
    again, _ = answered(load(spark, tmp_path / "index"), table_of(spark, queries, metric, kind))
    assert again == lists


@pytest.fixture
def few_sampled(monkeypatch):
    """Have forests grown from so few rows that the longest are not among them."""
    monkeypatch.setattr("annspark.core.plan._SAMPLED_AT_LEAST", 200)
    monkeypatch.setattr("annspark.core.plan.SAMPLED_PER_LEAF", 6)


@pytest.mark.slow
@pytest.mark.parametrize("trees", [1, 2])
def test_every_query_is_compared_with_the_hubs_fresh_or_loaded(spark, tmp_path, few_sampled, trees):
    items, users = heavy(2000, 12), np.random.default_rng(1).normal(0.2, 0.3, (300, 12)).astype(np.float32)
    with fit(make_table(spark, items), metric="inner_product", probes=2, trees=trees, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, report = answered(fitted, make_table(spark, users), audit_users=300)
    assert "first.arrow" in files_in(tmp_path / "index")
    assert_answers(lists, users, items, K, "inner_product")
    assert report.recall.mean == pytest.approx(answers_recall(lists, users, items, K, "inner_product"), abs=1e-9)
    loaded = load(spark, tmp_path / "index")
    assert answered(loaded, make_table(spark, users))[0] == lists
    lists, _ = answered(loaded, make_table(spark, items[:500]), same_ids=True)
    assert_answers(lists, items[:500], items, K, "inner_product", same_ids=True)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbors_of_a_loaded_index_of_sparse_rows_are_those_of_a_build(spark, tmp_path, metric):
    table = table_of(spark, vectors_for(metric, "sparse", 1000), metric, "sparse")
    with fit(table, metric=metric, recall=0.9, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
    loaded = load(spark, tmp_path / "index")
    for named in ({}, {"k": 4}):
        built = neighbors_of(build_neighbors(table, metric=metric, recall=0.9, **(QUICK | named)))
        assert neighbors_of(loaded.neighbors(**named)) == built


def maps_of(spark, rows):
    return spark.createDataFrame(list(enumerate(rows)), "user_id int, vector map<int,float>").repartition(3)


def some_numbers(n, dim, seed):
    rng = np.random.default_rng(seed)
    return [{int(c): float(rng.integers(1, 4)) for c in rng.choice(dim, 6, replace=False)} for _ in range(n)]


def matrix_of(rows, dim):
    dense = np.zeros((len(rows), dim), np.float32)
    for row, own in zip(dense, rows, strict=True):
        row[list(own)] = list(own.values())
    return csr_array(dense)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_queries_may_have_columns_that_no_indexed_row_has(spark, tmp_path, metric):
    rows = some_numbers(500, 50, seed=0)
    queries = [one | {i % 50: 2.0} for i, one in enumerate(some_numbers(80, 5000, seed=1))]
    with fit(maps_of(spark, rows), metric=metric, probes=3, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, report = answered(fitted, maps_of(spark, queries))
    known, asking = matrix_of(rows, 5000), matrix_of(queries, 5000)
    assert_answers(lists, asking, known, K, metric)
    assert report.recall.mean == pytest.approx(answers_recall(lists, asking, known, K, metric), abs=1e-9)
    assert answered(load(spark, tmp_path / "index"), maps_of(spark, queries))[0] == lists


@pytest.mark.slow
def test_rows_without_numbers_and_of_unknown_columns_get_full_lists(spark):
    rows, queries = some_numbers(300, 50, seed=0), [{}, {4999: 1.0}, {3: 1.0}]
    for metric in ("euclidean", "inner_product"):
        with fit(maps_of(spark, rows), metric=metric, recall=0.9, **QUICK) as fitted:
            lists, _ = answered(fitted, maps_of(spark, queries))
        assert_answers(lists, matrix_of(queries, 5000), matrix_of(rows, 5000), K, metric)
    assert lists[0] == lists[1] == [(row, 0.0) for row in range(K)]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
def test_bits_find_bits_and_arrays_of_them_the_same(spark, tmp_path, metric):
    rng = np.random.default_rng(0)
    bits = rng.random((900, 32)) < 0.25 + 0.5 * rng.integers(0, 2, (10, 32))[rng.integers(10, size=900)]
    rows, queries = bits[:700], bits[700:]
    packed = [
        spark.createDataFrame(
            [(i, np.packbits(one).tobytes()) for i, one in enumerate(part)], "user_id bigint, vector binary"
        )
        for part in (rows, queries)
    ]
    with fit(packed[0], metric=metric, recall=0.9, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, _ = answered(fitted, packed[1])
        assert answered(fitted, make_table(spark, queries.astype(np.float32)))[0] == lists
    kind = "sparse" if metric == "jaccard" else "dense"
    own, theirs = (rows_of(part.astype(np.float32), kind) for part in (rows, queries))
    assert_answers(lists, theirs, own, K, metric)
    assert answers_recall(lists, theirs, own, K, metric) > 0.87
    loaded = load(spark, tmp_path / "index")
    assert answered(loaded, packed[1])[0] == lists
    shorter = spark.createDataFrame([(i, bytes([i, 7 * i % 256, 1])) for i in range(60)], "user_id int, vector binary")
    if metric == "jaccard":  # sets have no length
        assert len(answered(loaded, shorter, recall=0.5)[0]) == 60
        return
    with pytest.raises(InputError, match=r"wrong_length 60 .*32 numbers"):
        loaded.query(shorter)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
def test_numbers_of_64_bits_keep_their_bits_however_they_are_cut(spark, tmp_path, metric):
    rng, doubles = np.random.default_rng(0), "user_id bigint, vector array<double>"
    whole = clustered(900).astype(np.float64) + 1e-9 * rng.normal(size=(900, 16))
    whole[::3] = whole[::3].astype(np.float32)  # a third of the rows float32 holds
    rows, queries = whole[:700], whole[700:]
    order = np.argsort(np.arange(200) % 3, kind="stable")
    with fit(make_table(spark, rows, schema=doubles), metric=metric, recall=0.9, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, _ = answered(fitted, make_table(spark, queries, schema=doubles, partitions=7))
    assert_answers(lists, queries, rows, K, metric)
    sorted_once = make_table(spark, queries[order], order.tolist(), schema=doubles, partitions=1)
    assert answered(load(spark, tmp_path / "index"), sorted_once)[0] == lists


@pytest.mark.slow
def test_points_far_from_the_origin_find_each_other(spark, tmp_path):
    points = 6.4e6 * np.ones(3) + np.random.default_rng(0).uniform(0, 20, (900, 3)).round(3)
    doubles = "user_id bigint, vector array<double>"
    rows, queries = points[:700], points[700:]
    with fit(make_table(spark, rows, schema=doubles), metric="euclidean", recall=0.9, **QUICK) as fitted:
        fitted.save(tmp_path / "index")
        lists, report = answered(fitted, make_table(spark, queries, schema=doubles))
    assert answers_recall(lists, queries, rows, K, "euclidean", tie=1e-4) > 0.87
    assert report.precision.recall_lost == 0
    assert answered(load(spark, tmp_path / "index"), make_table(spark, queries, schema=doubles))[0] == lists


@pytest.mark.slow
def test_vectors_of_mllib_and_doubles_ask_as_arrays_of_floats_do(spark, index, queries, asked):
    from pyspark.ml.linalg import Vectors

    few = QUERIES[:100]
    wanted, _ = answered(index, queries.where("user_id < 100"))
    forms = [
        spark.createDataFrame([(i, Vectors.dense(row.tolist())) for i, row in enumerate(few)], ["user_id", "vector"]),
        make_table(spark, few, schema="user_id bigint, vector array<double>"),
        make_table(spark, few).toDF("the.id", "a vector"),
    ]
    names = [{}, {}, {"id_col": "the.id", "vector_col": "a vector"}]
    for table, named in zip(forms, names, strict=True):
        found = answered(index, table, get=lambda out: lists_of(out, out.columns[0]), **named)[0]
        assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_few_candidates_and_few_users_get_all_there_are(spark, n):
    users, few = make_table(spark, ROWS[:50]), make_table(spark, ROWS[:n])
    for same in (False, True):
        for one, other, count in ((users, few, n), (few, users, 50)):  # either side is the smaller
            result = build_neighbors(one, candidates=other, same_ids=same, **(QUICK | {"k": 60}))
            lists = neighbors_of(result)
            assert result.report.recall.mean == 1
            for user, found in lists.items():
                assert len(found) == count - (same and user < count)
                assert (user in dict(found)) == (not same and user < count)


@pytest.mark.slow
def test_ids_of_a_collation_keep_their_type_in_an_index(spark, tmp_path):
    if spark.version < "4":
        pytest.skip("collations came with Spark 4")
    names, points = ["Bob", "bea", "Cy", "ANN"], [[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [1.0, 0.0]]
    table = spark.createDataFrame(list(zip(names, points, strict=True)), "user_id string, vector array<float>")
    table = table.selectExpr("user_id COLLATE UTF8_LCASE AS user_id", "vector")
    asking = make_table(spark, np.array([[0.0, 0.0]], np.float32))
    with fit(table, k=4, metric="euclidean") as fitted:
        fitted.save(tmp_path / "index")
        for one in (fitted, load(spark, tmp_path / "index")):
            result = one.query(asking)
            assert "string collate UTF8_LCASE" in result.table.dtypes[1][1]
            # bea comes before Cy by the collation, not by bytes
            assert lists_of(result.table) == {0: [("Bob", 0), ("ANN", 1), ("bea", 2), ("Cy", 2)]}
            result.table.unpersist()
        with pytest.raises(SettingsError, match="ids that a collation makes equal would not be seen"):
            fitted.query(table.selectExpr("lower(user_id) AS user_id", "vector"), same_ids=True)


def test_an_index_that_is_closed_says_so(spark, folder, queries, tmp_path):
    with load(spark, folder) as loaded:
        assert len(loaded) == 2000
    for use in (loaded.neighbors, lambda: loaded.query(queries), lambda: loaded.save(tmp_path / "late")):
        with pytest.raises(SettingsError, match="this index is closed"):
            use()
    loaded.close()
    assert files_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "cannot open /hidden/part"), "an executor cannot write there (Input/output error)."),
        (OSError("the disk is gone"), "an executor cannot write there (the disk is gone)."),
        (RuntimeError("the disk is gone"), "the disk is gone"),
    ],
)
def test_an_executor_that_fails_half_way_leaves_nothing_and_the_index_that_was_there(
    spark, index, queries, asked, tmp_path, monkeypatch, error, words
):
    from annspark import index_writer

    write_files = index_writer.write_files

    def fail_at_the_second(folder, number, *rest):
        if number == 1:
            raise error
        return write_files(folder, number, *rest)

    place = tmp_path / "index"
    index.save(place)
    before = files_in(place)
    monkeypatch.setattr(index_writer, "write_files", fail_at_the_second)
    for where in (place, tmp_path / "deeper" / "new"):
        with pytest.raises(Exception, match=re.escape(words)) as caught:
            index.save(where, overwrite=True)
        if isinstance(error, OSError):
            assert type(caught.value) is SettingsError
            assert str(caught.value).startswith(f"index {str(where)!r}: {words} Give a folder")
    assert files_in(tmp_path) == ["index"]
    assert files_in(place) == before
    assert answered(load(spark, place), queries)[0] == asked[0]


@pytest.mark.slow
def test_a_file_that_is_damaged_or_gone_after_the_index_was_loaded_is_named(spark, index, queries, tmp_path):
    place = tmp_path / "an [in]dex"
    index.save(place)
    replaced, loaded = load(spark, place), load(spark, place)
    index.save(place, overwrite=True)
    with pytest.raises(InputError, match=r"index: its file '.*part-0000.*cannot be read .*load it again"):
        replaced.query(queries)
    loaded = load(spark, place)
    for part in place.glob("part-*"):
        part.write_bytes(b"?" * part.stat().st_size)  # of the size that the manifest has
    with pytest.raises(InputError, match=r"cannot be read .*Not an Arrow file"):
        loaded.neighbors()
    with pytest.raises(InputError, match=r"cannot be read .*Not an Arrow file"):
        loaded.save(tmp_path / "copy")
    part.write_bytes(b"?")
    with pytest.raises(InputError, match=r"has 1 bytes and was saved with"):
        load(spark, place)
    assert files_in(tmp_path) == ["an [in]dex"]


@pytest.mark.slow
def test_a_loaded_index_is_saved_elsewhere_and_over_itself(spark, folder, queries, asked, tmp_path):
    load(spark, folder).save(tmp_path / "one")
    load(spark, tmp_path / "one").save(tmp_path / "one", overwrite=True)
    assert files_in(tmp_path) == ["one"]
    assert answered(load(spark, f"file://{tmp_path}/one"), queries)[0] == asked[0]


@pytest.mark.slow
def test_only_the_answer_stays_in_scratch(spark, queries, asked, tmp_path):
    before = count_cached(spark)
    with fit(make_table(spark, ROWS), recall=0.9, scratch=tmp_path, **QUICK) as fitted:
        assert len(files_in(tmp_path)) == 1
        result = fitted.query(queries, scratch=tmp_path)
        assert len(files_in(tmp_path)) == 2
    assert len(files_in(tmp_path)) == 1
    assert lists_of(result.table) == asked[0]
    assert count_cached(spark) == before
