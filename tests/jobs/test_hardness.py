import numpy as np
import pytest

from jobs.benchmark import hardness
from jobs.benchmark.sets import load
from tests.oracle import all_distances


def test_every_set_has_its_row(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "real.npz", X=np.random.default_rng(0).normal(size=(700, 40)))
    np.savez(tmp_path / "real.truth.npz", metric="euclidean")
    hardness.main(["--sets", "synthetic:3000x8", f"{tmp_path}/real.npz", f"{tmp_path}/real.npz@600"])
    heading, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()
    )
    assert [row[:2] for row in rows] == [
        ["synthetic:3000x8", "3,000 x 8"], ["real", "700 x 40"], ["real@600", "600 x 40"],
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(heading)}
    assert rows[0][4:] == ["-"] * 5  # no number of axes is below 8
    assert 0.8 < float(rows[1][4]) < 1
    assert all(float(row[2]) >= 1 for row in rows)


def test_texts_are_harder_than_users():
    user, text = (hardness.measure(load(f"{kind}:10000x64"), "cosine") for kind in ("synthetic", "synthetic-text"))
    assert text.probes > 1.5 * user.probes
    assert text.dimension > user.dimension


def test_the_intrinsic_dimension_is_that_of_the_space_the_rows_fill():
    flat = np.random.default_rng(0).uniform(size=(5000, 3)) @ np.random.default_rng(1).normal(size=(3, 20))
    distances, _ = hardness.nearest_of(np.arange(300), flat.astype(np.float32), "euclidean")
    assert hardness.intrinsic_dimension(distances) == pytest.approx(3, abs=0.4)
    assert hardness.shares_of_variance(np.hstack([flat, np.zeros((5000, 20))])) == (pytest.approx(1),)


def test_the_nearest_are_the_exact_ones_without_oneself():
    vectors = load("synthetic:400x8")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users = np.array([7, 250, 3])
    distances, near = hardness.nearest_of(users, vectors, "cosine")
    far = all_distances(vectors, "cosine")[users]
    far[np.arange(3), users] = np.inf
    np.testing.assert_allclose(distances**2 / 2, np.sort(far, axis=1)[:, : hardness.NEAR], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(far, near, axis=1), distances**2 / 2, atol=1e-6)
