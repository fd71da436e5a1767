"""The check_*.py scripts: independent answers, what a table is judged by, and each script once."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("psutil", reason="the extra bench is not installed")
sparse = pytest.importorskip("scipy.sparse", reason="the extra sparse is not installed")

import check_cpu  # noqa: E402
import check_degenerate  # noqa: E402
import check_join  # noqa: E402
import check_metrics  # noqa: E402
import check_sparse  # noqa: E402
from check import known, pruning, rivals  # noqa: E402
from check.cases import CASES  # noqa: E402
from check.cpu import by_step  # noqa: E402
from check.exact import distances, score  # noqa: E402
from check.rows import as_bits, load, read_rows, write_rows  # noqa: E402
from check.rows import sparse as as_sparse  # noqa: E402
from check.sparse_cases import draw  # noqa: E402
from check.table import read_found  # noqa: E402
from check.truth import recall_under_cosine  # noqa: E402
from tests.helpers import clustered  # noqa: E402


def save_sparse(path, rows):
    np.savez(path, data=rows.data, indices=rows.indices, indptr=rows.indptr, shape=rows.shape)


def as_tables(lists, value="distance"):
    kind = pa.list_(pa.struct([("neighbor_id", pa.int64()), (value, pa.float32())]))
    named = [[{"neighbor_id": other, value: far} for other, far in one] for one in lists.values()]
    return pa.table({"user_id": list(lists), "neighbors": pa.array(named, kind)})


@pytest.mark.parametrize(
    ("metric", "far"),
    [
        ("cosine", 1 - 3 / 50**0.5),
        ("euclidean", 3),
        ("manhattan", 5),
        ("inner_product", -3),
        ("hamming", 3),
    ],
)
def test_dense_distances_are_those_of_the_definition(metric, far):
    rows = np.array([[1, 2, 0], [3, 0, 1], [0, 0, 1]], np.float32)
    assert distances(rows, np.array([1]), metric)[0, 0] == pytest.approx(far)


def test_sparse_distances_are_those_of_the_same_rows_dense():
    rows = as_sparse(np.array([1, 2, 3, 1, 1]), np.array([0, 1, 0, 2, 2]), np.array([0, 2, 4, 5]), (3, 3))
    asked = np.array([1, 2])
    for metric in ("cosine", "euclidean", "inner_product"):
        dense = distances(rows.toarray().astype(np.float32), asked, metric)
        np.testing.assert_allclose(distances(rows, asked, metric), dense, atol=1e-12)
    np.testing.assert_allclose(distances(rows, asked, "jaccard")[0], [2 / 3, 0, 0.5])
    empty = as_sparse(np.ones(1), np.zeros(1), np.array([0, 1, 1, 1]), (3, 1))
    np.testing.assert_allclose(distances(empty, np.array([1]), "jaccard")[0], [1, 0, 0])


def test_ties_count_and_errors_of_distances_are_seen():
    rows = np.array([[0.0], [1], [-1], [1], [5]], np.float32)
    near, told = np.array([[3, 2]]), np.array([[1, 1.5]])
    assert score(rows, "euclidean", np.array([0]), near, told) == (1.0, 0.5)
    assert score(rows, "euclidean", np.array([0]), np.array([[1, 4]]), np.array([[1, 5.0]])) == (0.5, 0.0)
    near, told = np.array([[4, 3]]), np.array([[-5.0, -1]])
    assert score(rows, "inner_product", np.array([1]), near, told) == (1.0, 0.0)


def test_a_table_is_judged(tmp_path):
    whole = {0: [(1, 0.5), (2, 0.5)], 2: [(0, 0.1), (1, 0.2)], 1: [(0, 0.1), (2, 0.2)]}
    pq.write_table(as_tables(whole), tmp_path / "whole")
    found = read_found(tmp_path / "whole", 3, 10)
    assert found.faults == {}
    assert found.near.tolist() == [[1, 2], [0, 2], [0, 1]]
    bad = {0: [(2, 0.5), (1, 0.5)], 1: [(1, 0.1)], 3: [(0, 0.2), (0, float("nan"))]}
    pq.write_table(as_tables(bad), tmp_path / "bad")
    assert read_found(tmp_path / "bad", 4, 2).faults == {
        "missing": 1, "short": 1, "own neighbor": 1, "twice the same": 1, "out of order": 1, "not a number": 1,
    }  # fmt: skip
    products = {0: [(1, 3.0), (2, 2.0)], 1: [(0, 3.0), (2, 1.0)], 2: [(0, 2.0), (1, 1.0)]}
    pq.write_table(as_tables(products, "inner_product"), tmp_path / "products")
    assert read_found(tmp_path / "products", 3, 2).faults == {}


def test_what_is_known_is_checked():
    near, told = np.array([[1, 2], [0, 2], [0, 1], [0, 1]]), np.zeros((4, 2))
    assert known.twins(np.zeros(4, int))(near, told) == ""
    assert known.twins(np.zeros(4, int))(near[[0, 1, 2, 1]], told).startswith("1 users have other twins")
    assert "elsewhere" in known.twins(np.zeros(4, int))(near, told + 1)
    assert known.first_ones(np.array([0, 1, 2, 3]))(near, told) == ""
    assert known.first_ones(np.array([3, 1, 2, 0]))(near, told) != ""
    assert known.hub(0, np.ones(4, bool))(near, told) == ""
    assert known.hub(1, np.ones(4, bool))(near, told) == "2 of 4 users lack the hub"
    assert known.lowest(np.array([2, 3]))(near, told) == ""


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_made(name):
    rows, _ = CASES[name].make(120)
    assert rows.shape[0] == 120


def test_pruning_that_looks_everywhere_is_exact_and_otherwise_finds_more_the_more_it_looks(tmp_path, monkeypatch):
    rows, asked = draw(600, 100, 6), np.arange(0, 600, 5)
    norms = np.sqrt(rows.power(2).sum(axis=1))
    unit = sparse.csr_array((rows.data / np.repeat(norms, np.diff(rows.indptr)), rows.indices, rows.indptr), rows.shape)
    far = distances(rows, asked, "cosine")
    far[np.arange(len(asked)), asked] = np.inf
    truth = {"query_rows": asked, "distances": np.sort(far, axis=1)[:, :10]}

    def recall_of(**setting):
        found, _ = pruning.search(unit.astype(np.float32), setting)
        lists = {i: [(j, 0.0) for j in one.tolist() if j not in (i, -1)] for i, one in enumerate(found)}
        pq.write_table(as_tables(lists), tmp_path / "table")
        return recall_under_cosine(tmp_path / "table", rows, truth)

    few, more = (recall_of(leaders=0, indexes=1, k_clusters=n) for n in (1, 6))
    assert 0.2 < few < more < 1
    assert recall_of(leaders=0, indexes=2, k_clusters=6) > more
    assert recall_of(leaders=0, indexes=2, k_clusters=600) == 1
    monkeypatch.setattr(pruning, "MOST", 20)
    assert recall_of(leaders=0, indexes=1, k_clusters=600) == 1


def run(monkeypatch, main, *words):
    monkeypatch.setattr(sys, "argv", ["check", *map(str, words)])
    main()


def test_metrics_are_checked_and_not_again(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "set.npz", X=clustered(900, 8))
    words = ["--out", tmp_path / "out.json", "--sets", f"{tmp_path}/set.npz:800", "--metrics", "hamming"]
    run(monkeypatch, check_metrics.main, *words, "--limit", 120)
    (one,) = json.loads((tmp_path / "out.json").read_text())
    assert (one["set"], one["rows"], one["status"], one["faults"]) == ("set:800", 800, "ok", {})
    assert one["true"] > 0.9
    assert one["distance_error"] < 1e-5
    assert one["peak_mb"] > 100
    assert len(capsys.readouterr().out.splitlines()) == 2
    run(monkeypatch, check_metrics.main, *words)
    assert capsys.readouterr().out.startswith("1 runs: 0 ")


def test_degenerate_cases_are_checked(tmp_path, monkeypatch, capsys):
    words = ["--out", tmp_path / "out.json", "--cases", "identical, cosine", "--share", "0.01", "--limit", 120]
    run(monkeypatch, check_degenerate.main, *words)
    (one,) = json.loads((tmp_path / "out.json").read_text())
    assert (one["status"], one["faults"], one["wrong"], one["true"]) == ("ok", {}, "", 1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 cases: 0 ")


def test_sparse_rows_are_compared(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    rows, asked = draw(700, 100, 6), np.arange(0, 700, 7)
    far = distances(rows, asked, "cosine")
    far[np.arange(len(asked)), asked] = np.inf
    save_sparse(tmp_path / "set.csr.npz", rows)
    np.savez(tmp_path / "set.csr.truth.npz", query_rows=asked, distances=np.sort(far, axis=1)[:, :10])
    for name, ladder in rivals.LADDERS.items():
        monkeypatch.setitem(rivals.LADDERS, name, ladder[:1])
    run(monkeypatch, check_sparse.main, "--out", tmp_path / "out.json", "--sets", tmp_path / "set.csr.npz")
    ours, pruned, _, brute = json.loads((tmp_path / "out.json").read_text())
    assert (ours["status"], ours["faults"], brute["status"], brute["recall"]) == ("ok", {}, "ok", 1)
    assert ours["recall"] > 0.9
    assert pruned["recall"] < 0.9


def test_joins_are_compared(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "few.npz", X=clustered(400))
    other = tmp_path / "nobody.py"
    other.write_text(
        "import numpy as np\n\ndef join(vectors, leaf, k):\n    return (np.full((len(vectors), k), -1),)\n"
    )
    asked = ["--other", str(other), "--sets", str(tmp_path / "few.npz"), "--probes", "1", "4", "--leaf", "100"]
    monkeypatch.setattr(sys, "argv", ["check_join.py", *asked, "--repeats", "1"])
    check_join.main()
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
    start, step, end = by_step([("read", 2.0, 5.0)], 7.0, looks)
    assert [one[0] for one in (start, step, end)] == ["start", "read", "exit"]
    assert [one[1] for one in (start, step, end)] == [3, 2, 2]
    assert [one[2]["Python"] for one in (start, step, end)] == [2, 1, 0]
    assert [one[2]["compilers"] for one in (start, step, end)] == [0.5, 0.75, 0.25]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what threads have spent")
def test_core_seconds_of_a_build_are_told_by_step(tmp_path, monkeypatch, capsys):
    run(monkeypatch, check_cpu.main, "--set", "synthetic:500x8", "--cache", tmp_path)
    _, _, *lines = capsys.readouterr().out.splitlines()
    spent = {
        cells[1]: [float(cell) for cell in cells[2:-1]] for cells in ([c.strip() for c in x.split("|")] for x in lines)
    }
    assert list(spent) == ["start", "read", "sample", "grow", "calibrate", "join", "audit", "publish", "exit", "all"]
    assert min(spent["all"]) > 0
    assert spent["all"][1] == pytest.approx(sum(spent["all"][2:]), abs=0.3)


def test_sets_are_read_and_written(tmp_path):
    rows = draw(50, 30, 4)
    save_sparse(tmp_path / "set.csr.npz", rows)
    name, few = load(f"{tmp_path}/set.csr.npz:20")
    assert (name, few.shape[0]) == ("set.csr:20", 20)
    write_rows(tmp_path / "table", rows)
    assert (abs(read_rows(tmp_path / "table") - rows[:, : read_rows(tmp_path / "table").shape[1]])).max() == 0
    assert as_bits(np.array([[0, 127, 128]], np.float32)).tolist() == [[0, 0, 1]]
    assert as_bits(np.array([[-1, 0, 0.5]], np.float32)).tolist() == [[0, 0, 1]]
