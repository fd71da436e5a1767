"""The recipes of jobs/recipes.md, run against the libraries themselves."""

import re

import numpy as np
import pytest
from pyspark.sql import functions as F

from annspark import InputError
from tests.helpers import REPOSITORY, clustered, lists_of, make_table
from tests.oracle import recall_of

TEXT = (REPOSITORY / "jobs" / "recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
POINTS = clustered(300, 8, clusters=4)
X = np.concatenate([POINTS, POINTS[:10], POINTS[:10]])  # ten users have two twins each
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the libraries warn about themselves


def code_of(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def prepared(spark):
    names = {"spark": spark, "vectors": make_table(spark, X), "X": X}
    exec(code_of(TEXT)[0], names)
    yield names
    names["neighbors"].unpersist()


@pytest.fixture
def run(prepared):
    """Return a function that runs a section of the page, and returns what it has named."""

    def run_section(section, *libraries):
        for library in libraries:
            pytest.importorskip(library, reason=f"needs {library} (extra uses)")
        names = dict(prepared)
        for code in code_of(SECTIONS[section]):
            exec(code, names)
        return names

    return run_section


def share_together(labels):
    """Return the share of the twins that have one label."""
    return np.mean((labels[:10] == labels[300:310]) & (labels[:10] == labels[310:]))


def test_umap_takes_the_table_and_computes_no_neighbors(run, monkeypatch):
    module = pytest.importorskip("umap.umap_", reason="needs umap-learn (extra uses)")
    monkeypatch.setattr(module, "nearest_neighbors", None)
    layout = run("umap-learn")["layout"]
    assert layout.shape == (320, 2)
    far = np.linalg.norm(layout[:10] - layout[300:310], axis=1)
    assert far.max() < 0.2 * np.ptp(layout)


def test_umap_would_ignore_a_column_too_few(prepared):
    module = pytest.importorskip("umap", reason="needs umap-learn (extra uses)")
    _, indices, distances = prepared["to_arrays"](prepared["neighbors"], k=14, self_first=True)
    with pytest.warns(UserWarning, match="lower number of neighbors"):
        module.UMAP(n_neighbors=15, precomputed_knn=(indices, distances), n_epochs=1).fit(X)
    with pytest.raises(InputError, match="Build the table with k=31"):
        prepared["to_arrays"](prepared["neighbors"], k=32, self_first=True)


def test_opentsne_takes_the_table(run):
    names = run("openTSNE", "openTSNE")
    assert names["layout"].shape == (320, 2)
    near = np.asarray((names["affinities"].P + names["affinities"].P.T).sum(axis=1))
    assert (near > 0).all()


def test_scikit_learn_gives_what_it_gives_on_the_vectors(run):
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn (extra test)")
    neighbors = pytest.importorskip("sklearn.neighbors")
    names = run("scikit-learn")
    np.testing.assert_array_equal(names["clusters"], cluster.DBSCAN(eps=0.5, min_samples=5).fit_predict(X))
    expected = neighbors.LocalOutlierFactor(n_neighbors=20).fit(X).negative_outlier_factor_
    np.testing.assert_allclose(names["outliers"], expected, rtol=1e-4)
    assert names["layout"].shape == (320, 2)
    assert share_together(names["groups"]) == 1


def test_dbscan_finds_twins_only_by_their_zeros(prepared):
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn (extra test)")
    _, matrix = prepared["to_csr"](prepared["neighbors"])
    twins = cluster.DBSCAN(eps=1e-6, min_samples=3, metric="precomputed")
    assert (twins.fit_predict(matrix) >= 0).sum() == 30
    matrix.eliminate_zeros()
    assert (twins.fit_predict(matrix) >= 0).sum() == 0


def test_hdbscan_gives_what_it_gives_on_the_vectors(run):
    hdbscan = pytest.importorskip("hdbscan", reason="needs hdbscan (extra uses)")
    clusters = run("hdbscan")["clusters"]
    expected = hdbscan.HDBSCAN(min_samples=5).fit_predict(X)
    same = clusters[:, None] == clusters
    assert np.mean(same == (expected[:, None] == expected)) > 0.99


def test_scanpy_gives_what_it_gives_on_the_vectors(run):
    sc = pytest.importorskip("scanpy", reason="needs scanpy (extra uses)")
    cells = run("scanpy")["cells"]
    expected = cells.copy()
    sc.pp.neighbors(expected, n_neighbors=31, use_rep="X")
    found, wanted = cells.obsp["connectivities"].toarray(), expected.obsp["connectivities"].toarray()
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99
    assert share_together(cells.obs["leiden"].to_numpy()) == 1


def test_leiden_keeps_twins_together(run):
    communities = run("igraph and leidenalg", "igraph", "leidenalg")["communities"]
    assert communities.graph.vcount() == 320
    assert 3 <= len(communities) < 20
    assert share_together(np.array(communities.membership)) == 1


def test_graphframes_gets_its_columns(run):
    names = run("GraphFrames")
    assert names["edges"].columns == ["src", "dst", "weight"]
    assert names["vertices"].columns == ["id"]
    assert names["edges"].join(names["vertices"], F.col("src") == F.col("id"), "left_anti").count() == 0


def test_edge_index_has_both_directions_of_every_pair(run):
    names = run("PyTorch Geometric")
    index, weight = names["edge_index"], names["edge_weight"]
    assert (index.shape, index.dtype) == ((2, len(weight)), np.int64)
    pairs = set(zip(*index.tolist(), strict=True))
    assert pairs == {(target, source) for source, target in pairs}
    true = 1 / (1 + np.linalg.norm(X[index[0]] - X[index[1]], axis=1))
    np.testing.assert_allclose(weight, true, rtol=1e-4)


def test_what_libraries_find_becomes_a_table(run):
    names = run("The other way: faiss, pynndescent and tables", "faiss", "pynndescent")
    for name, least in (("from_faiss", 1), ("from_pynndescent", 0.9)):
        assert recall_of(lists_of(names[name]), X, 30, "euclidean") >= least


def test_calls_for_other_tables_are_calls(spark, prepared):
    calls = re.findall(r"\| `(from_table\(found.*?\))` \|", TEXT)
    assert len(calls) == 5
    found = spark.createDataFrame(
        [(1, 2, 1, 2, [1.0], [1.0], [(2, 0.5)], [2], [0.5], (1,), (2,), 0.5, 0.5)],
        "user_id int, neighbor_id int, id int, query_id int, vector array<float>, other array<float>, "
        "prediction array<struct<neighbor: int, distance: float>>, indices array<int>, distances array<float>, "
        "datasetA struct<id: int>, datasetB struct<id: int>, distCol double, similarity double",
    )
    for call in calls:
        if "vector_cosine_similarity" in call and not hasattr(found, "nearestByJoin"):
            continue  # Spark before 4.2
        assert eval(call, prepared | {"found": found, "F": F}).count() == 1
