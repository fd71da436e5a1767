"""An index answers queries: the lists are sound and the same to the bit, and their recall is what the report says."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from scipy.sparse import csr_array

from annspark import InputError, RecallMissed, SettingsError, build_neighbors, fit, load
from tests.helpers import clustered, configured, count_cached, files_in, lists_of, long_lists_of, make_table
from tests.oracle import answers_recall, assert_answers
from tests.test_metrics import table_of, vectors_for

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


def test_neighbors_of_an_index_are_those_of_a_build_to_the_bit_fresh_or_loaded(spark, index, folder):
    built = neighbors_of(build_neighbors(make_table(spark, ROWS, partitions=3), recall=0.9, **QUICK))
    assert neighbors_of(index.neighbors()) == built
    assert neighbors_of(load(spark, folder).neighbors()) == built


@pytest.mark.parametrize("named", [{"k": 5}, {"probes": 2}, {"recall": 0.8, "k": 3}, {"links": "mutual"}])
@pytest.mark.slow
def test_neighbors_of_an_index_with_other_settings_are_those_of_a_build_with_them(spark, index, folder, named):
    of_build = QUICK | ({} if "probes" in named else {"recall": 0.9}) | named
    built = neighbors_of(build_neighbors(make_table(spark, ROWS), **of_build))
    assert neighbors_of(index.neighbors(**named)) == built
    assert neighbors_of(load(spark, folder).neighbors(**named)) == built


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
        (1, 5, {"spark__sql__execution__arrow__maxRecordsPerBatch": 7}),
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


def test_same_ids_leave_out_the_own_id_only_and_keep_k_neighbors(spark, index):
    table = make_table(spark, ROWS[:300])
    lists, report = answered(index, table, same_ids=True)
    assert_answers(lists, ROWS[:300], ROWS, K, "cosine", same_ids=True)
    recall = answers_recall(lists, ROWS[:300], ROWS, K, "cosine", same_ids=True)
    assert report.recall.low <= recall <= report.recall.high
    lists, _ = answered(index, table)
    assert_answers(lists, ROWS[:300], ROWS, K, "cosine")
    assert all(lists[i][0] == (i, 0.0) for i in range(300))
