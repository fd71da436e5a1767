"""One vector at a time: what is held out, how an effort is found, who takes part, and the tables."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import annspark
from tests.helpers import REPOSITORY, clustered
from tests.oracle import between

pytest.importorskip("psutil", reason="the extra bench is not installed")

from jobs.benchmark import latency, threads
from jobs.benchmark.askers import ASKERS, Asker, open_annspark
from jobs.benchmark.latency import Ready, Timed, as_markdown, climb, hold_out, main, radius_of, take_turns
from jobs.benchmark.sets import load


@pytest.fixture(autouse=True)
def few_queries(monkeypatch):
    monkeypatch.setattr(latency, "QUERIES", 50)


def real(folder: Path, metric: str = "euclidean") -> str:
    np.savez(folder / "few.npz", X=clustered(400))
    np.savez(folder / "few.truth.npz", query_rows=[0], distances=[[0.0]], metric=metric)
    return str(folder / "few.npz")


class Exactly:
    """Stands for an index that compares a query with all rows, or with its first ten where it probes one leaf only."""

    def __init__(self, vectors):
        self.vectors, self.calls = vectors, []

    def search(self, vector, k=10, probes=None):
        self.calls.append((np.asarray(vector), k, probes))
        far = between(np.asarray(vector)[None], self.vectors[: 10 if probes == 1 else None], "cosine")[0]
        near = np.argsort(far)[:k]
        return near, far[near]


def test_the_rows_asked_follow_a_synthetic_set(tmp_path):
    data = hold_out("synthetic:300x8", tmp_path)
    np.testing.assert_array_equal(data.rows, load("synthetic:350x8"))
    assert (len(data.vectors), len(data.queries), data.metric) == (300, 50, "cosine")
    again = hold_out("synthetic:300x8", tmp_path)
    np.testing.assert_array_equal(again.rows, data.rows)


def test_the_rows_asked_are_drawn_from_a_file_and_left_out(tmp_path):
    data = hold_out(real(tmp_path), tmp_path / "cache")
    given, table = clustered(400), pq.read_table(data.folder / "vectors.parquet")
    assert (len(data.vectors), len(data.queries), data.metric) == (350, 50, "euclidean")
    assert {row.tobytes() for row in data.rows} == {row.tobytes() for row in given}
    assert data.queries.tobytes() != given[-50:].tobytes()
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), data.vectors)
    assert table["user_id"].to_pylist() == list(range(350))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("rows", [10, 37, 700])
def test_the_radius_is_the_exact_distance_of_the_tenth(metric, rows, monkeypatch):
    monkeypatch.setattr(latency, "BLOCK", 100)
    x = clustered(rows + 20)
    expected = np.sort(between(x[rows:], x[:rows], metric), axis=1)[:, 9]
    np.testing.assert_allclose(radius_of(x[:rows], x[rows:], metric), expected, rtol=1e-9, atol=1e-12)


def test_other_metrics_are_refused():
    with pytest.raises(ValueError, match="under cosine and euclidean only"):
        radius_of(clustered(20), clustered(20), "inner_product")


@pytest.mark.parametrize("enough", [1, 2, 4, 5, 8, 9])
def test_the_cheapest_effort_that_finds_enough_is_found(enough):
    assert climb(range(1, 10), lambda effort: 0.96 if effort >= enough else 0.9) == (enough, 0.96)


def test_threads_share_an_index_and_take_turns(tmp_path, monkeypatch, capsys):
    asked = []
    index = SimpleNamespace(search=lambda vectors, k: asked.append(len(vectors)))
    monkeypatch.setattr(threads, "open_index", {"DIR": index}.get)
    monkeypatch.setattr(threads, "ASKED", 40)
    monkeypatch.setattr(threads, "ONE_BY_ONE", 10)
    words = ["--sets", "synthetic:300x8", "--index", "synthetic:300x8=DIR", "--cache", str(tmp_path / "cache")]
    threads.main([*words, "--sizes", "1", "25", "--rounds", "2"])
    one, many = capsys.readouterr().out.splitlines()
    assert one.startswith("synthetic:300x8, arrays of 1: 1 thread(s) ")
    assert many.startswith("synthetic:300x8, arrays of 25: 1 thread(s) ")
    # All vectors once, then each size with each number of threads twice.
    assert sorted(asked) == [1] * 10 * 4 + [15] * 4 + [25] * 4 + [40]


def test_the_dearest_effort_is_told_where_none_finds_enough():
    assert climb(range(1, 10), lambda effort: effort / 100) == (9, 0.09)


def test_ladders_rise():
    for asker in ASKERS.values():
        assert list(asker.ladder) == sorted(set(asker.ladder)), asker.module


def test_an_index_of_annspark_is_asked_with_the_input_and_timed(tmp_path, monkeypatch):
    data, folder = hold_out("synthetic:300x8", tmp_path / "cache"), tmp_path / "index"
    other = tmp_path / "other"
    for place, leaf_rows in ((folder, 512), (other, 256)):
        place.mkdir()
        manifest = {"rows": 300, "dim": 8, "settings": {"leaf_rows": leaf_rows}}
        (place / "index.json").write_text(json.dumps(manifest))
    index = Exactly(data.vectors)
    opened = {str(folder): index, str(other): Exactly(data.vectors)}
    monkeypatch.setattr(annspark, "open_index", lambda path: opened[path], raising=False)
    words = ["--sets", "synthetic:300x8", "--systems", "annspark", "annspark-calibrated", "--cache"]
    words += [str(tmp_path / "cache"), "--index", f"synthetic:300x8={folder}", f"synthetic:300x8={other}"]
    words += ["--rounds", "3", "--asks", "20"]
    main([*words, "--out", str(tmp_path / "out")])
    told = json.loads((tmp_path / "out" / "latency.json").read_text())
    ours, smaller, calibrated, _ = told["results"]
    assert (ours["setting"], calibrated["setting"]) == ("leaf_rows=512 probes=2", "leaf_rows=512 probes=calibrated")
    assert smaller["setting"] == "leaf_rows=256 probes=2"
    assert ours["recall"] == calibrated["recall"] == 1
    assert ours["p99"] >= ours["p50"] > 0
    assert len(ours["round_p50"]) == 3
    assert ours["build_seconds"] is None
    assert ours["index_bytes"] == len((folder / "index.json").read_text())
    np.testing.assert_array_equal(index.calls[0][0], data.queries[0])
    assert "| **annspark** | leaf_rows=512 probes=2 | 1.0000 |" in (tmp_path / "out" / "latency.md").read_text()
    with pytest.raises(SystemExit, match="exists"):
        main([*words, "--out", str(tmp_path / "out")])


def test_who_takes_no_part_says_why(tmp_path, monkeypatch):
    data, folder = hold_out("synthetic:300x8", tmp_path), tmp_path / "index"

    def reason(system="annspark", index=folder):
        (one,) = latency.time_set(data, [system], [index] if index else [], 1, 1)
        return one.skipped

    assert "--index synthetic:300x8=DIR" in reason(index=None)
    assert "has no index.json" in reason()
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps({"rows": 301, "dim": 8}))
    assert "has 301 x 8 numbers" in reason()
    manifest = {"rows": 300, "dim": 8, "settings": {"leaf_rows": 512}}
    (folder / "index.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(annspark, "open_index", lambda path: Exactly(data.vectors), raising=False)
    monkeypatch.setitem(ASKERS, "annspark", Asker("annspark", "probes", (1,), open_annspark))
    assert reason().startswith("finds 0.")
    monkeypatch.setitem(ASKERS, "annoy", Asker("no_such_module", "", (1,), open_annspark))
    assert reason("annoy").startswith("not installed")


def test_the_systems_get_the_same_queries_and_another_begins_each_round():
    asked = []

    def ready(name):
        def ask(query):
            asked.append((name, query))
            return [], []

        return Ready(name, "", 1.0, ask, list(range(50)), None, 0)

    both = [ready("a"), ready("b")]
    take_turns(both, 3, 25)
    assert [query for _, query in asked[:100]] == [*range(50)] * 2  # all once, untimed
    del asked[:100]
    turn = latency.WARM + 25
    turns = [asked[start : start + turn] for start in range(0, len(asked), turn)]
    assert [{name for name, _ in one} for one in turns] == [{"a"}, {"b"}, {"b"}, {"a"}, {"a"}, {"b"}]
    timed = [[query for _, query in one[latency.WARM :]] for one in turns]
    assert timed == [[*range(25)]] * 2 + [[*range(25, 50)]] * 2 + [[*range(25)]] * 2
    assert [len(spent) for one in both for spent in one.spent] == [25] * 6


def test_a_vector_takes_the_median_of_its_answers():
    one = Ready("a", "", 1.0, lambda query: ([], []), list(range(4)), None, 0)
    # Three answers of each vector: something else held up one of the first, and two of the last.
    for spent in ([1000, 2000, 3000, 90_000], [1000, 80_000, 3000, 4000], [1000, 2000, 3000, 70_000]):
        one.spent.append(np.array(spent))
        one.cores.append(1.0)
    timed = latency.timed_of("set", one)
    assert (timed.p50, timed.p99) == (2.5, round(float(np.percentile([1, 2, 3, 70], 99)), 1))
    assert timed.all_p99 == round(float(np.percentile([*[1] * 3, *[3] * 3, 2, 2, 80, 90, 4, 70], 99)), 1)


def test_the_table_divides_by_the_least_of_a_rival_and_shows_growth():
    small, large = latency.GROWTH[:2]
    results = [
        Timed(small, "annspark", "probes=2", recall=0.96, p50=50.0, p99=90.0, all_p99=99.0, cores=0.5),
        Timed(
            small,
            "annoy",
            "n_trees=50",
            recall=0.95,
            p50=400.0,
            p99=900.0,
            all_p99=950.0,
            build_seconds=3.04,
            index_bytes=12345,
        ),
        Timed(small, "annoy", "n_trees=100", recall=0.95, p50=200.0, p99=1800.0),
        Timed(large, "annspark", "probes=2", recall=0.96, p50=75.0, p99=91.0),
        Timed(large, "hnswlib", "M=16", "not installed"),
    ]
    text = {"date": "today", "machine": latency.machine(), "versions": {}, "target": 0.95, "queries": 50}
    said = as_markdown(text | {"rounds": 1, "asks": 2}, results)
    assert f"| {small} | **annspark** | probes=2 | 0.9600 | 50 | 90 | 99 | 0.25, 0.10 | - | - | 0 |" in said
    assert f"| {small} | annoy | n_trees=50 | 0.9500 | 400 | 900 | 950 | 2.00, 1.00 | - | 3.0 | 12,345 |" in said
    assert f"- {large}, hnswlib M=16: not installed" in said
    assert "| **annspark** | 50 (90) | 75 (91) |" in said
    assert "| annoy | 200 (1,800) | - |" in said
    assert "shared: the systems had 0.00 to 0.50 of a core" in said


def test_a_set_is_prepared_and_the_fit_told(tmp_path, capsys):
    main(["--prepare", "--sets", real(tmp_path), "--cache", str(tmp_path / "cache")])
    said = capsys.readouterr().out
    assert "few: 350 x 16, euclidean" in said
    source = said.split("--input ")[1].split()[0]
    assert pq.read_metadata(source).num_rows == 350
    with pytest.raises(SystemExit):
        main(["--sets", real(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--sets", real(tmp_path), "--out", str(tmp_path), "--index", "other=DIR"])


@pytest.mark.slow
def test_a_library_is_built_once_and_timed(tmp_path):
    pytest.importorskip("faiss", reason="the extra bench is not installed")
    words = [sys.executable, "-m", "jobs.benchmark.latency", "--sets", "synthetic:1500x8", "--systems", "faiss-ivf"]
    words += ["--rounds", "2", "--asks", "50", "--cache", str(tmp_path / "cache")]
    for turn in ("first", "second"):
        done = subprocess.run(
            [*words, "--out", str(tmp_path / turn)], cwd=REPOSITORY, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
    first, second = (
        json.loads((tmp_path / turn / "latency.json").read_text())["results"] for turn in ("first", "second")
    )
    assert [one["system"] for one in first] == ["faiss-ivf"] * 2
    for one, again in zip(first, second, strict=True):
        assert one["recall"] == again["recall"] >= 0.95
        assert one["build_seconds"] == again["build_seconds"]
        assert one["index_bytes"] == again["index_bytes"] > 1500 * 8 * 4
        assert one["p99"] >= one["p50"] > 0
