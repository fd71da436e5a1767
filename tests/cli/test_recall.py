"""A recall that is asked for: missed, topped up, previewed; and tables of any make evaluated."""

import re
from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F

from annspark import InputError, RecallMissed, build_neighbors
from annspark.cli import main
from annspark.core.calibrate import choose_probes
from annspark.evaluate import evaluate_neighbors
from annspark.settings import Settings
from tests.helpers import count_cached, files_in, lists_of, make_table, read_report

ROWS, K = 3000, 8
QUICK = ["--k", str(K), "--leaf-rows", "60", "--audit-users", "300"]


@pytest.fixture(scope="module")
def vectors():
    # No structure to speak of: many leaves are needed for a high recall.
    return np.random.default_rng(8).normal(size=(ROWS, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def source(spark, tmp_path_factory, vectors):
    path = str(tmp_path_factory.mktemp("recall") / "in")
    make_table(spark, vectors).write.parquet(path)
    return path


@pytest.fixture
def misled(monkeypatch):
    """Have calibration promise much of few probes."""

    def promise(*arguments):
        return replace(choose_probes(*arguments), probes=6.0)

    monkeypatch.setattr("annspark.core.calibrate.choose_probes", promise)


def build(source, output, *more):
    return main(["build", "--input", source, "--output", str(output), *QUICK, *more])


SLOW = pytest.mark.slow


@pytest.mark.parametrize("target", ["0.7", pytest.param("0.95", marks=SLOW)])
def test_a_run_that_ends_well_has_the_recall_asked_for_and_evaluates_to_it(source, tmp_path, capsys, target):
    assert build(source, tmp_path / "out", "--recall", target) == 0
    report = read_report(tmp_path / "out.report")
    assert report["recall"]["high"] >= float(target)
    goal = report["calibration"]
    assert goal["low"] >= float(target)
    assert report["recall"]["low"] - 0.02 <= goal["predicted"] <= report["recall"]["high"] + 0.02
    assert report["recall"]["mean"] < float(target) + 0.06  # and not much more than that was paid for
    capsys.readouterr()
    assert evaluate(source, tmp_path / "out", "--audit-users", "300", "--report", str(tmp_path / "told")) == 0
    found = read_report(tmp_path / "told")
    assert found["recall"] == report["recall"]
    assert (found["rows"]["written"], found["calibration"], found["cost"]) == (ROWS, None, None)
    assert f"{found['recall']['mean']:.4f} of the exact {K} nearest" in capsys.readouterr().out
    assert "report.html" in files_in(tmp_path / "told")


def test_a_missed_target_publishes_nothing_and_says_what_would_meet_it_which_then_does(
    source, tmp_path, misled, capsys
):
    assert build(source, tmp_path / "out", "--recall", "0.5") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    report = (tmp_path / "out.report" / "report.json").read_bytes()
    capsys.readouterr()
    assert build(source, tmp_path / "out", "--recall", "0.99", "--overwrite") == 4
    said = capsys.readouterr().err
    assert "0.99 was asked for" in said
    assert "Nothing was published" in said
    assert "Set probes to " in said
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert (tmp_path / "out.report" / "report.json").read_bytes() == report
    assert files_in(tmp_path) == ["out", "out.report"]
    assert files_in(tmp_path / "out.report") == ["earlier", "missed.html", "missed.json", "report.html", "report.json"]
    enough = said.split("Set probes to ")[1].split(",")[0]
    assert build(source, tmp_path / "out", "--probes", enough, "--overwrite") == 0
    assert read_report(tmp_path / "out.report")["recall"]["high"] >= 0.99
    # A good night takes the news of a bad one away.
    assert files_in(tmp_path / "out.report") == ["earlier", "report.html", "report.json"]
    assert 1 <= len(files_in(tmp_path / "out.report" / "earlier")) <= 3  # all may fall into one second


@pytest.mark.slow
def test_in_a_notebook_a_missed_target_is_an_error_that_carries_the_report(spark, vectors, misled):
    table, before = make_table(spark, vectors), count_cached(spark)
    with pytest.raises(RecallMissed) as missed:
        build_neighbors(table, k=K, leaf_rows=60, audit_users=200, recall=0.99)
    assert missed.value.report.recall.high < 0.99
    assert not missed.value.report.passed
    assert count_cached(spark) == before


@pytest.mark.slow
def test_the_flag_that_tops_up_adds_a_tree(spark, source, tmp_path, misled):
    assert build(source, tmp_path / "out", "--recall", "0.98", "--top-up") in (0, 4)
    name = "report" if (tmp_path / "out").exists() else "missed"
    report = read_report(tmp_path / "out.report", name)
    assert report["topped_up"] == 1
    assert report["rows"]["written"] == ROWS


@pytest.mark.parametrize("shape", ["nested", pytest.param("long", marks=SLOW)])
def test_a_topped_up_table_is_better_and_never_worse_for_anybody(spark, vectors, misled, shape):
    table = make_table(spark, vectors)
    named = {"k": K, "leaf_rows": 60, "audit_users": 200, "shape": shape}
    few = build_neighbors(table, probes=6, **named)
    before = count_cached(spark)
    # Far above what six probes give, and below what another tree makes of it.
    target = few.report.recall.high + 0.01
    more = build_neighbors(table, recall=target, top_up=True, **named)
    assert more.report.topped_up == 1
    assert more.report.recall.mean > few.report.recall.mean + 0.02
    assert more.report.cost.pairs_per_user > 1.5 * few.report.cost.pairs_per_user
    assert more.report.rows.written == ROWS
    assert count_cached(spark) == before + 1
    lists = [nested(result.table, shape) for result in (few, more)]
    assert sorted(lists[1]) == list(range(ROWS))
    for user, neighbors in lists[0].items():
        worse = [distance for _, distance in neighbors]
        better = [distance for _, distance in lists[1][user]]
        assert len({other for other, _ in lists[1][user]} - {user}) == K
        assert all(a <= b for a, b in zip(better, worse, strict=True))
    assert any(lists[0][user] != lists[1][user] for user in lists[0])
    few.table.unpersist()
    more.table.unpersist()


def nested(table, shape):
    if shape == "nested":
        return lists_of(table)
    lists = {}
    for user, _, other, distance in sorted(table.collect()):
        lists.setdefault(user, []).append((other, distance))
    return lists


def test_a_preview_tells_what_the_run_then_does_and_publishes_nothing(source, tmp_path, capsys):
    assert build(source, tmp_path / "out", "--recall", "0.9", "--plan") == 0
    said = capsys.readouterr().out
    assert files_in(tmp_path) == []
    assert f"{ROWS:,} of {ROWS:,} rows would be in the table" in said
    assert "Nothing was published" in said
    assert build(source, tmp_path / "out", "--recall", "0.9") == 0
    report = read_report(tmp_path / "out.report")
    assert f"{report['calibration']['predicted']:.4f} predicted" in said
    assert f"{report['calibration']['probes']:g} probes" in said
    told = said.split("cost ")[1].split("\n")[0].replace(",", "").split()
    assert float(told[0]) == pytest.approx(report["cost"]["pairs_per_user"], rel=0.1)
    assert float(told[3]) == pytest.approx(report["cost"]["copies_per_user"], rel=0.05)


def test_a_plan_for_more_rows_and_cores_tells_their_probes_cost_and_bytes(source, tmp_path, capsys):
    flags = ["--recall", "0.9", "--plan", "--rows", str(4 * ROWS), "--cores", "16"]
    assert build(source, tmp_path / "out", *flags) == 0
    assert files_in(tmp_path) == []
    said = capsys.readouterr().out.replace(",", "")
    lines = {line.split(" ")[0]: line for line in said.splitlines()}
    assert lines["planned"].split()[1:] == [str(4 * ROWS), "rows", "16", "cores"]
    of_input, probes, low, high, rows = re.search(
        r": ([\d.]+) probes for the input's rows ([\d.]+) probes \(([\d.]+) to ([\d.]+)\) for (\d+)$", lines["recall"]
    ).groups()
    assert int(rows) == 4 * ROWS
    assert 1 <= float(low) <= float(probes) <= float(high) <= 4 * float(of_input)
    leaf_rows = 4 * ROWS / int(lines["leaves"].split()[1].rstrip(":"))
    # A user is compared with the residents of the leaves it goes to, and with the visitors of its own.
    pairs = float(lines["cost"].split()[1])
    assert leaf_rows < pairs < 4 * float(probes) * leaf_rows
    total, *steps = map(float, re.findall(r"\d+", lines["work"]))
    assert sum(steps) == pytest.approx(total, abs=len(steps))
    assert re.search(r"\d+ MB in a Python worker .* \d+ MB for Java's heap \d+ MB of intermediate", lines["memory"])
    assert re.search(r"some \d+ \(\d+ to \d+\) for a run", lines["seconds"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rows", "10000000"], "--rows given without --plan. Add --plan"),
        (["--rows", "10000000", "--cores", "8"], "--rows and --cores given without --plan"),
        (["--plan", "--rows", "0"], "'rows' is 0; it must be a whole number from 1"),
        (["--plan", "--cores", "0"], "'cores' is 0; it must be"),
        (["--plan", "--rows", "10"], f"'rows' is 10, and the input has {ROWS:,}. Plan for at least as many."),
    ],
)
def test_a_size_that_cannot_be_planned_for_is_code_2(source, tmp_path, capsys, flags, words):
    assert build(source, tmp_path / "out", *flags) == 2
    assert words in capsys.readouterr().err
    assert files_in(tmp_path) == []


def evaluate(source, neighbors, *more):
    return main(["evaluate", "--input", source, "--neighbors", str(neighbors), "--k", str(K), *more])


def test_tables_of_others_count_true_neighbors_only(spark, vectors, source, tmp_path, caplog):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1)[:, : K + 1].tolist()
    # The user itself first, as many libraries have it; users 0..999 have none, 1000..1999 one neighbor K times, and all
    # others a stranger last.
    lists = [(i, others[:1] * K if i < 2000 else [*[i, *(j for j in others if j != i)][:K], 10**6])
             for i, others in enumerate(near) if i >= 1000]  # fmt: skip
    table = spark.createDataFrame(lists, "user_id long, neighbors array<long>")
    table.write.parquet(str(tmp_path / "ids"))
    assert evaluate(source, tmp_path / "ids", "--audit-users", str(ROWS), "--report", str(tmp_path / "told")) == 0
    found = read_report(tmp_path / "told")
    # A thousand users with K - 1 of K: the first place is their own.
    assert found["recall"]["mean"] == pytest.approx((K - 1) / K / 3, abs=1e-6)
    assert found["rows"]["written"] == 2000
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "1,000 x unknown neighbor" in said
    assert "x own neighbor" in said
    assert "2,000 x user without neighbors" in said


@pytest.mark.parametrize("order", ["rank", pytest.param("distance", marks=SLOW)])
def test_a_row_per_neighbor_is_read_by_rank_or_distance(spark, vectors, source, tmp_path, order):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1)[:, 1 : 3 * K + 1]
    rows = [(i, int(j), float(place)) for i in range(0, ROWS) for place, j in enumerate(near[i])]
    table = spark.createDataFrame(rows, f"user_id long, neighbor_id long, {order} float").orderBy(F.rand(3))
    table.write.parquet(str(tmp_path / "long"))
    assert evaluate(source, tmp_path / "long", "--report", str(tmp_path / "told")) == 0
    assert read_report(tmp_path / "told")["recall"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("schema", "part"),
    [("id long, neighbors array<long>", "no column 'user_id'"), ("user_id long, others array<long>", "'neighbor_id'")],
)
def test_a_table_that_is_none_of_neighbors_is_an_input_error(spark, source, tmp_path, capsys, schema, part):
    spark.createDataFrame([], schema).write.parquet(str(tmp_path / "odd"))
    assert evaluate(source, tmp_path / "odd") == 3
    assert part in capsys.readouterr().err


def test_null_and_foreign_ids_are_nobody(spark, vectors, source, tmp_path):
    rows = [(None, "3"), ("u7", "3"), ("5", None), ("5", "u8"), ("5", "6")]
    spark.createDataFrame(rows, "user_id string, neighbor_id string").write.parquet(str(tmp_path / "odd"))
    assert evaluate(source, tmp_path / "odd", "--audit-users", str(ROWS), "--report", str(tmp_path / "told")) == 0
    assert read_report(tmp_path / "told")["recall"]["mean"] < 1 / ROWS + 1e-9


@pytest.mark.slow
def test_what_cannot_be_drawn_costs_no_night(source, tmp_path, monkeypatch, misled):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("annspark.report.store.render_page", fail)
    assert build(source, tmp_path / "out", "--recall", "0.5") == 0
    assert files_in(tmp_path / "out.report") == ["earlier", "report.json"]
    monkeypatch.setattr("annspark.report.store.files.text_once_done", fail)
    assert build(source, tmp_path / "out", "--recall", "0.99", "--overwrite") == 4


def test_recall_and_probes_together_are_refused(source, tmp_path, capsys):
    assert build(source, tmp_path / "out", "--recall", "0.9", "--probes", "3") == 2
    assert "Give one" in capsys.readouterr().err


def test_evaluate_measures_all_neighbors_where_nothing_says_which_come_first(spark, vectors):
    some = vectors[:400]
    unit = some / np.linalg.norm(some, axis=1, keepdims=True)
    far = 1 - (unit @ unit.T).astype(np.float64) + 9 * np.eye(len(some))
    listed = np.argsort(far, axis=1)[:, : 2 * K]
    shuffled = np.random.default_rng(1).permuted(listed, axis=1)
    rows = [(user, int(other), float(-far[user, other])) for user in range(400) for other in shuffled[user]]
    table, schema = make_table(spark, some), "user_id bigint, neighbor_id bigint, score double"
    pairs = spark.createDataFrame(rows, schema)
    settings = Settings(k=K, audit_users=200)

    def recall(neighbors):
        return evaluate_neighbors(table, neighbors, settings, {}).recall.mean

    assert recall(pairs) == 1  # all of them are measured
    assert recall(pairs.withColumn("distance", -F.col("score"))) == 1
    of_user = F.collect_list(F.struct("neighbor_id", (-F.col("score")).alias("distance"))).alias("neighbors")
    assert recall(pairs.orderBy(F.rand(1)).groupBy("user_id").agg(of_user)) == 1  # in no order but that of distances
    # Told that the farther half comes first, the nearer is not looked at.
    assert recall(pairs.withColumn("rank", F.rank().over(Window.partitionBy("user_id").orderBy("score")))) == 0
    with pytest.raises(InputError, match="neighbors column 'rank' is string; it must be a number"):
        recall(pairs.withColumn("rank", F.lit("1")))
    with pytest.raises(InputError, match="neighbors: 2 columns are named 'neighbor_id'"):
        recall(pairs.select("*", F.col("user_id").alias("Neighbor_Id")))
