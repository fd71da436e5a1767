"""The benchmark: its sets, scores, plan, watch over processes and tables; the joins and core-seconds beside it."""

import json
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers import REPOSITORY, clustered
from tests.oracle import all_distances, exact_distances

psutil = pytest.importorskip("psutil", reason="the extra bench is not installed")

from jobs.benchmark import commands, core_seconds, joins, libraries, spark_systems  # noqa: E402
from jobs.benchmark.runs import OK, Run, is_pointless, measure, order_of, read_results, score, write_results  # noqa: E402
from jobs.benchmark.sets import Data, load, prepare  # noqa: E402
from jobs.benchmark.summary import Point, as_markdown, seconds_at  # noqa: E402
from jobs.benchmark.synthetic import CHUNK, KINDS, chunks  # noqa: E402
from jobs.benchmark.systems import SYSTEMS, as_text  # noqa: E402
from jobs.benchmark.watch import reason, watch  # noqa: E402


def run(system="annspark", rung=0, recall=0.9, seconds=10.0, status=OK, repeat=1, **more):
    setting = as_text(SYSTEMS[system].ladder[rung])
    return Run("set", system, setting, repeat, status, seconds, 100.0, work=seconds - 4, recall=recall, **more)


def write_table(path, rows):
    kind = pa.list_(pa.struct([("neighbor_id", pa.int64()), ("distance", pa.float32())]))
    lists = [[{"neighbor_id": other, "distance": 0.0} for other in others] for others in rows.values()]
    pq.write_table(pa.table({"user_id": list(rows), "neighbors": pa.array(lists, kind)}), path)


def test_seconds_between_two_settings_go_with_the_logarithm_of_the_misses():
    points = [Point("a", 0.9, 10.0), Point("b", 0.99, 40.0)]
    reading = seconds_at(1 - 0.1**1.5, points)
    assert reading.seconds == pytest.approx(20)
    assert (reading.below, reading.above) == ("a", "b")
    assert seconds_at(0.99, points).seconds == 40


def test_seconds_are_never_guessed_beyond_the_settings_tried():
    points = [Point("a", 0.9, 10.0), Point("b", 0.96, 40.0)]
    assert seconds_at(0.97, points) is None
    assert seconds_at(0.5, points).at_most
    assert seconds_at(0.5, points).seconds == 10
    assert seconds_at(0.9, []) is None


def test_a_setting_that_another_beats_in_both_takes_no_part():
    points = [Point("a", 0.8, 10.0), Point("worse", 0.9, 50.0), Point("b", 0.96, 40.0)]
    assert seconds_at(0.9, points).above == "b"


def test_every_system_has_its_code():
    codes = {kind: {one.code for one in SYSTEMS.values() if one.runner == kind} for kind in ("library", "spark")}
    assert codes["library"] == set(libraries.SEARCHES)
    assert codes["spark"] == set(spark_systems.SEARCHES) == set(spark_systems.CONF)


def test_a_library_writes_what_it_finds_without_oneself_and_tells_its_phases(tmp_path, monkeypatch, capsys):
    def search(library, vectors, metric, setting):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
        far = all_distances(vectors, metric)
        rows = np.argsort(far, axis=1, kind="stable")[:, : setting["most"]]
        rows[0, -1] = -1
        return rows, np.take_along_axis(far, rows, axis=1)

    monkeypatch.setitem(libraries.SEARCHES, "json", search)  # any module can be imported in its place
    data = prepare("synthetic:40x8", tmp_path)
    libraries.main("json", str(data.folder / "vectors.parquet"), str(tmp_path / "table"), "cosine", '{"most": 11}')
    assert set(json.loads(capsys.readouterr().out)) == {"import", "load", "compute", "write"}
    found = score(tmp_path / "table", np.load(data.folder / "vectors.npy"), dict(np.load(data.folder / "truth.npz")))
    assert found.recall == pytest.approx((40 * 10 - 1) / 400)
    assert found.faults == {"short": 1}


def test_the_order_interleaves_the_systems_in_every_repeat():
    plan = list(order_of(["one"], ["annspark", "faiss-exact", "hnswlib"], 2))
    assert [(repeat, system, rung) for repeat, _, system, rung in plan[:5]] == [
        (1, "annspark", 0), (1, "faiss-exact", 0), (1, "hnswlib", 0), (1, "annspark", 1), (1, "hnswlib", 1),
    ]  # fmt: skip
    assert len(plan) == len(set(plan)) == 2 * (1 + len(SYSTEMS["annspark"].ladder) + len(SYSTEMS["hnswlib"].ladder))


@pytest.mark.parametrize(
    ("earlier", "pointless"),
    [
        ([run(rung=1)], False),
        ([run(rung=1, recall=0.997)], True),
        ([run(rung=2, recall=0.997)], False),
        ([run(rung=1, status="did not finish in 9 s")], True),
        ([run(rung=3, status="failed")], False),
        ([run("hnswlib", rung=1, recall=0.997)], False),
    ],
)
def test_the_ladder_ends_where_enough_is_found_or_a_setting_failed(earlier, pointless):
    assert is_pointless(earlier, "set", "annspark", 2) is pointless
    assert not is_pointless(earlier, "other", "annspark", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_synthetic_set_is_the_beginning_of_a_larger_one(kind):
    (small,), large = chunks(kind, 500, 8), list(chunks(kind, CHUNK + 300, 8))
    assert [len(chunk) for chunk in large] == [CHUNK, 300]
    np.testing.assert_array_equal(small, large[0][:500])
    np.testing.assert_array_equal(small, load(f"{kind}:500x8"))
    assert not np.array_equal(small, next(chunks(kind, 500, 8, seed=1)))
    assert small.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_the_structure_of_synthetic_sets_does_not_change_along_the_stream(kind):
    halves = list(chunks(kind, 2 * CHUNK, 16))
    for numbers in (
        lambda x: np.linalg.norm(x, axis=1),
        lambda x: x[:, 0],
        lambda x: np.sort(all_distances(x[:2000], "cosine"), axis=1)[:, 10],
    ):
        a, b = (np.quantile(numbers(half), [0.1, 0.5, 0.9]) for half in halves)
        np.testing.assert_allclose(a, b, atol=0.05 * np.abs(a).max())


def test_synthetic_users_are_clustered_and_their_norms_skewed():
    vectors = load(f"synthetic:{4 * CHUNK}x64")  # some ten of each interest
    shuffled = np.random.default_rng(0).permuted(vectors, axis=0)  # the same numbers without the structure
    some = np.arange(100)
    near, far = (np.median(exact_distances(x, some, 10, "cosine")[:, -1]) for x in (vectors, shuffled))
    norms = np.linalg.norm(vectors, axis=1)
    assert near < 0.85 * far
    assert np.quantile(norms, 0.95) > 2 * np.median(norms)


def test_synthetic_texts_share_words_and_have_length_1():
    vectors = load("synthetic-text:10000x128")
    shuffled = np.random.default_rng(0).permuted(vectors, axis=0)
    some = np.arange(100)
    near, far = (np.median(exact_distances(x, some, 10, "cosine")[:, -1]) for x in (vectors, shuffled))
    assert near < 0.85 * far
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_beginning_of_a_set_has_exact_neighbors_of_its_own(tmp_path, metric):
    x = np.random.default_rng(0).normal(size=(1500, 5))
    np.savez(tmp_path / "real.set.npz", X=x)
    np.savez(tmp_path / "real.set.truth.npz", query_rows=[0], distances=[[0.0]], metric=metric)
    data = prepare(f"{tmp_path}/real.set.npz@1200", tmp_path / "cache")
    truth = np.load(data.folder / "truth.npz")
    expected = np.sort(all_distances(x[:1200].astype(np.float32), metric), axis=1)[truth["query_rows"], 1:11]
    assert (data.name, data.rows, data.metric) == ("real.set@1200", 1200, metric)
    assert len(truth["query_rows"]) == 1000
    np.testing.assert_allclose(truth["distances"], expected, atol=1e-7)
    assert pq.read_metadata(data.folder / "vectors.parquet").num_row_groups == 8


def test_recall_counts_ties_and_neither_oneself_nor_repetitions(tmp_path):
    x = np.array([[0.0], *[[1.0]] * 12, *[[5.0]] * 12], np.float32)
    truth = {"query_rows": np.array([0]), "distances": np.ones((1, 10)), "metric": np.array("euclidean")}

    def recall_of(*others):
        write_table(tmp_path / "table", {0: others})
        return score(tmp_path / "table", x, truth)

    assert recall_of(*range(1, 11)).recall == 1
    assert recall_of(*range(3, 13)).recall == 1  # others as near as those that the truth may mean
    assert recall_of(*range(1, 13)).recall == 1
    assert recall_of(1, 2, 13, 14).recall == 0.2
    found = recall_of(0, 1, 1, *range(13, 20))
    assert found.recall == 0.1
    assert found.faults == {"missing": len(x) - 1, "short": 1, "own neighbor": 1, "twice the same": 1}


def test_a_run_over_its_limit_is_ended_with_its_children(tmp_path):
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    start = time.perf_counter()
    seen = watch([sys.executable, "-c", code], {}, tmp_path, 3)
    assert time.perf_counter() - start < 20
    assert seen.status == "did not finish in 3 s"
    assert seen.peak_mb > 1
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_failed_run_says_why(tmp_path):
    assert watch([sys.executable, "-c", "raise ValueError('no such luck')"], {}, tmp_path, 30).status == (
        "failed: ValueError: no such luck"
    )


def test_the_reason_of_javas_is_no_frame_of_its_stack():
    said = """
        : org.apache.spark.SparkException: Job aborted.
        \tat org.apache.spark.util.SparkErrorUtils.tryWithSafeFinally(SparkErrorUtils.scala:64)
        Caused by: java.lang.OutOfMemoryError: Java heap space
        \tat org.apache.spark.util.SparkErrorUtils.tryWithSafeFinally$(SparkErrorUtils.scala:83)
        \t... 21 more
    """
    assert reason(said, 1) == "Caused by: java.lang.OutOfMemoryError: Java heap space"


def test_a_system_whose_packages_cannot_be_had_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setitem(commands.OWN_PACKAGES, "hnswlib-spark", ["--no-index", "no-such-package"])
    commands.python_for.cache_clear()
    data = Data("set", tmp_path / "set", 10, 2, "cosine")
    assert measure(data, "hnswlib-spark", {}, 1, 60).status.startswith("unavailable: ")
    assert measure(data, "hnswlib-spark", {}, 2, 60).status.startswith("unavailable: ")
    commands.python_for.cache_clear()


def test_the_table_has_seconds_at_recalls_cold_and_warm_and_says_what_failed(tmp_path):
    runs = [
        run(rung=0, recall=0.85, seconds=10.0),
        *(run(rung=2, recall=0.96, seconds=seconds, phases={"audit": 2.5}) for seconds in (19.0, 20.0, 90.0)),
        run("hnswlib", status="unavailable: no | wheel"),
    ]
    data = Data("set", tmp_path, 1000, 8, "cosine")
    write_results(tmp_path / "results.json", runs, [data])
    assert read_results(tmp_path / "results.json") == runs
    lines = as_markdown(json.loads((tmp_path / "results.json").read_text()), runs).splitlines()
    (ours,) = [line for line in lines if line.startswith("| **annspark** |")]
    cells = [cell.strip() for cell in ours.split("|")]
    assert cells[2].endswith("probes=1 .. probes=2")
    assert 10 < float(cells[2].split()[0]) < 20
    assert 6 < float(cells[2].split("(")[1].split(")")[0]) < 16
    assert cells[4] == "not reached (best 0.9600)"
    assert "| annspark | probes=2 | 0.9600 | 20.0 | 16.0 | 4.0 | 2.5 | 100 | 3 |" in lines
    assert any("unavailable: no / wheel" in line for line in lines)


def test_a_sweep_leaves_results_and_resumes_where_it_stopped(tmp_path):
    pytest.importorskip("faiss", reason="the extra bench is not installed")
    pytest.importorskip("matplotlib", reason="the extra bench is not installed")
    words = [sys.executable, "-m", "jobs.benchmark", "--sets", "synthetic:1500x8", "--limit", "60"]
    words += ["--systems", "faiss-exact", "--out", f"{tmp_path}/out", "--cache", f"{tmp_path}/cache", "--repeats"]

    def sweep(*more):
        return subprocess.run([*words, *more], cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)

    done = sweep("1")
    assert done.returncode == 0, done.stderr
    (first,) = read_results(tmp_path / "out" / "results.json")
    assert (first.status, first.recall, first.faults) == (OK, 1.0, {})
    assert first.seconds > first.work > 0
    assert first.peak_mb > 10
    assert "| faiss-exact | as it is | 1.0000 |" in (tmp_path / "out" / "results.md").read_text()
    assert (tmp_path / "out" / "results.png").read_bytes().startswith(b"\x89PNG")

    assert "--resume" in sweep("2").stderr
    done = sweep("2", "--resume")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert [one.repeat for one in read_results(tmp_path / "out" / "results.json")] == [1, 2]


def test_joins_are_compared(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "few.npz", X=clustered(400))
    other = tmp_path / "nobody.py"
    other.write_text(
        "import numpy as np\n\ndef join(vectors, leaf, k):\n    return (np.full((len(vectors), k), -1),)\n"
    )
    asked = ["--other", str(other), "--sets", str(tmp_path / "few.npz"), "--probes", "1", "4", "--leaf", "100"]
    monkeypatch.setattr(sys, "argv", ["joins", *asked, "--repeats", "1"])
    joins.main()
    one, four = capsys.readouterr().out.splitlines()
    assert one.startswith("few, 400 x 16, 1 probes, ")
    assert "4 probes, 400 pairs a row" in four  # of four leaves everybody meets everybody
    assert ", recall 1.0000; other " in four
    assert ", 0.0000; product " in four


def test_what_is_spent_between_two_looks_is_divided_among_the_steps_by_time():
    worker, java = (1, "1"), (2, "3")
    looks = [
        (2.0, {worker: ("Python", 1.0)}),
        (4.0, {worker: ("Python", 3.0), java: ("compilers", 1.0)}),
        (6.0, {java: ("compilers", 1.5)}),
    ]
    steps = [("start", 0.0, 3.0), ("read", 3.0, 5.0), ("exit", 5.0, 7.0)]
    start, step, end = core_seconds.divide(steps, looks)
    assert [one[0] for one in (start, step, end)] == ["start", "read", "exit"]
    assert [one[1] for one in (start, step, end)] == [3, 2, 2]
    assert [one[2]["Python"] for one in (start, step, end)] == [2, 1, 0]
    assert [one[2]["compilers"] for one in (start, step, end)] == [0.5, 0.75, 0.25]


def test_steps_are_placed_before_the_moment_their_report_was_made(tmp_path):
    seconds = {"total": 6.0, "read": 2.0, "join": 4.0}
    (tmp_path / "report.json").write_text(json.dumps({"created": "1970-01-01T00:01:50+00:00", "seconds": seconds}))
    steps = core_seconds.steps_of(tmp_path / "report.json", 100.0, 112.0)
    assert steps == [("start", 100, 104.5), ("read", 104.5, 106.5), ("join", 106.5, 110.5), ("publish", 110.5, 112)]


def test_growth_is_told_for_a_row_and_a_step(tmp_path):
    def built(rows, join, calibration):
        report = {"recall": {"mean": 0.951}, "calibration": calibration, "settings": {"probes": 2}}
        report["cost"] = {"pairs_per_user": 1234.4, "copies_per_user": 3.5}
        steps = [("read", 1.0, {"Python": 0.5, "collector": 0.5}), ("join", 2.0, {"Python": join})]
        return core_seconds.Built(Data(f"{rows} rows", tmp_path, rows, 8, "cosine"), report, steps)

    said = core_seconds.as_growth([built(10_000, 2.0, {"probes": 33.44}), built(100_000, 40.0, None)]).splitlines()
    assert said[0] == "| | 10000 rows | 100000 rows |"
    assert said[2:] == [
        "| recall | 0.9510 | 0.9510 |",
        "| probes | 33.4 | 2.0 |",
        "| pairs of a row | 1,234 | 1,234 |",
        "| copies of a row | 3.50 | 3.50 |",
        "| read, us | 100.0 | 10.0 |",
        "| join, us | 200.0 | 400.0 |",
        "| all, us | 300.0 | 410.0 |",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what threads have spent")
def test_core_seconds_of_a_build_are_told_by_step(tmp_path, monkeypatch, capsys):
    words = ["core_seconds", "--sets", "synthetic:500x8", "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    core_seconds.main()
    name, _, _, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert name == "synthetic:500x8"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    spent = {name: [float(cell) for cell in cells] for name, *cells in rows}
    assert {"start", "read", "join", "audit", "publish", "all"} <= set(spent)
    assert min(spent["all"]) > 0
    assert spent["all"][1] == pytest.approx(sum(spent["all"][2:]), abs=0.3)
    assert spent["all"][0] == pytest.approx(sum(cells[0] for name, cells in spent.items() if name != "all"), abs=0.5)
